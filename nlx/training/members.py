"""Several members of a training, seeds or folds, side by side in one program over a leading axis of states."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nlx.arguments import ArgumentError
from nlx.methods.method import Batch
from nlx.training.feed import Program, local_key
from nlx.training.loop import Fitted, check_finite
from nlx.training.observers import Row
from nlx.training.order import compiled_order
from nlx.training.stages import Position, Stages
from nlx.training.state import TrainState


def member_plans(plan: Stages, rows: Sequence[np.ndarray] | None, members: int, size: int) -> list[Stages]:
    """What each member visits: the plan's rows that are among its own.

    Args:
      plan: what all would visit.
      rows: each member's rows of the training set, int; None for all of them.
      members: how many there are.
      size: n, training examples.
    """
    if rows is None:
        return [plan] * members
    if len(rows) != members:
        raise ArgumentError(f"`rows` must say what each of {members} members visits, got {len(rows)} sets of rows")
    plans = []
    for own in rows:
        inside = np.zeros(size, bool)
        inside[own] = True
        kept = [replace(s, rows=r[inside[r]]) for s, r in zip(plan.all, plan.rows, strict=True)]
        plans.append(Stages(kept, size, plan.batch_size))
    return plans


def common_plan(plans: Sequence[Stages], size: int) -> Stages:
    """The steps that all members can take: a stage's epochs are as long as those of the member with its fewest rows."""
    fewest = [min(rows, key=len) for rows in zip(*(plan.rows for plan in plans), strict=True)]
    stages = [replace(stage, rows=rows) for stage, rows in zip(plans[0].all, fewest, strict=True)]
    return Stages(stages, size, plans[0].batch_size)


def devices_of_members(mesh: Mesh, members: int) -> Mesh | None:
    """The devices on which members lie apart, as many on each, along the one axis of a mesh of them.

    None where that would leave half of the devices idle or more, or where they are of several processes.
    """
    fits = max(count for count in range(1, mesh.size + 1) if members % count == 0)
    if mesh.is_multi_process or 2 * fits <= mesh.size or fits == 1:
        return None
    return Mesh(mesh.devices.flat[:fits], ("members",), axis_types=(AxisType.Auto,))


def run_members(
    states: list[TrainState],
    plans: list[Stages],
    common: Stages,
    programs: Sequence[Program],
    data: Batch,
    *,
    begin_stage: Callable[[TrainState, Position], TrainState],
    sum_names: Callable[[Position], list[str]],
    refresh: Callable[[TrainState, int], TrainState] | None,
    apart: Mesh | None,
    home: Callable[[TrainState], TrainState],
) -> Fitted:
    """Train all members to the end of their plans, step by step together.

    Args:
      states: of the members, at step 0.
      plans: what each visits; the same stages.
      common: their steps, see :func:`common_plan`.
      programs: of each stage.
      data: the training set on the device.
      begin_stage: gives one member's state what a stage begins with.
      sum_names: names of the metrics of an epoch's steps.
      refresh: as in :func:`nlx.training.loop.run_stages`, for one member; None where no method wants it.
      apart: see :func:`devices_of_members`.
      home: where one member's state lies outside of its steps, as a tree of shardings.
    """
    keys = [local_key(state.key) for state in states]
    visits = [[jnp.asarray(rows, jnp.int32) for rows in plan.rows] for plan in plans]

    def each(many: TrainState, change: Callable[..., TrainState], *options: Any) -> TrainState:
        """Something done to every member, one after the other."""
        return _placed(stack([change(one, *options) for one in _members(many, len(states), apart, home)]), apart)

    many, step, names = _placed(stack(states), apart), 0, list[str]()
    history: list[Row] = []
    while step < common.total:
        at = common.position(step)
        began = time.perf_counter()
        if step == common.starts[at.stage]:
            many = each(many, begin_stage, at)
            names = sum_names(at)
        many = many._replace(sums={name: jnp.zeros(len(states)) for name in names})
        visited = at.steps * common.batch_size
        orders = [
            compiled_order(key, at.epoch, rows[at.stage], len(rows[at.stage]))[:visited]
            for key, rows in zip(keys, visits, strict=True)
        ]
        many = programs[at.stage].members(many, data, jnp.stack(orders), np.int32(0), np.int32(at.steps))
        means = {name: np.asarray(values) / at.steps for name, values in many.sums.items()}
        seconds, step = time.perf_counter() - began, step + at.steps
        for loss in means["train_loss"]:
            check_finite(float(loss), step)
        if refresh is not None:
            many = each(many, refresh, at.epoch + 1)
        stage = {"stage": common.all[at.stage].name} if len(common.all) > 1 else {}
        history.append({"epoch": at.epoch + 1, "step": step, **stage, "seconds": round(seconds, 4), **means})
    if apart is not None:
        many = stack(_members(many, len(states), apart, home))
    return Fitted(many, history)


def stack(states: Sequence[TrainState]) -> TrainState:
    """States with a leading axis."""
    stacked: TrainState = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return stacked


def _placed(many: TrainState, apart: Mesh | None) -> TrainState:
    """Stacked states where their members' steps run."""
    if apart is None:
        return many
    placed: TrainState = jax.device_put(many, NamedSharding(apart, PartitionSpec(apart.axis_names)))
    return placed


def _members(
    many: TrainState, members: int, apart: Mesh | None, home: Callable[[TrainState], TrainState]
) -> list[TrainState]:
    """Each member's state, where it lies outside of its steps."""
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], many) for i in range(members)]
    return each if apart is None else [jax.device_put(state, home(state)) for state in each]
