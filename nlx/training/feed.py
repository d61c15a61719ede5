"""How a training's steps get their batches: from a training set on the device, or from files through grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from nlx import target
from nlx.arguments import ArgumentError
from nlx.data.batches import train_batches
from nlx.data.dataset import ImageFiles, Split
from nlx.methods.method import Batch
from nlx.training.mesh import Share, replicated, spread
from nlx.training.order import Groups, compiled_order, epoch_order, grouped
from nlx.training.stages import Stages
from nlx.training.state import TrainState, memory_rows
from nlx.training.step import Step, run_steps, summed


class Program(NamedTuple):
    """What a stage runs, compiled once; the state that goes in is consumed.

    Attributes:
      step: a step as a pure function.
      one: (state, batch) -> state.
      many: (state, data, order, start, count) -> state, see :func:`nlx.training.step.run_steps`.
      members: the same for stacked states, each with its own order ``[members, n]`` of the data.
    """

    step: Step
    one: Callable[..., TrainState]
    many: Callable[..., TrainState]
    members: Callable[..., TrainState]


def make_program(step: Step, batch_size: int, apart: Mesh | None = None, local: Mesh | None = None) -> Program:
    """A stage's program; with ``apart``, members lie along that mesh's axis, and each device trains its own.

    ``local`` is for many steps, see :func:`nlx.training.step.run_steps`.
    """
    many = run_steps(step, batch_size, local)

    def members(states: TrainState, data: Batch, orders: Array, start: ArrayLike, count: ArrayLike) -> TrainState:
        if target.platform() in ("cpu", "gpu") and _convolves(states):
            return jax.lax.map(lambda each: many(each[0], data, each[1], start, count), (states, orders))
        side_by_side: TrainState = jax.vmap(many, in_axes=(0, None, 0, None, None))(states, data, orders, start, count)
        return side_by_side

    if apart is not None:
        own, same = PartitionSpec(apart.axis_names), PartitionSpec()
        specs = (own, same, own, same, same)
        members = jax.shard_map(members, mesh=apart, in_specs=specs, out_specs=own, check_vma=False)
    return Program(step, *(jax.jit(f, donate_argnums=0) for f in (summed(step), many, members)))


def _convolves(states: TrainState) -> bool:
    """Whether stacked states have kernels of convolutions: CPUs and GPUs are slow where each member has its own."""
    return any(leaf.ndim == 5 for leaf in jax.tree.leaves(states.params["model"]))


def local_key(key: Array) -> Array:
    """A copy of a state's key, which lies on a mesh and goes with its state, on this process alone."""
    words = jnp.asarray(np.asarray(jax.random.key_data(key)))
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


class Feed(Protocol):
    """Takes steps through the data."""

    longest: int
    """Most steps worth taking before looking whether a stop was asked for."""

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """Take ``count`` steps from ``step`` on, within one epoch; the old state is consumed."""


def on_device(split: Split, mesh: Mesh, spread_data: bool, groups: int = 1) -> Batch:
    """What the step reads of a training split that fits into memory: on every device, or spread over them.

    Where batches take from groups, data lie as the method's memory does.
    """
    _refuse_plans()
    named = {"inputs": split.inputs, "noisy_label": split.noisy_label, "trusted_label": split.trusted_label}
    arrays: dict[str, Any] = {name: a for name, a in named.items() if a is not None}
    rows = memory_rows(len(split), mesh, groups) if groups > 1 else None
    return spread(arrays, mesh, rows) if spread_data else jax.device_put(arrays, replicated(mesh))


