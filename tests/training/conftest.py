"""A small run, ready to be trained: 100 feature vectors, an MLP and a method, on any number of devices."""

from copy import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.data import Split
from nlx.data.prepare import normalization, preparer
from nlx.methods.can import Heads, can, paper_schedule
from nlx.models import build
from nlx.training.evaluate import Evaluator
from nlx.training.feed import in_order, make_feed
from nlx.training.loop import fit
from nlx.training.stages import Course
from nlx.training.state import init_state, make_mesh
from nlx.training.step import batch_for_method, make_step

N, F, K, B = 100, 6, 3, 16


class Run(NamedTuple):
    """What a run consists of; ``traces`` grows whenever the training step is traced."""

    state: Any
    feed: Any
    evaluator: Any
    mesh: Any
    traces: list
    model: Any
    prepare: Any


class Quiet:
    """A watcher that remembers what it was told."""

    def __init__(self):
        self.told = []

    def progress(self, *args):
        self.told.append(("progress", *args))

    def epoch(self, row):
        self.told.append(("epoch", row))


@pytest.fixture(scope="session")
def split():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N).astype(np.int32)
    return Split(rng.normal(size=(N, F)).astype(np.float32), labels, labels)


@pytest.fixture(scope="session")
def remembering():
    """CAN, which also counts in its memory how often it has seen each example."""
    method = can(K, temperature=paper_schedule(30), rho=paper_schedule(30), heads=Heads(2, 8, 8))

    def init(key, batch, size):
        return method.init(key, batch, size)[0], {"seen": jnp.zeros(size)}

    def loss(params, memory, outputs, batch, key, step):
        losses, aux = method.loss(params, {}, outputs, batch, key, step)
        return losses, aux._replace(memory={"seen": memory["seen"] + 1})

    return method._replace(init=init, loss=loss)


@pytest.fixture(scope="session")
def new_run():
    """Function that makes a run at step 0. Equal runs share their programs, which are compiled once a session."""

    made = {}

    def first(split, method, devices, augmentation):
        mesh = make_mesh(jax.devices()[:devices])
        model = build("mlp", split.inputs.shape[1:], K, widths=(16,))

        def rate(count):
            return jnp.where(count < 7, 0.1, 0.01)

        optimizer = optax.partition(
            {"model": optax.sgd(rate, momentum=0.9), "method": optax.sgd(0.02)}, {"model": "model", "method": "method"}
        )
        prepare = preparer(*normalization(split.inputs), augmentation=augmentation)
        traces = []
        step = make_step(model, method, optimizer, prepare, mesh)

        def counted(state, batch):
            traces.append(batch)
            return step(state, batch)

        sample, _ = next(in_order(split, mesh.size, mesh))
        sample = batch_for_method(sample, prepare, None)
        state = init_state(jax.random.key(0), model, method, optimizer, sample, len(split), mesh)
        feed = make_feed(split, Course.whole(len(split), B, 1), counted, 0, jax.random.key(0), mesh)
        return Run(state, feed, Evaluator(model, method, prepare, mesh), mesh, traces, model, prepare)

    def make(split, method, devices=1, augmentation="none"):
        wanted = (id(split), id(method), devices, augmentation)
        if wanted not in made:
            # Split and method live on: their ids stay their own.
            made[wanted] = (first(split, method, devices, augmentation), split, method)
        run = made[wanted][0]
        # The first state and feed are never trained, so that their copies are new ones.
        return run._replace(state=jax.tree.map(jnp.copy, run.state), feed=copy(run.feed))

    return make


@pytest.fixture(scope="session")
def train():
    """Function that calls ``fit`` with defaults of which a test changes what it is about."""

    def call(run, state=None, **options):
        steps = getattr(run.feed, "steps_per_epoch", N // B)
        defaults = {
            "course": Course.whole(steps * B, B, options.pop("epochs", 3)),
            "evaluate": lambda state: {},
            "log": None,
            "checkpoints": None,
            "checkpoint_seconds": 1e9,
            "watcher": Quiet(),
            "should_stop": lambda: False,
        }
        return fit(run.state if state is None else state, run.feed, **(defaults | options))

    return call


@pytest.fixture
def quiet():
    return Quiet()
