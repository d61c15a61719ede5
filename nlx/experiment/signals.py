"""SIGINT and SIGTERM as a wish to stop, and the observer that passes it on to a trainer."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from nlx.training.observers import Observer
from nlx.training.state import TrainState


class Stopped(Exception):
    """A stop was asked for and the state is saved; ``step`` says where."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


class StopSignals:
    """While open, SIGINT and SIGTERM ask for a stop; a second SIGINT ends the process at once.

    Outside the main thread, which alone may touch signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopSignals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._ask) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class StopOnSignal(Observer):
    """Asks a trainer to stop after a signal, and then raises Stopped; put it behind what saves the state."""

    def __init__(self, signals: StopSignals):
        self._signals = signals

    def stop_requested(self) -> bool:
        """See :class:`Observer`."""
        return self._signals.requested

    def on_stop(self, state: TrainState) -> None:
        """See :class:`Observer`."""
        raise Stopped(int(state.step))
