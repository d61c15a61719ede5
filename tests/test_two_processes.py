"""The same run in two processes with two devices each as in one process with four."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.data import Split
from nlx.data.prepare import normalization, preparer
from nlx.methods.can import Heads, can, paper_schedule
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build
from nlx.samplers import gibbs
from nlx.training.checkpoint import Checkpoints, abstract_state
from nlx.training.evaluate import Evaluator, Refresher
from nlx.training.feed import in_order, make_feed
from nlx.training.loop import Stopped, fit
from nlx.training.stages import Course
from nlx.training.state import init_state, make_mesh, replicated
from nlx.training.step import batch_for_method, make_step

ROOT = Path(__file__).resolve().parents[1]
N, F, K, B, EPOCHS = 50, 6, 3, 8, 3
TIMEOUT = 300  # seconds


class Watcher:
    """Remembers rows; the last process asks for a stop in the middle of the second epoch, the others do not."""

    def __init__(self):
        self.rows, self.asked = [], False

    def progress(self, epoch, done, total, loss, rate):
        last = jax.process_index() == jax.process_count() - 1
        self.asked = last and epoch == 2 and done < total

    def epoch(self, row):
        self.rows.append(row)


def remembering():
    """CAN with all kinds of memory: visits are counted, labels corrected between epochs, chains go on by steps.

    The corrected labels and the chains are self-learning's and the CRF's.
    """
    steps = EPOCHS * (N // B)
    method = can(K, temperature=paper_schedule(steps), rho=paper_schedule(steps), heads=Heads(2, 8, 8))
    correcting = self_learning(K, refresh_after=corrections(1), prototypes=2, members=16)
    coupling, bias = jnp.asarray(np.random.default_rng(1).normal(size=(K, 9)), jnp.float32), jnp.zeros(9)

    def init(key, batch, size):
        labels = correcting.init(key, batch, size)[1]
        chains = gibbs.init(key, size, 4, 9, K).packed
        return method.init(key, batch, size)[0], {"seen": jnp.zeros(size), "labels": labels, "chains": chains}

    def loss(params, memory, outputs, batch, key, step):
        losses, aux = method.loss(params, {}, outputs, batch, key, step)
        more, _ = correcting.loss({}, memory["labels"], outputs, batch, key, step)
        logits = jax.lax.stop_gradient(outputs["logits"])
        chains, _ = gibbs.step(key, gibbs.State(memory["chains"]), coupling, bias, logits, 2, generator="hash")
        rows = {"seen": memory["seen"] + 1, "labels": memory["labels"], "chains": chains.packed}
        return losses + more, aux._replace(memory=rows)

    def refresh(memory, features, labels, key):
        return {**memory, "labels": correcting.refresh(memory["labels"], features, labels, key)}

    return method._replace(init=init, loss=loss, refresh=refresh)


def results(devices, folder):
    """Train for a few epochs, with a stop and its resumption, and return what came out as a dict of arrays."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N).astype(np.int32)
    features = (2 * np.eye(K, F)[labels] + rng.normal(size=(N, F))).astype(np.float32)
    split = Split(features, np.where(np.arange(N) % 5 == 0, (labels + 1) % K, labels).astype(np.int32), None)
    mesh = make_mesh(devices)
    model = build("mlp", (F,), K, widths=(16,))
    method = remembering()
    prepare = preparer(*normalization(split.inputs))
    optimizer = optax.sgd(0.1, momentum=0.9)
    step = make_step(model, method, optimizer, prepare, mesh)
    sample, _ = next(in_order(split, mesh.size, mesh))
    state = init_state(jax.random.key(0), model, method, optimizer, batch_for_method(sample, prepare, None), N, mesh)
    course = Course.whole(N, B, EPOCHS)
    feed = make_feed(split, course, step, 0, jax.random.key(0), mesh)
    feed.longest = 2
    watcher = Watcher()
    evaluator = Evaluator(model, method, prepare, mesh)
    refresh = Refresher(model, method, prepare, mesh, split, 16)

    def train(state, checkpoints, should_stop):
        return fit(
            state,
            feed,
            course=course,
            evaluate=lambda state: {"score": float(evaluator.scores(state, in_order(split, 16, mesh)).sum())},
            refresh=refresh,
            log=None,
            checkpoints=checkpoints,
            checkpoint_seconds=1e9,
            watcher=watcher,
            should_stop=should_stop,
        )

    with Checkpoints(folder) as checkpoints:
        abstract = abstract_state(state)
        with pytest.raises(Stopped) as stop:
            train(state, checkpoints, lambda: watcher.asked)
        state = checkpoints.load(abstract)
        assert int(state.step) == stop.value.step
        assert N // B < stop.value.step < 2 * (N // B)
        state = train(state, checkpoints, lambda: False)
    posterior = evaluator.posterior(state, in_order(split, 16, mesh))
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))
    trees = {"params": state.params, "memory": whole(state.memory), "posterior": posterior}
    flat = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(trees)}
    columns = ("epoch", "step", "train_loss", "reconstruction", "score")
    return flat | {name: np.array([row[name] for row in watcher.rows]) for name in columns}


def work(process, port, folder):
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)
    assert jax.device_count() == 4
    assert jax.local_device_count() == 2
    found = results(jax.devices(), folder / "checkpoints")
    if process == 0:
        np.savez(folder / "two.npz", **found)
    jax.distributed.shutdown()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_train_as_one_does(tmp_path):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(i), str(port), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        expected = results(jax.devices()[:4], tmp_path / "one")
        said = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(said)[-4000:]

    found = dict(np.load(tmp_path / "two.npz"))
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["epoch"], [1, 2, 3])
    for exact in ("['seen']", "['labels']['corrected']", "['chains']"):
        np.testing.assert_array_equal(found[f"['memory']{exact}"], expected[f"['memory']{exact}"], err_msg=exact)
    assert found["['memory']['seen']"].sum() == EPOCHS * (N // B) * B
    assert (found["['memory']['labels']['corrected']"][:N] >= 0).all()
    assert found["['memory']['chains']"].dtype == np.uint8
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
