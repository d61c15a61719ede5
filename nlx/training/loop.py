"""The loop: epochs of steps, an evaluation after each, checkpoints, and a clean stop whenever one is asked for."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from nlx.files import replacing
from nlx.training.checkpoint import Checkpoints
from nlx.training.feed import Feed
from nlx.training.stages import Course
from nlx.training.state import TrainState

Row = dict[str, Any]


class Diverged(RuntimeError):
    """The loss is no longer finite; the message names the step and the fix."""


class Stopped(Exception):
    """A stop was asked for and the state is saved; ``step`` says where."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


class Watcher(Protocol):
    """Who looks on while a run trains."""

    def progress(self, epoch: int, done: int, total: int, loss: float, examples_per_second: float) -> None:
        """Told several times an epoch: steps done of the epoch's total, mean loss of the epoch so far."""

    def epoch(self, row: Row) -> None:
        """Told after each epoch, with the row that went into metrics.jsonl."""


class MetricsLog:
    """metrics.jsonl: one object an epoch.

    When a run resumes, rows after its step are dropped, and so is half a row that a killed process or a full disk left.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        self.rows: list[Row] = [row for row in map(json.loads, whole.splitlines()) if row["step"] <= step]
        kept = "".join(json.dumps(row) + "\n" for row in self.rows)
        if kept != text:
            with replacing(path) as file:
                file.write(kept.encode())

    def append(self, row: Row) -> None:
        """Add a row, on disk before this returns."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def fit(
    state: TrainState,
    feed: Feed,
    *,
    course: Course,
    evaluate: Callable[[TrainState], Row],
    evaluate_every: int = 1,
    refresh: Callable[[TrainState, int], TrainState] | None = None,
    redraw: Callable[[TrainState], TrainState] | None = None,
    log: MetricsLog | None,
    checkpoints: Checkpoints | None,
    checkpoint_seconds: float,
    watcher: Watcher,
    should_stop: Callable[[], bool],
) -> TrainState:
    """Train to the end of the course, from wherever the state is.

    Args:
      state: consumed.
      feed: takes the steps.
      course: what is visited when.
      evaluate: called after an epoch; what it returns joins the epoch's row.
      evaluate_every: after how many epochs; always after the last.
      refresh: called after each epoch, before its evaluation, with the number of epochs done; None for nothing.
      redraw: gives a state fresh last layers, for courses with stages that begin so.
      log: where rows go; None on processes that do not write.
      checkpoints: where states go; None to keep none.
      checkpoint_seconds: least time between two checkpoints at epochs' ends.
      watcher: told how it goes.
      should_stop: asked between programs of about half a second; when True, the state is saved and Stopped raised.

    Returns:
      The last state.

    Raises:
      Diverged: the loss is not finite. Checkpoints from before stay.
      Stopped: see ``should_stop``.
    """
    step, total = int(state.step), course.total
    count, saved = 1, time.monotonic()
    while step < total:
        place = course.at(step)
        epoch, done, steps = place.epoch, place.start, place.steps
        first, seconds = done, 0.0
        if done == 0:
            state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
            if redraw is not None and course.starts_afresh(step):
                state = redraw(state)
        while done < steps:
            took = min(count, feed.longest, steps - done)
            began = time.perf_counter()
            state = feed.advance(state, step, took)
            loss = float(state.sums["train_loss"]) / (done + took)
            elapsed = time.perf_counter() - began
            step, done, seconds = step + took, done + took, seconds + elapsed
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is not finite after step {step}: take a lower --learning_rate and another --run_dir"
                )
            watcher.progress(epoch + 1, done, steps, loss, took * course.batch_size / elapsed)
            # Aim at half a second between looks: long enough to keep the device busy, short enough to stop at once.
            count = max(1, min(2 * took, round(0.5 * took / elapsed)))
            count, stop = _agree(count, should_stop())
            if stop and done < steps:
                _save(checkpoints, step, state)
                raise Stopped(step)
        if refresh is not None:
            state = refresh(state, epoch + 1)
        means = {name: float(value) / steps for name, value in state.sums.items()}
        row = {
            "epoch": epoch + 1,
            "step": step,
            **({"stage": course.stages[place.stage].name} if len(course.stages) > 1 else {}),
            "seconds": round(seconds, 4),
            "examples_per_second": round((done - first) * course.batch_size / seconds, 1),
            **means,
            **(evaluate(state) if step == total or (epoch + 1) % evaluate_every == 0 else {}),
        }
        if log is not None:
            log.append(row)
        watcher.epoch(row)
        due = time.monotonic() - saved >= checkpoint_seconds
        if step == total or _agree(0, due)[1]:
            if checkpoints is not None:
                checkpoints.save(step, state)
            saved = time.monotonic()
        if step < total and _agree(count, should_stop())[1]:
            _save(checkpoints, step, state)
            raise Stopped(step)
    return state


def _agree(count: int, flag: bool) -> tuple[int, bool]:
    """What all processes do next: the first one's count, and the flag if any raised it.

    Programs of different lengths on different processes would wait for each other for ever.
    """
    if jax.process_count() == 1:
        return count, flag
    every = multihost_utils.process_allgather(np.array([count, flag], np.int32))
    return int(every[0, 0]), bool(every[:, 1].any())


def _save(checkpoints: Checkpoints | None, step: int, state: TrainState) -> None:
    if checkpoints is not None:
        checkpoints.save(step, state)
        checkpoints.wait()
