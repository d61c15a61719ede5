"""Every method's step behind a ResNet: over plain cross-entropy's, examples a second, and the share of the peak.

The peak is the device's own: the product of two large square matrices, timed in the same run. Operations are those of
a whole step, forward, backward and update, as the compiler counts them for each method.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.step import flops, methods_for, steps
from benchmarks.kernels.timing import Row, Times, each_round, paired
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build


class _Case(NamedTuple):
    model: str
    pixels: int
    classes: int
    batch: int  # on an accelerator


_CASES = (_Case("resnet18", 32, 10, 256), _Case("resnet50", 224, 1000, 128))


def measure(rounds: int) -> list[Row]:
    """Rows of each method behind a ResNet-18 at 32 pixels; on an accelerator also a ResNet-50 at 224, in bfloat16."""
    on_cpu = jax.default_backend() == "cpu"
    dtype, side = (jnp.float32, 1024) if on_cpu else (jnp.bfloat16, 8192)
    peak = jnp.ones((side, side), dtype)
    product = jax.jit(lambda x: jax.lax.dot(x, x, preferred_element_type=dtype))
    rows: list[Row] = []
    for case in _CASES[:1] if on_cpu else _CASES:
        batch = 2 if on_cpu else case.batch
        shape = (case.pixels, case.pixels, 3)
        rng = np.random.default_rng(0)
        data = {
            "inputs": rng.normal(size=(batch, *shape)).astype(np.float32),
            "noisy_label": rng.integers(0, case.classes, batch, np.int32),
        }
        model = build(case.model, shape, case.classes, dtype=dtype)
        methods = {"plain": plain(cross_entropy, "plain"), **methods_for(case.classes)}
        t = each_round({**steps(model, methods, data), "peak": lambda: product(peak)}, rounds)
        per_second = 2 * side**3 / float(np.median(t.wall["peak"]))
        about = f"{case.model} at {case.pixels} pixels, batch {batch}, K = {case.classes}, {np.dtype(dtype)}"
        for name, method in methods.items():
            seconds = float(np.median(t.wall[name]))
            share = flops(method, model, data) / seconds / per_second
            rows.append(_row(f"{about}: {name}", t, name, batch / seconds, share))
    return rows


def _row(name: str, t: Times, method: str, per_second: float, share: float) -> Row:
    limit = {"plain": None, "can": 1.10}.get(method, 1.05)
    row = paired(f"{name} / plain", t, "plain", limit, method)
    return {**row, "images_per_second": per_second, "share_of_peak": share}
