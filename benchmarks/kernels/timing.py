"""How every kernel is timed: medians of interleaved runs, compilation left out, every call waited for."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

_PAUSE = 0.01  # seconds between two calls: a peer's threads go on spinning after its work, on cores the next one needs

Row = dict[str, Any]
"""One line of the table: ``name``, ``ours_s`` and ``peer_s`` (seconds), ``ratio``, and ``limit``, which the ratio
should not exceed; None where a row is shown for information only."""


class Times(NamedTuple):
    """Seconds of each side, one figure a round.

    Attributes:
      wall: by the clock.
      cpu: of all threads of this process, whether or not a core was free at once; nothing where a GPU does the work.
    """

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; one run of each in turn, so that drift of the machine meets all alike."""
    return {name: float(np.median(t)) for name, t in each_round(sides, rounds).wall.items()}


def each_round(sides: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Run all sides in turn, after a run of each that does not count."""
    for call in sides.values():
        _finished(call())
    times = Times({name: [] for name in sides}, {name: [] for name in sides})
    for _ in range(max(5, rounds)):
        for name, call in sides.items():
            time.sleep(_PAUSE)
            began = time.perf_counter(), time.process_time()
            _finished(call())
            times.wall[name].append(time.perf_counter() - began[0])
            times.cpu[name].append(time.process_time() - began[1])
    return times


def torch_device() -> str | None:
    """Where torch runs, the kind of device that JAX runs on; None where it is not installed or has no such device."""
    if importlib.util.find_spec("torch") is None:
        return None
    if jax.default_backend() == "cpu":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else None


def to_numpy(x: Any) -> np.ndarray:
    """A result of JAX, torch or NumPy, to compare."""
    return np.asarray(x.cpu() if hasattr(x, "cpu") else x)


def _finished(result: Any) -> None:
    """Wait until a side's work is done, on whatever device."""
    jax.block_until_ready(result)
    for x in jax.tree.leaves(result):
        if getattr(getattr(x, "device", None), "type", None) == "cuda":  # a tensor of torch
            import torch

            torch.cuda.synchronize()


def against(name: str, t: dict[str, float], peer: str, limit: float | None, ours: str = "ours") -> Row:
    """A row from measured times: ours over the peer's."""
    return {"name": name, "ours_s": t[ours], "peer_s": t[peer], "ratio": t[ours] / t[peer], "limit": limit}


def paired(name: str, t: Times, peer: str, limit: float | None, ours: str) -> Row:
    """A row for two sides that cost nearly the same: the median over rounds of the ratio within a round.

    ``spread`` holds the ratio's quartiles; ``cpu_ratio`` and ``cpu_spread`` are the same in CPU seconds: other work on
    the machine widens the one and hardly moves the other, which in turn does not see time spent waiting.
    """
    low, middle, high = _quartiles(t.wall[ours], t.wall[peer])
    row: Row = {
        "name": name,
        "ours_s": float(np.median(t.wall[ours])),
        "peer_s": float(np.median(t.wall[peer])),
        "ratio": middle,
        "limit": limit,
        "spread": [low, high],
    }
    if jax.default_backend() == "cpu":
        low, middle, high = _quartiles(t.cpu[ours], t.cpu[peer])
        row |= {"cpu_ratio": middle, "cpu_spread": [low, high]}
    return row


def met(row: Row) -> str:
    """Whether a row keeps its limit: yes, no, open where the quartiles lie on both sides, empty without a limit."""
    if row["limit"] is None:
        return ""
    low, high = row.get("spread", (row["ratio"], row["ratio"]))
    if low <= row["limit"] < high:
        return "open"
    return "yes" if row["ratio"] <= row["limit"] else "no"


def _quartiles(ours: list[float], peer: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(np.array(ours) / np.array(peer), (25, 50, 75))
    return float(low), float(middle), float(high)
