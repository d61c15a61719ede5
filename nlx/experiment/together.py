"""Several seeds of a small run in one program: the step mapped over a leading axis of states.

On an accelerator a small network leaves most of the device idle, and seeds trained side by side fill it. The data are
shared, and so is what a recipe draws before training (the CRF's auxiliary machine, which trusted examples come twice),
as in a run of several seeds; orders, initial weights and draws of the training are each seed's own. Arithmetic is
batched, so that results agree with those of such a run up to rounding, which training then magnifies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.data import Dataset, ImageFiles
from nlx.experiment.assembly import Assembly
from nlx.experiment.options import Config, ConfigError
from nlx.experiment.recipe import Recipe, make_plan
from nlx.methods.method import Batch
from nlx.training.feed import on_device
from nlx.training.loop import Diverged, Row
from nlx.training.scores import best, cheapest, given_recovery, last
from nlx.training.state import TrainState, make_mesh, replicated
from nlx.training.step import Step, epoch_order, run_steps


def run_together(
    config: Config, recipe: Recipe[Config], seeds: Sequence[int], *, dataset: Dataset | None = None
) -> list[dict[str, Any]]:
    """Train seeds side by side on one device, for tables of scores; nothing is written, and nothing can be resumed.

    Args:
      config: options; its own seed decides only what a recipe draws before training, as in a run of several seeds.
      recipe: the method.
      seeds: at least one.
      dataset: to train on instead of the one the configuration names.

    Returns:
      For each seed, what summary.json says of its scores: ``last``, ``best``, ``cleaned_with``,
      ``given_label_recovery`` and ``wall_seconds``, a seed's share of the time.

    Raises:
      DataError, ConfigError: something the user has to change; images that stay on disk are.
      Diverged: the loss of a seed is not finite.
    """
    began = time.monotonic()
    plan = make_plan(config, recipe, dataset)
    course, train = plan.course, plan.dataset.train
    if isinstance(train.inputs, ImageFiles):
        raise ConfigError("seeds train together from memory only; train one after the other, or raise --in_memory_gib")
    parts = Assembly(plan, make_mesh(jax.devices()[:1]))
    data = on_device(train, replicated(parts.mesh))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    rows = [jnp.asarray(stage.rows, jnp.int32) for stage in course.stages]
    orders = jax.jit(jax.vmap(epoch_order, in_axes=(0, None, None, None)), static_argnums=3)
    advance = side_by_side(parts.step, course.batch_size)
    states = stack([parts.start(seed) for seed in seeds])
    logs: list[list[Row]] = [[] for _ in seeds]
    step = 0
    while step < course.total:
        place = course.at(step)
        clock = time.perf_counter()
        states = states._replace(sums=jax.tree.map(jnp.zeros_like, states.sums))
        if course.starts_afresh(step):
            states = _each(parts.redraw, states, len(seeds))
        order = orders(keys, place.epoch, rows[place.stage], course.longest)
        states = advance(states, data, order, np.int32(0), np.int32(place.steps))
        sums = {name: np.asarray(values) / place.steps for name, values in states.sums.items()}
        seconds = (time.perf_counter() - clock) / len(seeds)
        step += place.steps
        for seed, loss in zip(seeds, sums["train_loss"], strict=True):
            if not math.isfinite(loss):
                raise Diverged(f"seed {seed}: the loss is not finite after step {step}: take a lower --learning_rate")
        if parts.refresh is not None:
            states = _each(partial(parts.refresh, epochs=place.epoch + 1), states, len(seeds))
        scored = step == course.total or (place.epoch + 1) % config.evaluate_every == 0
        for i, log in enumerate(logs):
            means = {name: float(values[i]) for name, values in sums.items()}
            scores = parts.evaluate(_nth(states, i)) if scored else {}
            log.append({"epoch": place.epoch + 1, "step": step, "seconds": round(seconds, 4), **means, **scores})

    chosen = [cheapest(parts.posterior(_nth(states, i))) for i in range(len(seeds))]
    wall = round((time.monotonic() - began) / len(seeds), 1)
    return [
        {
            "last": last(log),
            "best": best(log),
            "cleaned_with": name,
            "given_label_recovery": given_recovery(plan.dataset),
            "wall_seconds": wall,
        }
        for log, name in zip(logs, chosen, strict=True)
    ]


def side_by_side(step: Step, batch_size: int) -> Callable[[TrainState, Batch, Array, ArrayLike, ArrayLike], TrainState]:
    """:func:`nlx.training.step.run_steps` for stacked states, each with its own order ``[seeds, n]`` of the data."""
    return jax.jit(jax.vmap(run_steps(step, batch_size), in_axes=(0, None, 0, None, None)), donate_argnums=0)


def stack(states: Sequence[TrainState]) -> TrainState:
    """States with a leading axis."""
    stacked: TrainState = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return stacked


def _nth(states: TrainState, i: int) -> TrainState:
    one: TrainState = jax.tree.map(lambda leaf: leaf[i], states)
    return one


def _each(change: Callable[[TrainState], TrainState], states: TrainState, count: int) -> TrainState:
    """Something done to every state, one after the other."""
    return stack([change(_nth(states, i)) for i in range(count)])
