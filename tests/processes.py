"""Two processes on this machine that work as one: how tests start them, and what came of them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.compiling import QUICK

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 300  # seconds
Process = subprocess.Popen[str]


class Outcome(NamedTuple):
    """Of each process: its exit code, and what it wrote."""

    codes: list[int]
    out: list[str]
    err: list[str]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


@contextmanager
def two(script: str, arguments: Callable[[str, int], Sequence[object]]) -> Iterator[list[Process]]:
    """A script in two processes of two devices each; ``arguments`` are of the address of the first, and a number."""
    address = f"localhost:{free_port()}"
    devices = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, *map(str, arguments(address, i))],
            env={**os.environ, **devices, "XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def outcome(processes: list[Process], seconds: float = TIMEOUT) -> Outcome:
    """What came of them, once all have ended within so many seconds."""
    said = [process.communicate(timeout=seconds) for process in processes]
    return Outcome([p.returncode for p in processes], [out for out, _ in said], [err for _, err in said])


def assert_well(found: Outcome) -> None:
    """Both have ended as they should."""
    assert found.codes == [0, 0], "\n\n".join(err[-3000:] for err in found.err)
