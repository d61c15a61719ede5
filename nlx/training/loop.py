"""The loop: epochs of steps, and observers told of all that happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from nlx.training.feed import Feed
from nlx.training.mesh import agree
from nlx.training.observers import Interrupted, Observer, Progress, Row, interruptible
from nlx.training.stages import Position, Stages
from nlx.training.state import TrainState


class Diverged(RuntimeError):
    """A loss or a posterior is no longer finite."""


class Fitted(NamedTuple):
    """What a training gives.

    Attributes:
      state: the last state; of several members, with a leading axis.
      history: a row per epoch; of several members, metrics are float arrays over them.
      stopped: whether an observer ended it before its time.
    """

    state: TrainState
    history: list[Row]
    stopped: bool = False

    def member(self, i: int) -> Fitted:
        """One of several members."""
        history = [{k: v[i] if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in self.history]
        return Fitted(jax.tree.map(lambda leaf: leaf[i], self.state), history)


def run_stages(
    state: TrainState,
    plan: Stages,
    feed: Feed,
    *,
    begin_epoch: Callable[[TrainState, Position], TrainState],
    refresh: Callable[[TrainState, int], TrainState],
    observers: Sequence[Observer],
) -> Fitted:
    """Train to the end of the plan, from wherever the state is.

    Args:
      state: consumed.
      plan: what is visited when.
      feed: takes the steps.
      begin_epoch: gives a state what an epoch begins with.
      refresh: called after each epoch, with the number of epochs done.
      observers: told how it goes.

    Raises:
      Diverged: the loss is not finite.
    """
    history: list[Row] = []
    step, count = int(state.step), 1
    while step < plan.total or _between_epochs(state, plan, step):
        ended = _between_epochs(state, plan, step)
        at = plan.position(step - 1) if ended else plan.position(step)
        done, seconds, stop = at.steps if ended else at.start, 0.0, False
        while done < at.steps and not stop:
            took = min(count, feed.longest, at.steps - done)
            try:
                with interruptible(observers, partial(_intact, state)):
                    if done == 0 or not state.sums:
                        state = begin_epoch(state, at)
                    began = time.perf_counter()
                    state = feed.advance(state, step, took)
            except Interrupted:
                state, stop = state if done else state._replace(sums={}), True
                break
            loss = float(state.sums["train_loss"]) / (done + took)
            elapsed = time.perf_counter() - began
            step, done, seconds = step + took, done + took, seconds + elapsed
            check_finite(loss, step)
            progress = Progress(at.epoch + 1, done, at.steps, loss, took * plan.batch_size / elapsed)
            for observer in observers:
                observer.on_progress(progress)
                observer.on_steps(state)
            # Aim at half a second between looks: long enough to keep the device busy, short enough to stop soon.
            count = max(1, min(2 * took, round(0.5 * took / elapsed)))
            count, stop = agree(count, _stop_requested(observers))
        if done == at.steps:
            row = {
                "epoch": at.epoch + 1,
                "step": step,
                **({"stage": plan.all[at.stage].name} if len(plan.all) > 1 else {}),
                "seconds": round(seconds, 4),
                "examples_per_second": round((done - at.start) * plan.batch_size / seconds, 1) if seconds else None,
                **{name: float(state.sums[name]) / at.steps for name in sorted(state.sums, key=_loss_first)},
            }
            try:
                with interruptible(observers):
                    over = refresh(state._replace(sums={}), at.epoch + 1)
                    for observer in observers:
                        observer.score(over, row)
            except Interrupted:  # the sums tell whoever goes on that the epoch's end is still to come
                stop = True
            else:
                state = over
                for observer in observers:
                    observer.on_epoch(state, row)
                history.append(row)
                stop = step < plan.total and agree(count, stop or _stop_requested(observers))[1]
        if stop:
            for observer in observers:
                observer.on_stop(state)
            return Fitted(state, history, stopped=True)
    for observer in observers:
        observer.on_end(state)
    return Fitted(state, history)


def _intact(state: TrainState) -> bool:
    return not state.step.is_deleted()


def _between_epochs(state: TrainState, plan: Stages, step: int) -> bool:
    """Whether all steps of an epoch are taken, but refresh and scores are still to come."""
    if not state.sums or step == 0:
        return False
    last = plan.position(step - 1)
    return last.start + 1 == last.steps


def check_finite(loss: float, step: int) -> None:
    """Raise Diverged where a loss is not finite."""
    if not math.isfinite(loss):
        raise Diverged(f"the loss is not finite after step {step}: take a lower `learning_rate`")


def _loss_first(name: str) -> tuple[bool, str]:
    return name != "train_loss", name


def _stop_requested(observers: Sequence[Observer]) -> bool:
    return any(observer.stop_requested() for observer in observers)
