"""Every method's step behind a ResNet: over plain cross-entropy's, examples a second, and the share of the peak.

The peak is the device's own: the product of two large square matrices, timed in the same run. Operations are those of
a whole step, forward, backward and update, as the compiler counts them for each method.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.step import compiled, methods_for
from benchmarks.kernels.timing import Row, Times, each_round, paired
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build


def measure(rounds: int) -> list[Row]:
    """Rows of each method behind a ResNet-18 at 32 pixels."""
    return _behind("resnet18", 32, 10, 2 if _on_cpu() else 256, rounds)


def at_full_size(rounds: int) -> list[Row]:
    """Rows of each method behind a ResNet-50 at 224 pixels, of 1000 classes; none on a CPU, where a step takes long."""
    return [] if _on_cpu() else _behind("resnet50", 224, 1000, 128, rounds)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _behind(name: str, pixels: int, classes: int, batch: int, rounds: int) -> list[Row]:
    """Rows of each method; in bfloat16 on an accelerator."""
    dtype, side = (jnp.float32, 1024) if _on_cpu() else (jnp.bfloat16, 8192)
    peak = jnp.ones((side, side), dtype)
    product = jax.jit(lambda x: jax.lax.dot(x, x, preferred_element_type=dtype))
    shape = (pixels, pixels, 3)
    rng = np.random.default_rng(0)
    data = {
        "inputs": rng.normal(size=(batch, *shape)).astype(np.float32),
        "noisy_label": rng.integers(0, classes, batch, np.int32),
    }
    methods = {"plain": plain(cross_entropy, "plain"), **methods_for(classes)}
    steps = compiled(build(name, shape, classes, dtype=dtype), methods, data)
    t = each_round({**{name: step.take for name, step in steps.items()}, "peak": lambda: product(peak)}, rounds)
    per_second = 2 * side**3 / float(np.median(t.wall["peak"]))
    about = f"{name} at {pixels} pixels, batch {batch}, K = {classes}, {np.dtype(dtype)}"
    rows: list[Row] = []
    for method, step in steps.items():
        seconds = float(np.median(t.wall[method]))
        share = step.flops / seconds / per_second
        limit = 1.05 if classes <= 10 else 1.10
        rows.append(_row(f"{about}: {method}", t, method, limit, batch / seconds, share))
    return rows


def _row(name: str, t: Times, method: str, limit: float, per_second: float, share: float) -> Row:
    row = paired(f"{name} / plain", t, "plain", {"plain": None, "can": 1.10}.get(method, limit), method)
    return {**row, "images_per_second": per_second, "share_of_peak": share}
