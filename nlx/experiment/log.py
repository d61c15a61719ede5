"""metrics.jsonl: one object an epoch, on disk before the next one begins."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nlx.files import replacing, to_json
from nlx.training.observers import Observer, Row, Trains
from nlx.training.stages import Stages
from nlx.training.state import TrainState


class MetricsLog(Observer):
    """Writes an epoch's row to a file of JSON lines.

    When a training goes on, rows after its step are dropped, and so is half a row that a killed process or a full disk
    left.

    Attributes:
      rows: of all epochs, also those of before.
    """

    def __init__(self, path: Path):
        self._path = path
        self.rows: list[Row] = []

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """See :class:`Observer`."""
        text = self._path.read_text(errors="replace") if self._path.exists() else ""
        # Of a state with sums the epoch's end is still to come, and its row with it.
        done = int(state.step) - bool(state.sums)
        self.rows = [row for row in map(_row, text.splitlines()) if row and row["step"] <= done]
        kept = "".join(to_json(row) + "\n" for row in self.rows)
        if kept != text:
            with replacing(self._path) as file:
                file.write(kept.encode())

    def on_epoch(self, state: TrainState, row: Row) -> None:
        """See :class:`Observer`."""
        with self._path.open("a") as file:
            file.write(to_json(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
        return dict(row) if isinstance(row["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None
