"""The posterior over class and noise type against torch and NumPy, the same formula everywhere.

The peers are given T transposed and always take one exponential per class: they are right only where no probability
underflows, which ours checks instead of assuming it. Every side writes its results to new memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.timing import Row, against, interleaved, to_numpy, torch_device
from nlx import posteriors

_SIZES = (
    # examples, classes, rows at once, calls per reading of the clock, limit
    (256, 14, None, 500, 0.5),
    (1_000_000, 14, 100_000, 1, 1.0),
    (20_000, 1000, 1000, 1, 1.0),
)

_Sides = dict[str, Callable[[], Any]]


def measure(rounds: int) -> list[Row]:
    """Rows for a batch, a long set and many classes; torch.compile is the peer that counts, if it can compile."""
    rows = []
    for size, k, rows_at_once, calls, limit in _SIZES:
        y, z, noisy, confusing = _problem(size, k)
        arrays = [jnp.asarray(x) for x in (y, z, noisy, confusing)]
        jitted = jax.jit(posteriors.noise_types, static_argnames="rows_at_once")
        transposed = np.ascontiguousarray(confusing.T)

        def ours(jitted: Any = jitted, arrays: Any = arrays, rows_at_once: Any = rows_at_once) -> Any:
            return jitted(*arrays, rows_at_once=rows_at_once)

        def numpy(y: Any = y, z: Any = z, noisy: Any = noisy, transposed: Any = transposed) -> Any:
            return _numpy(y, z, noisy, transposed)

        sides: _Sides = {"ours": ours, "numpy": numpy}
        sides |= _torch_sides(y, z, noisy, transposed)
        expected = ours()
        for name, side in sides.items():
            for a, b in zip(expected, side(), strict=True):
                np.testing.assert_allclose(to_numpy(b), to_numpy(a), atol=1e-5, rtol=1e-5, err_msg=name)
        bare, name_of_bare = _bare(arrays, k)
        repeated = {name: _repeat(side, calls) for name, side in {**sides, "bare": bare}.items()}
        t = {name: seconds / calls for name, seconds in interleaved(repeated, rounds).items()}
        # Without a compiler for torch.compile the limit holds against torch as it is.
        best = next((name for name in ("torch.compile", "torch eager") if name in t), None)
        label = f"noise-type posterior, {size:,} x {k}: ours / "
        rows += [
            against(label + peer, t, peer, limit if peer == best else None)
            for peer in ("torch.compile", "torch eager", "numpy")
            if peer in t
        ]
        rows.append(against(label + name_of_bare, t, "bare", None))
    return rows


def _bare(arrays: list[jax.Array], k: int) -> tuple[Callable[[], Any], str]:
    """What no posterior can do without: to take and give such arrays, and of many classes an exponential of each."""
    many = k > 100

    @jax.jit
    def bare(y: jax.Array, z: jax.Array, noisy: jax.Array, confusing: jax.Array) -> Any:
        return jnp.exp(y) if many else y + 1, z + 1, z[:, 0] + 1

    return lambda: bare(*arrays), "one exponential of each class" if many else "as many arrays in and out"


def _repeat(call: Callable[[], Any], times: int) -> Callable[[], Any]:
    """Many calls, all of them finished: JAX hands each to a thread, and waking it is no part of the kernel."""

    def many() -> Any:
        return jax.block_until_ready([call() for _ in range(times)])

    return many


def _problem(size: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, z = (rng.normal(size=(size, m)).astype(np.float32) for m in (k, 3))
    confusing = rng.uniform(size=(k, k)) * (rng.uniform(size=(k, k)) < 0.3)
    np.fill_diagonal(confusing, 0)
    confusing[np.arange(k), (np.arange(k) + 1) % k] += 0.1
    confusing /= confusing.sum(axis=1, keepdims=True)
    return 2 * y, z, rng.integers(0, k, size, np.int32), confusing.astype(np.float32)


def _numpy(y: np.ndarray, z: np.ndarray, noisy: np.ndarray, transposed: np.ndarray) -> tuple[np.ndarray, ...]:
    rows, k = np.arange(len(y)), y.shape[1]
    e = np.exp(y - y.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    kinds = np.exp(z - z.max(axis=1, keepdims=True))
    kinds /= kinds.sum(axis=1, keepdims=True)
    kept = e[rows, noisy]
    confused = e * transposed[noisy]
    joint = kinds * np.stack([kept, (1 - kept) / (k - 1), confused.sum(axis=1)], axis=1)
    evidence = joint.sum(axis=1)
    label = e * (kinds[:, 1] / (k - 1) / evidence)[:, None]
    label += confused * (kinds[:, 2] / evidence)[:, None]
    label[rows, noisy] = joint[:, 0] / evidence
    return label, joint / evidence[:, None], np.log(evidence)


def _torch_sides(y: np.ndarray, z: np.ndarray, noisy: np.ndarray, transposed: np.ndarray) -> _Sides:
    device = torch_device()
    if device is None:
        return {}
    import torch

    log_share = float(np.log(y.shape[1] - 1))

    def posterior(y: Any, z: Any, noisy: Any, transposed: Any) -> Any:
        own = torch.arange(y.shape[1], device=device) == noisy[:, None]
        kept = y.gather(1, noisy[:, None])[:, 0]
        others = y.masked_fill(own, -torch.inf)
        top = others.amax(1)
        e = (others - top[:, None]).exp()
        confused = e * transposed[noisy]
        sum_e, sum_confused = e.sum(1), confused.sum(1)
        all_others = top + sum_e.log()
        joint = torch.stack([kept, all_others - log_share, top + sum_confused.log()], 1) + z
        total = torch.logsumexp(joint, 1)
        q = (joint - total[:, None]).exp()
        per_other, per_confused = (q[:, 1] / sum_e)[:, None], torch.where(sum_confused > 0, q[:, 2] / sum_confused, 0.0)
        label = torch.where(own, q[:, :1], e * per_other + confused * per_confused[:, None])
        return label, q, total - torch.logaddexp(kept, all_others) - torch.logsumexp(z, 1)

    args = [torch.from_numpy(x).to(device) for x in (y, z, noisy.astype(np.int64), transposed)]

    def side(function: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return function(*args)

        return call

    sides = {"torch eager": side(posterior)}
    if shutil.which("g++") or shutil.which("clang++"):
        compiled = side(torch.compile(posterior, dynamic=False))
        try:
            compiled()
        except Exception as error:  # a compiler that is there and does not work fails in many ways
            if "compil" not in str(error).lower():
                raise
        else:
            sides["torch.compile"] = compiled
    return sides
