"""What a person at a terminal sees of a run: a progress bar within an epoch and one line after it."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

_SHOWN = {
    "train_loss": "loss {:.4f}",
    "test_accuracy": "test accuracy {:.1%}",
    "test_map": "test mAP {:.1%}",
    "validation_score": "validation {:.1%}",
    "recovery": "recovery {:.1%}",
}


class Console:
    """Writes a run's progress to a stream (standard error by default); the bar shows on terminals only.

    A quiet one writes nothing: of several processes, one speaks.
    """

    def __init__(self, name: str, epochs: int, *, stream: TextIO | None = None, quiet: bool = False):
        self._name, self._epochs, self._quiet = name, epochs, quiet
        self._stream = stream or sys.stderr
        self._bar: tqdm[Any] | None = None

    def progress(self, epoch: int, done: int, total: int, loss: float, examples_per_second: float) -> None:
        """Move the bar to ``done`` of ``total`` steps."""
        if self._bar is None:
            self._bar = tqdm(
                total=total,
                desc=f"epoch {epoch}/{self._epochs}",
                unit="step",
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                disable=self._quiet or not self._stream.isatty(),
            )
        self._bar.n = done
        self._bar.set_postfix_str(f"{examples_per_second:,.0f} images/s, loss {loss:.4f}")

    def epoch(self, row: dict[str, Any]) -> None:
        """Close the bar and write the epoch's line."""
        self.close()
        shown = [text.format(row[name]) for name, text in _SHOWN.items() if row.get(name) is not None]
        line = f"{self._name}  epoch {row['epoch']}/{self._epochs}  {', '.join(shown)}"
        self.say(f"{line}  ({row['seconds']:.1f} s, {row['examples_per_second']:,.0f} images/s)")

    def say(self, text: str) -> None:
        """Write one line."""
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
