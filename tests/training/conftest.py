"""A small training: 100 feature vectors, an MLP, and methods that remember what they are shown."""

import logging
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from PIL import Image

from nlx.data import ImageFiles, Split
from nlx.data.prepare import normalization, preparer
from nlx.methods.can import Heads, can, paper_schedule
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build, prepared
from nlx.training import loop
from nlx.training.loop import run_stages
from nlx.training.mesh import make_mesh
from nlx.training.observers import Observer, as_observers
from nlx.training.stages import Stages
from nlx.training.state import TrainState
from nlx.training.trainer import Trainer

N, F, K, B = 100, 6, 3, 16
STEPS = N // B


class Seen(NamedTuple):
    """How often an example was visited, and at which step last."""

    count: Array
    step: Array


def counted(method):
    """The method, with a memory of visits instead of its own."""

    def init(key, outputs, num_classes, size):
        params, _ = method.init(key, outputs, num_classes, size)
        return params, Seen(jnp.zeros(size), jnp.full(size, -1))

    def loss(key, params, memory, outputs, batch, step):
        losses, _, metrics = method.loss(key, params, (), outputs, batch, step)
        return losses, Seen(memory.count + 1, jnp.full_like(memory.step, step)), metrics

    return method._replace(init=init, loss=loss)


VISITING = counted(plain(cross_entropy))
"""Remembers visits and nothing else: quickly compiled."""
REMEMBERING = counted(can(K, temperature=paper_schedule(30), rho=paper_schedule(30), heads=Heads(2, 8, 8)))


class Told(Observer):
    """Takes down all that it is told, and asks for a stop when a function of the events says so."""

    def __init__(self, stop=lambda events: False):
        self.events, self._stop = [], stop

    def on_start(self, trainer, stages, state):
        self.events.append(("start", int(state.step)))

    def on_progress(self, progress):
        self.events.append(("progress", progress.epoch, progress.done))

    def on_epoch(self, state, row):
        self.events.append(("epoch", row["epoch"]))

    def stop_requested(self):
        return self._stop(self.events)

    def on_stop(self, state):
        self.events.append(("stop", int(state.step)))

    def on_end(self, state):
        self.events.append(("end", int(state.step)))

    def close(self, error):
        self.events.append(("close", type(error)))


class Clock:
    """Stands for time.perf_counter: every program takes as long as a test says."""

    def __init__(self, seconds_per_call):
        self.now, self.seconds = 0.0, seconds_per_call

    def __call__(self):
        self.now += self.seconds
        return self.now


@contextmanager
def compiled(caplog):
    """A list that afterwards holds what XLA has compiled within."""
    found = []
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        yield found
    found += [r.message for r in caplog.records if "XLA compilation" in r.message]


class Tape:
    """A feed that takes no steps but writes down which ones it was asked for."""

    def __init__(self, longest=8, loss=lambda step: 1.0):
        self.longest, self.loss, self.asked = longest, loss, []

    def advance(self, state, step, count):
        self.asked.append((step, count))
        assert int(state.step) == step
        gained = sum(self.loss(i) for i in range(step, step + count))
        sums = {"train_loss": state.sums["train_loss"] + np.float32(gained)}
        return state._replace(step=jnp.int32(step + count), sums=sums)


def taped(feed, epochs, steps_per_epoch, observers=(), step=0, stages=None, begun=None):
    """A training whose steps a tape takes, or rather does not."""
    plan = Stages(stages or epochs, 16 * steps_per_epoch, 16)
    zero = {"train_loss": jnp.float32(0)}
    sums = zero if step % steps_per_epoch else {}
    state = TrainState(jnp.int32(step), jax.random.key(0), {}, {}, (), (), sums)

    def begin(state, at):
        if begun is not None:
            begun.append((int(state.step), at.stage))
        return state._replace(sums=zero)

    return run_stages(
        state, plan, feed, begin_epoch=begin, refresh=lambda state, epochs: state, observers=as_observers(observers)
    )


@pytest.fixture
def stepwise(monkeypatch):
    """Programs of one step, so that a stop may come after any of them."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=Clock(10.0)))


@pytest.fixture(scope="session")
def split():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N).astype(np.int32)
    return Split(rng.normal(size=(N, F)).astype(np.float32), labels, labels)


@pytest.fixture(scope="session")
def pictures(split, tmp_path_factory):
    """The same labels with pictures: in memory, and as files."""
    folder = tmp_path_factory.mktemp("pictures")
    images = np.random.default_rng(1).integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    files = ImageFiles(tuple(str(folder / f"{i}.png") for i in range(N)), 4)
    return {"memory": Split(images, split.noisy_label, None), "files": Split(files, split.noisy_label, None)}


@pytest.fixture(scope="session")
def trainer_for():
    """Function that makes a trainer for a split; equal ones share their programs, but not their observers."""
    made = {}

    def make(split, method=REMEMBERING, devices=1, observers=(), augmentation="none", batch_size=B):
        wanted = (id(split), id(method), devices, augmentation, batch_size)
        if wanted not in made:
            network = build("mlp", split.inputs.shape[1:], K, widths=(16,))
            figures = (
                normalization(split.inputs) if len(split.inputs.shape) == 2 else (np.full(3, 128.0), np.full(3, 64))
            )
            model = prepared(network, preparer(*figures, augmentation=augmentation))
            parts = {"model": optax.sgd(0.1, momentum=0.9), "method": optax.sgd(0.02)}
            optimizer = optax.partition(parts, {"model": "model", "method": "method"})
            mesh = make_mesh(jax.devices()[:devices])
            made[wanted] = (Trainer(model, method, optimizer, batch_size=batch_size, mesh=mesh), split, method)
        trainer = made[wanted][0]
        trainer.observers = as_observers(observers)
        return trainer

    return make


def values(state):
    """Leaves as NumPy arrays, keys as their words."""
    keys = jax.dtypes.prng_key
    leaves = jax.tree.leaves(state)
    return [np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, keys) else x) for x in leaves]


def assert_same(state, other):
    """Two states are equal to the bit."""
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for a, b in zip(values(state), values(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
