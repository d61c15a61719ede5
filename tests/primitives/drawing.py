"""Arguments drawn at random, each of the kind of one that a case has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SEEDS, SIZES = st.integers(0, 2**32 - 1), st.sampled_from((0.0, 1e-30, 1.0, 30.0, 1e4))


def few(examples):
    """Settings of a drawn test that is the same each time and takes no longer than it has to."""
    checks = list(HealthCheck)
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


def logits_of(shape, rng, size):
    """Numbers around minus ``size``, 0 and ``size``."""
    return (rng.choice([-1.0, 0.0, 1.0], shape) * size + rng.normal(size=shape)).astype(np.float32)


def another(x, rng, size, unknown, n=8, k=3):
    """An argument of the kind of x: a key, a mask, class labels, label vectors, a rate, distributions or logits."""
    if is_key(x):
        return jax.random.key(int(rng.integers(2**32)))
    if x.dtype == bool:
        return rng.random(x.shape) < rng.choice([0.2, 0.8, 1.0])
    if is_labels(x) and x.max() > 1:
        labels = rng.integers(0, k, n)
        return np.where(rng.random(n) < 0.3, rng.choice([-1, k, 255]), labels) if unknown else labels
    if x.dtype in (int, np.float32) and x.size > k * k and set(np.unique(x)) <= {0, 1}:
        return rng.integers(0, 2, x.shape).astype(x.dtype)
    if x.dtype.kind in "iu" or x.shape in ((6, 6), (6,)) or (x.shape == (k, k) and (x < 0).any()):
        return x  # words, counts, ranks, similarities, an inverse
    if not x.ndim:
        return np.float32(rng.choice([0.0, 1e-7, 0.3, 1.0]))
    if (x >= 0).all() and np.allclose(x.sum(-1), 1, atol=1e-5):
        probs = rng.dirichlet(np.full(x.shape[-1], rng.choice([0.01, 0.1, 1.0])), x.shape[:-1]) + 1e-300
        probs = np.where((x == 0) & (x.shape == (k, k)), 0, probs)  # a diagonal may have to be zero
        return (probs / probs.sum(-1, keepdims=True)).astype(np.float32)
    return logits_of(x.shape, rng, size)


def is_key(x):
    """Whether an argument is a PRNG key."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_labels(x, n=8):
    """Whether an argument may be a class label per example."""
    return not is_key(x) and x.dtype == int and x.shape == (n,)


def one_in(number, names):
    """A case for each name, of which all but one of so many are for ``-m slow``: what fails for one fails for many."""
    marks = [[] if i % number == 0 else [pytest.mark.slow] for i in range(len(names))]
    return pytest.mark.parametrize("name", [pytest.param(n, marks=m) for n, m in zip(names, marks, strict=True)])
