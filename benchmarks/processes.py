"""A command in a process of its own, with the time and the memory that it took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Taken(NamedTuple):
    """What a process took.

    Attributes:
      seconds: from start to exit.
      peak: largest resident set, bytes.
    """

    seconds: float
    peak: int


def measured(command: Sequence[str], environment: Mapping[str, str], about: str) -> Taken:
    """Run a command to its end with this library, and further variables.

    Args:
      command: what to run.
      environment: variables beside those of this process.
      about: what it is, for the error.

    Raises:
      RuntimeError: it failed; the message has the end of what it said.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        process = subprocess.Popen(command, env=everything, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{about} ended with {process.returncode}: {said.read()[-500:]}")
    return Taken(time.monotonic() - began, usage.ru_maxrss * (1 if sys.platform == "darwin" else 2**10))
