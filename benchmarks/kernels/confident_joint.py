"""The confident joint against cleanlab's, and against the same in plain NumPy for information."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.timing import Row, against, interleaved
from nlx.transitions import confident_joint

SIZES = ((1_000_000, 10, 1 / 8), (100_000, 1000, 1 / 5))


def numpy_joint(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The counts by whole-array NumPy: thresholds from one gather, then a mask, an argmax and a bincount."""
    n, k = probs.shape
    own = np.bincount(labels, weights=probs[np.arange(n), labels], minlength=k)
    thresholds = np.maximum(own / np.bincount(labels, minlength=k), 2e-6).astype(np.float32)
    sure = probs >= thresholds - np.float32(1e-6)
    number = sure.sum(axis=1)
    guess = np.where(number > 1, probs.argmax(axis=1), sure.argmax(axis=1))
    kept = number > 0
    joint = np.bincount(labels[kept] * k + guess[kept], minlength=k * k).reshape(k, k)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint


def measure(rounds: int) -> list[Row]:
    """Rows of the table; the counts are compared before anything is timed."""
    cleanlab: Any = importlib.import_module("cleanlab.count") if importlib.util.find_spec("cleanlab") else None
    rows: list[Row] = []
    for n, k, limit in SIZES:
        noise_key, label_key = jax.random.split(jax.random.key(0))
        ours_labels = jax.random.randint(label_key, (n,), 0, k)
        # A model that tells something: the label's own class stands out, by more or by less.
        logits = 2.0 * jax.random.normal(noise_key, (n, k))
        ours_probs = jax.nn.softmax(logits.at[jnp.arange(n), ours_labels].add(3.0))
        del logits
        probs, labels = np.asarray(ours_probs), np.asarray(ours_labels)
        sides: dict[str, Callable[[], Any]] = {
            "ours": partial(confident_joint, ours_probs, ours_labels),
            "numpy": partial(numpy_joint, probs, labels),
        }
        if cleanlab is not None:
            sides["cleanlab"] = partial(cleanlab.compute_confident_joint, labels, probs, calibrate=False)
        counts = np.asarray(sides["ours"]())
        for name, side in sides.items():
            np.testing.assert_array_equal(counts, side(), err_msg=f"counts of {name} differ at {n} x {k}")
        largest = jax.jit(partial(jnp.max, axis=1))
        bare = "the largest of each row alone"
        t = interleaved({**sides, bare: partial(largest, ours_probs)}, rounds)
        limits = {"cleanlab": limit, "numpy": None, bare: None}
        rows += [against(f"confident joint {n:,} x {k}: ours / {m}", t, m, limits[m]) for m in limits if m in t]
    return rows
