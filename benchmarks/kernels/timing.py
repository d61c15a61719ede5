"""How every kernel is timed: medians of interleaved runs, compilation left out, every call waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Row = dict[str, Any]
"""One line of the table: ``name``, ``ours_s`` and ``peer_s`` (seconds), ``ratio``, and ``limit``, which the ratio
should not exceed; None where a row is shown for information only."""


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; one run of each in turn, so that drift of the machine meets all alike."""
    for call in sides.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(max(5, rounds)):
        for name, call in sides.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - began)
    return {name: float(np.median(t)) for name, t in times.items()}


def against(name: str, t: dict[str, float], peer: str, limit: float | None, ours: str = "ours") -> Row:
    """A row from measured times: ours over the peer's."""
    return {"name": name, "ours_s": t[ours], "peer_s": t[peer], "ratio": t[ours] / t[peer], "limit": limit}
