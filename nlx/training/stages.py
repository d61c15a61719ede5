"""What a training visits and when: stages of epochs, each over rows of the training set, with a schedule of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import optax

from nlx.arguments import ArgumentError
from nlx.methods.method import Method

Schedule = Callable[[int], optax.Schedule]
"""Steps of a stage -> (step of the stage -> factor on the optimizer's learning rate)."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Some epochs over the same rows.

    Attributes:
      epochs: how often the rows are visited; a stage of none is left out.
      name: what outputs call it.
      rows: rows of the training set that an epoch visits, int ``[m]``; one that comes twice is visited twice. None for
        all.
      schedule: course of the learning rate over this stage, such as :func:`cosine`; None leaves it as the optimizer has
        it.
      method: whose loss is trained on in this stage; None for the trainer's. Parameters and memory stay those of the
        trainer's method, so that this one must do with them or with none.
      fresh_optimizer: whether the optimizer's state starts anew.
      reinit_heads: whether the networks' last layers, all that is called ``head``, are drawn anew.
    """

    epochs: int
    name: str = "training"
    rows: np.ndarray | None = None
    schedule: Schedule | None = None
    method: Method | None = None
    fresh_optimizer: bool = False
    reinit_heads: bool = False


class Position(NamedTuple):
    """Where a step lies.

    Attributes:
      stage: number of the stage.
      epoch: number of the epoch, counted from the start of all stages.
      start: steps of the epoch before this one.
      steps: steps of the epoch.
    """

    stage: int
    epoch: int
    start: int
    steps: int


class Stages:
    """Stages cut into epochs and steps; what does not fill a batch waits for another epoch.

    Args:
      stages: in order; a number stands for one stage of so many epochs.
      size: n, training examples.
      batch_size: B.

    Attributes:
      all: the stages, with their rows, without those of no epochs.
      batch_size: B.
      starts: first step of each stage.
      steps: steps of each stage.
      total: steps of all.
      epochs: epochs of all.
      longest: rows of the longest epoch.

    Raises:
      ArgumentError: there is nothing to do, or a batch is larger than a stage.
    """

    def __init__(self, stages: int | Stage | Sequence[Stage], size: int, batch_size: int):
        if isinstance(stages, int | np.integer):
            stages = Stage(int(stages))
        wanted = [stages] if isinstance(stages, Stage) else list(stages)
        self.all = tuple(stage for stage in wanted if stage.epochs > 0)
        if not self.all:
            raise ArgumentError("`epochs` must be at least 1: there is nothing to train")
        self.rows = tuple(np.arange(size) if s.rows is None else np.asarray(s.rows) for s in self.all)
        for stage, rows in zip(self.all, self.rows, strict=True):
            if len(rows) and not (rows.dtype.kind in "iu" and np.min(rows) >= 0 and np.max(rows) < size):
                raise ArgumentError(f"`rows` of stage {stage.name} must be integers in [0, {size})")
            if not 1 <= batch_size <= len(rows):
                where = "training" if len(self.all) == 1 else f"{stage.name} stage's"
                raise ArgumentError(
                    f"`batch_size`={batch_size} must lie between 1 and the {len(rows)} {where} examples"
                )
        self.batch_size = batch_size
        self._steps_per_epoch = [len(rows) // batch_size for rows in self.rows]
        self.steps = tuple(n * stage.epochs for n, stage in zip(self._steps_per_epoch, self.all, strict=True))
        self.starts = tuple(int(x) for x in np.cumsum([0, *self.steps[:-1]]))
        self.total = sum(self.steps)
        self.epochs = sum(stage.epochs for stage in self.all)
        self.longest = max(len(rows) for rows in self.rows)

    def position(self, step: int) -> Position:
        """Where a step lies; after the last step the last stage goes on."""
        stage = int(np.searchsorted(self.starts, step, side="right")) - 1
        epoch, start = divmod(step - self.starts[stage], self._steps_per_epoch[stage])
        before = sum(stage.epochs for stage in self.all[:stage])
        return Position(stage, before + epoch, start, self._steps_per_epoch[stage])


def step_decay(every: float = 1 / 3, factor: float = 0.1) -> Schedule:
    """The learning rate times ``factor`` after each share ``every`` of the stage, but not at its end."""
    drops = range(1, int(np.ceil(1 / every - 1e-9)))

    def schedule(steps: int) -> optax.Schedule:
        at = {round(i * every * steps): factor for i in drops if i < steps}
        return optax.piecewise_constant_schedule(1.0, at)

    return schedule


def cosine(steps: int) -> optax.Schedule:
    """The learning rate along half a cosine from its full value to 0."""
    return optax.cosine_decay_schedule(1.0, steps)


def warmed(schedule: Schedule | None, share: float) -> Schedule:
    """A schedule after a rise from 0 to the full learning rate, over a share of the stage, in [0, 1).

    Examples:
      >>> rate = warmed(cosine, 0.25)(8)
      >>> [round(float(rate(step)), 2) for step in range(8)]
      [0.0, 0.5, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """

    def warm(steps: int) -> optax.Schedule:
        rise = round(share * steps)
        after = optax.constant_schedule(1.0) if schedule is None else schedule(steps - rise)
        return optax.join_schedules([optax.linear_schedule(0.0, 1.0, rise), after], [rise]) if rise else after

    return warm
