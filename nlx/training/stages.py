"""What a run visits and when: stages of epochs, each over rows of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nlx.data.dataset import DataError


class Stage(NamedTuple):
    """Some epochs over the same rows.

    Attributes:
      name: what outputs call it.
      rows: rows of the training set that an epoch visits, int ``[m]``; a row that comes twice is visited twice.
      epochs: how often.
      fresh_heads: whether the networks' last layers are drawn anew when it begins.
    """

    name: str
    rows: np.ndarray
    epochs: int
    fresh_heads: bool = False


class Place(NamedTuple):
    """Where a step lies.

    Attributes:
      stage: number of the stage.
      epoch: number of the epoch, counted from the run's start.
      start: steps of the epoch before this one.
      steps: steps of the epoch.
    """

    stage: int
    epoch: int
    start: int
    steps: int


class Course:
    """The stages of a run, cut into epochs and steps; what does not fill a batch waits for another epoch.

    Attributes:
      stages: in order.
      batch_size: B.
      epochs: of all stages.
      total: steps of all stages.
      boundaries: first step of each stage.
      longest: most rows that an epoch visits.
    """

    def __init__(self, stages: Sequence[Stage], batch_size: int):
        self.stages = tuple(stage for stage in stages if stage.epochs)
        for stage in self.stages:
            if batch_size > len(stage.rows):
                where = "training" if len(self.stages) == 1 else f"{stage.name} stage's"
                raise DataError(
                    f"--batch_size={batch_size} is more than the {len(stage.rows)} {where} examples; take a smaller one"
                )
        self.batch_size = batch_size
        self._steps = [len(stage.rows) // batch_size for stage in self.stages]
        lengths = [steps * stage.epochs for steps, stage in zip(self._steps, self.stages, strict=True)]
        self.boundaries = tuple(int(x) for x in np.cumsum([0, *lengths[:-1]]))
        self.total = sum(lengths)
        self.epochs = sum(stage.epochs for stage in self.stages)
        self.longest = max(len(stage.rows) for stage in self.stages)

    @staticmethod
    def whole(size: int, batch_size: int, epochs: int) -> Course:
        """One stage over all rows."""
        return Course([Stage("training", np.arange(size), epochs)], batch_size)

    def starts_afresh(self, step: int) -> bool:
        """Whether a stage begins at a step, and wants fresh last layers."""
        return step in self.boundaries and self.stages[self.at(step).stage].fresh_heads

    def at(self, step: int) -> Place:
        """Where a step lies; after the last step the last stage goes on."""
        stage = int(np.searchsorted(self.boundaries, step, side="right")) - 1
        epoch, start = divmod(step - self.boundaries[stage], self._steps[stage])
        before = sum(stage.epochs for stage in self.stages[:stage])
        return Place(stage, before + epoch, start, self._steps[stage])
