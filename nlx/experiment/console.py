"""What a person at a terminal or in a notebook sees of a run: what it does, how far it is, how long it takes yet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any, TextIO

from tqdm import tqdm

from nlx.training.observers import Observer, Progress, Row, Trains
from nlx.training.stages import Stages
from nlx.training.state import TrainState

_SHOWN = {
    "train_loss": "loss {:.4f}",
    "test_accuracy": "test accuracy {:.1%}",
    "test_map": "test mAP {:.1%}",
    "validation_score": "validation {:.1%}",
    "recovery": "recovery {:.1%}",
}
_TICK = 0.5  # seconds between looks at the clock
_ELAPSED = "{desc}  {elapsed}"  # of what cannot be counted


class Status:
    """One line that says what is being done, and for how long; nothing where nobody would see it change.

    Args:
      stream: standard error by default.
      quiet: whether to show nothing.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        self.stream = stream or sys.stderr
        self.notebook = "ipykernel" in sys.modules and not self.stream.isatty()
        self.seen = not quiet and (self.notebook or self.stream.isatty())
        self._bar: tqdm[Any] | None = None
        self._ended, self._lock = threading.Event(), threading.RLock()

    def begin(self, what: str, *, total: int | None = None, done: int = 0, unit: str = "step") -> None:
        """Say what is being done now, in place of what was before; with a total, also how much of it is left."""
        self.end()
        if not self.seen:
            return
        form = {} if total else {"bar_format": _ELAPSED}
        width: dict[str, Any] = {"ncols": 100} if self.notebook else {"dynamic_ncols": True}
        self._bar = tqdm(
            desc=what, total=total, initial=done, unit=unit, file=self.stream, leave=False, **form, **width
        )
        self._ended = threading.Event()
        threading.Thread(target=self._tick, args=(self._bar, self._ended), daemon=True).start()

    def progress(self, done: int, told: str) -> None:
        """How many of the total are done, and what else is to be told."""
        with self._lock:
            if self._bar is not None:
                self._bar.n = done
                self._bar.set_postfix_str(told)

    def end(self) -> None:
        """Remove the line."""
        self._ended.set()
        with self._lock:
            bar, self._bar = self._bar, None
            if bar is not None:
                bar.close()

    def say(self, text: str) -> None:
        """Write one line that stays."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            print(text, file=self.stream, flush=True)

    def _tick(self, bar: tqdm[Any], ended: threading.Event) -> None:
        """Let time go on while a compiler, say, has nothing to tell."""
        while not ended.wait(_TICK):
            with self._lock:
                if not ended.is_set():
                    bar.refresh()


class Console(Observer):
    """Writes what is told ``about`` data, a line an epoch, and on terminals and in notebooks what is being done.

    In a notebook the epochs' lines are left out but for the last. A quiet one writes nothing: of several processes, one
    speaks.
    """

    def __init__(
        self,
        name: str,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        about: Sequence[str] = (),
        status: Status | None = None,
    ):
        self._name, self._quiet, self._about = name, quiet, about
        self.status = status or Status(stream, quiet)
        self._epochs, self._before, self._total, self._started = 0, 0, 0, False

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """See :class:`Observer`."""
        for line in self._about:
            self.say(line)
        self._epochs, self._total, self._started = stages.epochs, stages.total, False
        done = int(state.step)
        self._before = done - stages.position(done).start
        self.status.begin("compiling")

    def on_progress(self, progress: Progress) -> None:
        """See :class:`Observer`."""
        done = self._before + progress.done
        if not self._started:
            self.status.begin("training", total=self._total, done=done)
            self._started = True
        doing = ", scoring" if progress.done == progress.total else ""
        speed = f"{progress.examples_per_second:,.0f} examples/s"
        told = f"epoch {progress.epoch}/{self._epochs}{doing}, loss {progress.loss:.4f}, {speed}"
        self.status.progress(done, told)

    def on_epoch(self, state: TrainState, row: Row) -> None:
        """See :class:`Observer`."""
        self._before = row["step"]
        if self.status.notebook and row["epoch"] < self._epochs:
            return
        shown = [text.format(row[name]) for name, text in _SHOWN.items() if row.get(name) is not None]
        line = f"{self._name}  epoch {row['epoch']}/{self._epochs}  {', '.join(shown)}"
        speed = row["examples_per_second"]  # None where the epoch's steps were taken before a stop
        self.say(line if speed is None else f"{line}  ({row['seconds']:.1f} s, {speed:,.0f} examples/s)")

    def close(self, error: BaseException | None) -> None:
        """Remove what says how far it is."""
        self.status.end()

    def say(self, text: str) -> None:
        """Write one line."""
        if not self._quiet:
            self.status.say(text)
