"""SIGINT, SIGTERM and SIGHUP as a wish to stop, and the observer that passes it on to a trainer."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

import jax

from nlx.training.observers import Interrupted, Observer, Trains, polled
from nlx.training.stages import Stages
from nlx.training.state import TrainState

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(Exception):
    """A stop was asked for and the state is saved; ``step`` says where."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


class StopSignals:
    """While open, SIGINT, SIGTERM and SIGHUP ask for a stop; a second one ends the process at once.

    They raise Interrupted at once, but after :meth:`defer`, when :attr:`requested` has to be asked. Outside the main
    thread, which alone may touch signals, nothing is changed; what is ignored, as nohup has it, still is.

    A compilation that is left goes on in a thread of XLA's, for which Python waits at its end: leave by ``os._exit``.
    """

    def __init__(self) -> None:
        self.requested, self._raises = False, True
        self._safe: Callable[[], bool] | None = None

    def __enter__(self) -> StopSignals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            heeded = [n for n in NUMBERS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {n: signal.signal(n, self._ask) for n in heeded}
        if self._before:
            self._hook, sys.unraisablehook = sys.unraisablehook, self._ask_again
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook

    def defer(self, yes: bool) -> None:
        """Whether a signal only sets :attr:`requested`; processes that work together cannot leave one by one."""
        self._raises = not yes and jax.process_count() == 1
        if self._raises and self.requested:
            raise Interrupted

    @contextmanager
    def raising(self, safe: Callable[[], bool] | None = None) -> Iterator[None]:
        """Within it, a signal raises Interrupted, as long as ``safe()``, or at the next poll of several processes."""
        self.defer(False)
        self._safe = safe
        try:
            with polled(lambda: self.requested):
                yield
        finally:
            self._raises, self._safe = False, None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it, a signal raises Interrupted; for what one process does at last, while others wait for its end."""
        self._raises = True
        if self.requested:
            raise Interrupted
        try:
            yield
        finally:
            self._raises = jax.process_count() == 1

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        for n in self._before:
            signal.signal(n, signal.SIG_DFL)
        if self._raises and (self._safe is None or self._safe()):
            raise Interrupted

    def _ask_again(self, lost: sys.UnraisableHookArgs) -> None:
        """Send a signal once more whose exception came up in the collection of garbage, where Python drops it."""
        if lost.exc_type is not Interrupted:
            self._hook(lost)
            return
        for number in self._before:
            signal.signal(number, self._ask)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()


class StopOnSignal(Observer):
    """Asks a trainer to stop after a signal, and then raises Stopped; put it behind what saves the state."""

    def __init__(self, signals: StopSignals):
        self._signals = signals

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """See :class:`Observer`."""
        self._signals.defer(True)

    def interruptible(self, safe: Callable[[], bool] | None = None) -> AbstractContextManager[object]:
        """See :class:`Observer`."""
        return self._signals.raising(safe)

    def stop_requested(self) -> bool:
        """See :class:`Observer`."""
        return self._signals.requested

    def on_stop(self, state: TrainState) -> None:
        """See :class:`Observer`."""
        raise Stopped(int(state.step))

    def close(self, error: BaseException | None) -> None:
        """See :class:`Observer`."""
        if error is None:
            self._signals.defer(False)