def batch_shapes(split: Split, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a training batch."""

    def shape(rows: np.ndarray | ImageFiles) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *rows.shape[1:]), jax.dtypes.canonicalize_dtype(rows.dtype))

    arrays = {"inputs": split.inputs, "noisy_label": split.noisy_label, "trusted_label": split.trusted_label}
    shapes = {name: shape(rows) for name, rows in arrays.items() if rows is not None}
    return {"index": jax.ShapeDtypeStruct((batch_size,), np.int32), **shapes}


class DeviceFeed:
    """The whole training set on the devices; its order and batches are made there, without a host round trip."""

    def __init__(
        self,
        split: Split,
        stages: Stages,
        programs: Sequence[Program],
        key: Array,
        mesh: Mesh,
        spread_data: bool,
        groups: int,
    ):
        self.longest = stages.total
        self._data = on_device(split, mesh, spread_data, groups)
        self._make_order = jax.jit(epoch_order, static_argnums=3, out_shardings=replicated(mesh))
        self._rows = [jax.device_put(rows, replicated(mesh)) for rows in visited(stages, len(split), mesh, groups)]
        self._key, self._stages, self._programs = key, stages, programs
        self._epoch, self._order = -1, jnp.zeros(0, jnp.int32)

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See :class:`Feed`."""
        at = self._stages.position(step)
        if at.epoch != self._epoch:
            # As long in every stage, so that stages of one method are one program.
            order = self._make_order(self._key, at.epoch, self._rows[at.stage], self._stages.longest)
            self._epoch, self._order = at.epoch, order
        return self._programs[at.stage].many(state, self._data, self._order, np.int32(at.start), np.int32(count))


class StreamFeed:
    """Images from files, decoded by grain's threads while the device works; one dispatch per step.

    Each process decodes what its own devices take of a batch.
    """

    def __init__(self, split: Split, stages: Stages, programs: Sequence[Program], key: Array, mesh: Mesh, groups: int):
        self.longest = 8
        self._split, self._stages, self._programs = split, stages, programs
        self._share = Share(mesh, stages.batch_size)
        self._batches: Iterator[dict[str, np.ndarray]] | None = None
        self._next = -1

        rows = visited(stages, len(split), mesh, groups)

        # Two epochs, as prefetching reaches into the next one.
        @lru_cache(maxsize=2)
        def order(stage: int, epoch: int) -> np.ndarray:
            return np.asarray(compiled_order(key, epoch, rows[stage], len(stages.rows[stage])))

        def rows_of(step: int) -> np.ndarray:
            at = stages.position(step)
            return order(at.stage, at.epoch)[at.start * stages.batch_size + self._share.rows]

        self._rows_of = rows_of

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See :class:`Feed`."""
        if self._batches is None or step != self._next:
            self._batches = train_batches(self._split, self._rows_of, step)
        take = self._programs[self._stages.position(step).stage].one
        for _ in range(count):
            state = take(state, self._share.to_device(next(self._batches)))
        self._next = step + count
        return state


def visited(stages: Stages, size: int, mesh: Mesh, groups: int) -> list[np.ndarray | Groups]:
    """The rows of each stage, int32; in groups where there are several, as memory is spread over the mesh."""
    if groups == 1:
        return [rows.astype(np.int32) for rows in stages.rows]
    share = memory_rows(size, mesh, groups) // groups
    return [grouped(rows, share, groups, stages.batch_size) for rows in stages.rows]


def make_feed(
    split: Split,
    stages: Stages,
    programs: Sequence[Program],
    key: Array,
    mesh: Mesh,
    spread_data: bool = False,
    groups: int = 1,
) -> Feed:
    """The feed that suits a training split; both visit the same rows in the same order, which follows from ``key``."""
    _refuse_plans()
    if isinstance(split.inputs, ImageFiles):
        return StreamFeed(split, stages, programs, local_key(key), mesh, groups)
    return DeviceFeed(split, stages, programs, local_key(key), mesh, spread_data, groups)


def _refuse_plans() -> None:
    """Nothing runs while devices are only planned for."""
    if target.is_planned():
        raise ArgumentError(
            "`plan` says what one training takes, but here others come before it: plan recipes/baseline.py, whose step "
            "takes as much as one of them"
        )
