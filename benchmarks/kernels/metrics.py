"""Mean average precision against scikit-learn's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.kernels.timing import Row, against, interleaved
from nlx import metrics


def measure(rounds: int) -> list[Row]:
    """mAP of 20,000 x 80; scikit-learn's does not interpolate, ours does more."""
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(20_000, 80)) < 0.05).astype(np.int32)
    scores = (rng.normal(size=labels.shape) + labels).astype(np.float32)
    ours = jax.jit(metrics.mean_average_precision)
    value, reference = float(ours(scores, labels)), float(average_precision_score(labels, scores))
    if not 0 <= value - reference < 0.01:
        raise AssertionError(f"interpolated mAP {value} should be just above scikit-learn's {reference}")
    s, y = jnp.asarray(scores), jnp.asarray(labels)
    keys = jax.lax.bitcast_convert_type(s.T, jnp.int32)
    sort = jax.jit(lambda keys: jax.lax.map(jax.lax.sort, keys))
    sides = {
        "ours": lambda: ours(s, y),
        "sklearn": lambda: average_precision_score(labels, scores),
        "sort": lambda: sort(keys),
    }
    t = interleaved(sides, rounds)
    return [
        against("mAP of 20,000 x 80: ours / scikit-learn", t, "sklearn", 0.25),
        against("mAP of 20,000 x 80: ours / its sorting alone", t, "sort", None),
    ]
