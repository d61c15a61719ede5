"""What a person at a terminal sees of a run: a progress bar within an epoch and one line after it."""

from __future__ import annotations

import sys
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


class Console(Observer):
    """Writes what is told ``about`` data and the progress, to standard error by default; the bar on terminals only.

    A quiet one writes nothing: of several processes, one speaks.
    """

    def __init__(self, name: str, *, stream: TextIO | None = None, quiet: bool = False, about: Sequence[str] = ()):
        self._name, self._quiet, self._epochs = name, quiet, 0
        self._stream = stream or sys.stderr
        self._bar: tqdm[Any] | None = None
        self._about = about

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """See :class:`Observer`."""
        self._epochs = stages.epochs
        for line in self._about:
            self.say(line)

    def on_progress(self, progress: Progress) -> None:
        """See :class:`Observer`."""
        if self._bar is None:
            self._bar = tqdm(
                total=progress.total,
                desc=f"epoch {progress.epoch}/{self._epochs}",
                unit="step",
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                disable=self._quiet or not self._stream.isatty(),
            )
        self._bar.n = progress.done
        self._bar.set_postfix_str(f"{progress.examples_per_second:,.0f} examples/s, loss {progress.loss:.4f}")

    def on_epoch(self, state: TrainState, row: Row) -> None:
        """See :class:`Observer`."""
        self.close(None)
        shown = [text.format(row[name]) for name, text in _SHOWN.items() if row.get(name) is not None]
        line = f"{self._name}  epoch {row['epoch']}/{self._epochs}  {', '.join(shown)}"
        speed = row["examples_per_second"]  # None where the epoch's steps were taken before a stop
        self.say(line if speed is None else f"{line}  ({row['seconds']:.1f} s, {speed:,.0f} examples/s)")

    def close(self, error: BaseException | None) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, text: str) -> None:
        """Write one line."""
        if not self._quiet:
            print(text, file=self._stream, flush=True)
