"""Who looks on while a trainer trains: consoles, logs, checkpoints, whatever asks for a stop. Nobody, by default."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from nlx.data.dataset import Inputs, Split
from nlx.methods.method import Method, Posterior
from nlx.training.mesh import agree
from nlx.training.stages import Stages
from nlx.training.state import TrainState

Row = dict[str, Any]
"""What is known of an epoch: its number, steps, seconds, means of metrics, and scores that observers have added."""


class Trains(Protocol):
    """What an observer may ask of the trainer; see :class:`nlx.training.trainer.Trainer`."""

    @property
    def method(self) -> Method: ...  # noqa: D102

    def posterior(  # noqa: D102
        self, state: TrainState, data: Split, *, whole: bool = True, rows: np.ndarray | None = None
    ) -> Posterior: ...

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

    def on_steps(self, state: TrainState) -> None:
        """After :meth:`on_progress`, also when the last step of an epoch is done and its scores are still to come."""

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


_poll: ContextVar[Callable[[], None]] = ContextVar("poll", default=lambda: None)


def poll() -> None:
    """Leave by :class:`Interrupted`, on all processes together, where one of them has been asked for a stop.

    To be called between parts of what takes long, equally often on every process. Within :func:`polled` it asks; it
    lets other processes know about once a second.
    """
    _poll.get()()


@contextmanager
def polled(requested: Callable[[], bool]) -> Iterator[None]:
    """A context in which :func:`poll` heeds ``requested()``."""
    token = _poll.set(_Poll(requested))
    try:
        yield
    finally:
        _poll.reset(token)


class _Poll:
    """Processes that work together can only leave together, and asking each other takes milliseconds."""

    def __init__(self, requested: Callable[[], bool]):
        self._requested, self._every, self._left, self._began = requested, 1, 1, time.monotonic()

    def __call__(self) -> None:
        self._left -= 1
        if self._left:
            return
        elapsed = max(time.monotonic() - self._began, 1e-6)
        wanted = max(1, min(2 * self._every, round(self._every / elapsed)))
        self._every, stop = agree(wanted, self._requested())
        self._left, self._began = self._every, time.monotonic()
        if stop:
            raise Interrupted


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
