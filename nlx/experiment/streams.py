"""Standard streams that cannot end a run, whatever becomes of the terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NARROWEST = 40  # columns in which help can be laid out


class _Lasting:
    """A stream that goes on as nothing where it can no longer be written to."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._drop()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """What is still in the buffer goes nowhere, rather than to an error when Python ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Within it, output that is closed, broken or full ends nothing, and a narrow terminal counts as 40 columns."""
    for number in (0, 1, 2):  # a file must not come to stand where a library believes standard error
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before, columns = (sys.stdout, sys.stderr), os.environ.get("COLUMNS")
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout, sys.stderr = (_Lasting(nowhere if stream is None else stream) for stream in before)
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
        nowhere.close()
        os.environ.pop("COLUMNS", None)
        if columns is not None:
            os.environ["COLUMNS"] = columns
