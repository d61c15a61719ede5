"""Who looks on while a trainer trains: consoles, logs, checkpoints, whatever asks for a stop. Nobody, by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from nlx.data.dataset import Inputs, Split
from nlx.methods.method import Method, Posterior
from nlx.training.stages import Stages
from nlx.training.state import TrainState

Row = dict[str, Any]
"""What is known of an epoch: its number, steps, seconds, means of metrics, and scores that observers have added."""


class Trains(Protocol):
    """What an observer may ask of the trainer; see :class:`nlx.training.trainer.Trainer`."""

    @property
    def method(self) -> Method: ...  # noqa: D102

    def posterior(self, state: TrainState, data: Split, *, whole: bool = True) -> Posterior: ...  # noqa: D102

    def scores(self, state: TrainState, inputs: Inputs | Split) -> np.ndarray: ...  # noqa: D102

    def evaluate(self, state: TrainState, data: Split) -> Row: ...  # noqa: D102


class Progress(NamedTuple):
    """How far an epoch is.

    Attributes:
      epoch: number of the epoch, from 1.
      done: steps of the epoch taken.
      total: steps of the epoch.
      loss: mean loss of the epoch so far.
      examples_per_second: of the last program.
    """

    epoch: int
    done: int
    total: int
    loss: float
    examples_per_second: float


class Interrupted(BaseException):
    """Raised by an observer, out of work that may be left at any point, because a stop was asked for."""


class Observer:
    """Is told how a training goes. Every hook does nothing here; a subclass defines those that it needs.

    Hooks run on every process, in the order in which a trainer was given its observers. The next step consumes a state:
    copy what is to be kept of one.
    """

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """Before the first step; ``state`` may be that of a run that goes on."""

    def on_progress(self, progress: Progress) -> None:
        """About twice a second."""

    def score(self, state: TrainState, row: Row) -> None:
        """After an epoch, to add scores to its row; what takes long, and may be left by :class:`Interrupted`."""

    def interruptible(self, safe: Callable[[], bool] | None = None) -> AbstractContextManager[object]:
        """Entered around refresh and scores; within it Interrupted may be raised, and the epoch's end is done again.

        Entered around steps as well, where Interrupted may be raised on entry and as long as ``safe()`` says that no
        step has consumed the state, which is while programs are compiled and data are waited for.
        """
        return nullcontext()

    def on_epoch(self, state: TrainState, row: Row) -> None:
        """After an epoch, with all scores in its row."""

    def stop_requested(self) -> bool:
        """Whether training is to stop as soon as it can; asked about twice a second. One process suffices."""
        return False

    def on_stop(self, state: TrainState) -> None:
        """When training ends before its time because an observer asked for it."""

    def on_end(self, state: TrainState) -> None:
        """After the last epoch."""

    def close(self, error: BaseException | None) -> None:
        """At last, also after an error."""


class _OnEpoch(Observer):
    """An observer of a function of rows."""

    def __init__(self, function: Callable[[Row], object]):
        self._function = function

    def on_epoch(self, state: TrainState, row: Row) -> None:
        self._function(row)


def as_observers(observers: Iterable[Observer | Callable[[Row], object]]) -> tuple[Observer, ...]:
    """Observers as they are; a function is called with each epoch's row."""
    return tuple(o if isinstance(o, Observer) else _OnEpoch(o) for o in observers)


def interruptible(observers: Sequence[Observer], safe: Callable[[], bool] | None = None) -> ExitStack:
    """A context in which any of the observers may raise Interrupted."""
    with ExitStack() as work:
        for observer in observers:
            work.enter_context(observer.interruptible(safe))
        return work.pop_all()


def closing(observers: Sequence[Observer]) -> ExitStack:
    """A context at whose end observers are closed, in order, and each of them even where another one cannot be."""
    last = ExitStack()
    for observer in reversed(observers):
        last.push(partial(_close, observer))
    return last


def _close(observer: Observer, kind: object, error: BaseException | None, trace: object) -> None:
    observer.close(error)
