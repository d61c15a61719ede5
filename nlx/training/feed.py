"""How a run's steps get their batches: from a training set on the device, or from files through grain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nlx.data import DataError, ImageFiles, Split
from nlx.data.batches import read, stream
from nlx.methods.method import Batch
from nlx.training.stages import Course
from nlx.training.state import TrainState, by_example, replicated
from nlx.training.step import Step, epoch_order, run_steps


class Feed(Protocol):
    """Takes steps through the data."""

    longest: int
    """Most steps worth taking between two looks at the outside world."""

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """Take ``count`` steps from ``step`` on, within one epoch; the old state is consumed."""


def on_device(split: Split, sharding: jax.sharding.Sharding) -> Batch:
    """What the step reads of a training split that fits into memory, as arrays on the device."""
    assert isinstance(split.inputs, np.ndarray)
    arrays = {split.input_name: split.inputs, "noisy_label": split.noisy_label}
    if (trusted_label := split.trusted_label) is not None:
        arrays["trusted_label"] = trusted_label
    return {name: jax.device_put(a, sharding) for name, a in arrays.items()}


class DeviceFeed:
    """The whole training set on every device; its order and batches are made there, without a host round trip."""

    def __init__(self, split: Split, course: Course, step: Step, key: Array, mesh: Mesh):
        self.longest = course.total
        self._data = on_device(split, replicated(mesh))
        self._run = run_steps(step, course.batch_size)
        self._make_order = jax.jit(epoch_order, static_argnums=3, out_shardings=replicated(mesh))
        self._rows = [jax.device_put(stage.rows.astype(np.int32), replicated(mesh)) for stage in course.stages]
        self._key, self._course = key, course
        self._epoch, self._order = -1, jnp.zeros(0, jnp.int32)

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See :class:`Feed`."""
        place = self._course.at(step)
        if place.epoch != self._epoch:
            # As long in every stage, so that all of them are one program.
            order = self._make_order(self._key, place.epoch, self._rows[place.stage], self._course.longest)
            self._epoch, self._order = place.epoch, order
        return self._run(state, self._data, self._order, np.int32(place.start), np.int32(count))


class StreamFeed:
    """Images from files, decoded by grain's threads while the device works; one dispatch per step."""

    def __init__(self, split: Split, course: Course, step: Step, seed: int, mesh: Mesh):
        self.longest = 8
        self._split, self._course, self._seed = split, course, seed
        self._step = jax.jit(step, donate_argnums=0)
        self._sharding = by_example(mesh)
        self._batches: Iterator[dict[str, np.ndarray]] | None = None
        self._next = -1

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See :class:`Feed`."""
        if self._batches is None or step != self._next:
            self._batches = stream(self._split, self._course, self._seed, step)
        for _ in range(count):
            state = self._step(state, place(next(self._batches), self._sharding))
        self._next = step + count
        return state


def make_feed(split: Split, course: Course, step: Step, seed: int, key: Array, mesh: Mesh) -> Feed:
    """The feed that suits a training split.

    Raises:
      DataError: the batch does not divide over the devices.
    """
    if course.batch_size % mesh.size:
        raise DataError(f"--batch_size={course.batch_size} does not divide over {mesh.size} devices; take a multiple")
    if isinstance(split.inputs, ImageFiles):
        return StreamFeed(split, course, step, seed, mesh)
    return DeviceFeed(split, course, step, key, mesh)


def in_order(split: Split, batch_size: int, mesh: Mesh) -> Iterator[tuple[Batch, int]]:
    """A split from front to back, for evaluation: (batch of ``batch_size`` rows, how many of them count) pairs."""
    for batch, count in read(split, batch_size):
        yield place(batch, by_example(mesh)), count


def place(batch: dict[str, np.ndarray], sharding: jax.sharding.Sharding) -> Batch:
    """A host batch, the same on every process, as global arrays; each process uploads its own rows only."""

    def one(rows: np.ndarray) -> Array:
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    return {name: one(rows) for name, rows in batch.items()}
