"""The same run in two processes with two devices each as in one process with four."""

import itertools
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nlx.data import Split
from nlx.data.prepare import normalization, preparer
from nlx.methods.can import Heads, can, paper_schedule
from nlx.methods.self_learning import Corrections, corrections, self_learning
from nlx.models import build, prepared
from nlx.samplers import gibbs
from nlx.training import loop
from nlx.training.checkpoint import Checkpoints
from nlx.training.mesh import make_mesh, replicated
from nlx.training.observers import Observer
from nlx.training.trainer import Trainer
from tests.processes import assert_well, outcome, two

N, F, K, B, EPOCHS = 50, 6, 3, 8, 3


class Watcher(Observer):
    """Remembers rows; the last process asks for a stop in the middle of the second epoch, the others do not."""

    def __init__(self):
        self.rows, self.asked, self.stops = [], False, True

    def on_progress(self, progress):
        last = jax.process_index() == jax.process_count() - 1
        self.asked = self.stops and last and progress.epoch == 2 and progress.done < progress.total

    def on_epoch(self, state, row):
        self.rows.append(row)

    def stop_requested(self):
        return self.asked


class Memory(NamedTuple):
    """All kinds of memory: visits are counted, labels corrected between epochs, chains go on by steps."""

    seen: jax.Array
    labels: Corrections
    chains: jax.Array


def remembering():
    """CAN with self-learning's corrected labels and the CRF's chains."""
    steps = EPOCHS * (N // B)
    method = can(K, temperature=paper_schedule(steps), rho=paper_schedule(steps), heads=Heads(2, 8, 8))
    correcting = self_learning(K, refresh_after=corrections(1), prototypes=2, members=16)
    coupling, bias = jnp.asarray(np.random.default_rng(1).normal(size=(K, 9)), jnp.float32), jnp.zeros(9)

    def init(key, outputs, num_classes, size):
        labels = correcting.init(key, outputs, num_classes, size)[1]
        chains = gibbs.init(key, size, 4, 9, K).packed
        return method.init(key, outputs, num_classes, size)[0], Memory(jnp.zeros(size), labels, chains)

    def loss(key, params, memory, outputs, batch, step):
        losses, _, metrics = method.loss(key, params, (), outputs, batch, step)
        more, _, _ = correcting.loss(key, {}, memory.labels, outputs, batch, step)
        logits = jax.lax.stop_gradient(outputs["logits"])
        chains, _ = gibbs.step(key, gibbs.State(memory.chains), coupling, bias, logits, 2, generator="hash")
        return losses + more, Memory(memory.seen + 1, memory.labels, chains.packed), metrics

    def refresh(key, memory, features, labels):
        return memory._replace(labels=correcting.refresh(key, memory.labels, features, labels))

    return method._replace(init=init, loss=loss, refresh=refresh)


class Scores(Observer):
    """Adds a sum of scores, which needs all processes."""

    def on_start(self, trainer, stages, state):
        self.trainer = trainer

    def on_epoch(self, state, row):
        row["score"] = float(self.trainer.scores(state, data()).sum())


def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N).astype(np.int32)
    features = (2 * np.eye(K, F)[labels] + rng.normal(size=(N, F))).astype(np.float32)
    return Split(features, np.where(np.arange(N) % 5 == 0, (labels + 1) % K, labels).astype(np.int32), None)


@contextmanager
def clocks_that_differ():
    """The first process finds every program slow and would take one step at a time, the others would take more."""
    seconds = 10.0 if jax.process_index() == 0 else 0.001
    with mock.patch.object(loop, "time", SimpleNamespace(perf_counter=itertools.count(0.0, seconds).__next__)):
        yield


@clocks_that_differ()
def results(devices, folder):
    """Train for a few epochs, with a stop and its resumption, and return what came out as a dict of arrays."""
    split, mesh, watcher = data(), make_mesh(devices), Watcher()
    model = prepared(build("mlp", (F,), K, widths=(16,)), preparer(*normalization(split.inputs)))
    checkpoints, method = Checkpoints(folder, 1e9), remembering()
    trainer = Trainer(
        model,
        method,
        optax.sgd(0.1, momentum=0.9),
        batch_size=B,
        mesh=mesh,
        observers=[Scores(), watcher, checkpoints],
    )
    stopped = trainer.fit(split, jax.random.key(0), EPOCHS)
    assert stopped.stopped
    at = int(stopped.state.step)
    assert at == N // B + 1
    watcher.stops = False
    state = checkpoints.load(trainer.abstract_state(split))
    assert int(state.step) == at
    state = trainer.fit(split, jax.random.key(0), EPOCHS, state=state).state
    posterior = trainer.posterior(state, split)
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))
    trees = {"params": state.params, "memory": whole(state.memory), "posterior": posterior}
    flat = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(trees)}
    columns = ("epoch", "step", "train_loss", "reconstruction", "score")
    return flat | {name: np.array([row[name] for row in watcher.rows]) for name in columns}


def work(process, address, folder):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    assert jax.device_count() == 4
    assert jax.local_device_count() == 2
    found = results(jax.devices(), folder / "checkpoints")
    if process == 0:
        np.savez(folder / "two.npz", **found)
    jax.distributed.shutdown()


def test_two_processes_train_as_one_does(tmp_path):
    with two(__file__, lambda address, i: (i, address, tmp_path)) as processes:
        expected = results(jax.devices()[:4], tmp_path / "one")
        assert_well(outcome(processes))
    found = dict(np.load(tmp_path / "two.npz"))
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["epoch"], [1, 2, 3])
    for exact in ("seen", "labels.corrected", "chains"):
        np.testing.assert_array_equal(found[f"['memory'].{exact}"], expected[f"['memory'].{exact}"], err_msg=exact)
    assert found["['memory'].seen"].sum() == EPOCHS * (N // B) * B
    assert (found["['memory'].labels.corrected"][:N] >= 0).all()
    assert found["['memory'].chains"].dtype == np.uint8
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
