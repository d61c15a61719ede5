"""Noise that looks at the example: some are mislabelled more often than others, and as different classes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike

from nlx.arguments import floating, in_range, known, varying, working
from nlx.corruption.corrupted import Corrupted, checked, relabelled

SPREAD = 0.1  # standard deviation of the flip rates before truncation, as in the paper


def instance_dependent(
    key: Array, features: ArrayLike, labels: ArrayLike, num_classes: int, rate: ArrayLike
) -> Corrupted:
    r"""Flip labels with a probability, and to a class, that both depend on the example's features.

    With features x standardized over the examples, a random direction v and a random matrix :math:`W^{(i)}` per class,
    all of standard normal entries,

    .. math:: p(\tilde y = j \mid y = i, x) = (1 - q(x))\,[i = j] +
              q(x)\,\mathrm{softmax}_{j \ne i}\bigl(x^\top W^{(i)}\bigr)_j,
              \qquad q(x) = Q\!\left(\frac{\mathrm{rank}(v^\top x) + 1/2}{n}\right),

    where Q is the quantile function of the normal distribution around r of standard deviation 0.1, cut off at
    :math:`r \pm \min(r, 1 - r)`. The paper draws q at random for every example instead, and cuts it off at 0 and 1,
    which moves its mean; here q is a function of the example and the mean over the examples is r. As there, the logits
    have a standard deviation of :math:`\sqrt F`: with many features the target is almost certain, given the example.

    Args:
      key: typed PRNG key.
      features: what the noise looks at, float ``[n, F]``; each feature is standardized here, constant ones count for
        nothing.
      labels: clean classes in ``[0, K)``, int ``[n]``; others stay as they are.
      num_classes: K, at least 2.
      rate: r, the mean probability that a label is flipped, in [0, 1]; scalar.

    Returns:
      Noisy classes ``[n]`` and the mask of the flipped ones, each of which differs from its clean class.

    Raises:
      TypeError: labels are not integers, features are not floating, or the key is not typed.
      ValueError: labels are not one-dimensional, features are not ``[n, F]``, num_classes < 2, or a rate known before
        tracing is outside [0, 1], or features known before it are not finite.

    Examples:
      >>> x = jax.random.normal(jax.random.key(0), (4, 2))
      >>> noisy, mask = instance_dependent(jax.random.key(1), x, jnp.array([0, 1, 2, 0]), num_classes=3, rate=1.0)
      >>> mask.tolist(), (noisy == jnp.array([0, 1, 2, 0])).any().item()
      ([True, True, True, True], False)

    References:
      Xia et al., 2020, *Part-dependent Label Noise: Towards Instance-dependent Label Noise*, Algorithm 2.
    """
    given, true = checked(key, labels, num_classes)
    in_range(rate, "rate", 0, 1)
    values = known(features)
    if values is not None and not np.isfinite(values).all():
        place = ", ".join(map(str, np.argwhere(~np.isfinite(values))[0]))
        raise ValueError(f"features must be finite: fill in or drop what is missing, such as features[{place}]")
    if isinstance(features, np.ndarray) and features.dtype == np.float64:
        features = features - features.mean(axis=0)  # while all digits are there: without x64 they become float32
    x = floating(features, "features")
    x = x.astype(working(x))
    if x.ndim != 2 or x.shape[0] != given.shape[0]:
        raise ValueError(f"features must be [n, F] with one row per label, got {x.shape} for {given.shape[0]} labels")
    if not len(given):
        return Corrupted(given, given < 0)
    noisy, flip = _flip(key, x, true, jnp.asarray(rate, dtype=jnp.float32), num_classes)
    return relabelled(given, noisy, flip, num_classes)


@partial(jax.jit, static_argnames="num_classes")
def _flip(key: Array, x: Array, labels: Array, rate: Array, num_classes: int) -> tuple[Array, Array]:
    # A number that is missing counts as the mean of the others; it is refused where it can be seen.
    there = jnp.isfinite(x)
    count = jnp.maximum(jnp.sum(there, axis=0, keepdims=True), 1).astype(x.dtype)
    x = jnp.where(there, x, 0)
    # Scaled before it is squared, which features of any size survive.
    x = x / jnp.maximum(jnp.max(jnp.abs(x), axis=0, keepdims=True), jnp.finfo(x.dtype).tiny)
    x = jnp.where(there, x - jnp.sum(x, axis=0, keepdims=True) / count, 0).astype(jnp.float32)
    x = x / jnp.maximum(jnp.sqrt(jnp.sum(x**2, axis=0, keepdims=True) / count.astype(jnp.float32)), 1e-6)
    direction_key, matrix_key, flip_key, target_key = jax.random.split(key, 4)
    share = _ranks(_project(x, jax.random.normal(direction_key, (x.shape[1], 1), jnp.float32))[:, 0])
    flip = jax.random.uniform(flip_key, labels.shape, dtype=jnp.float32) < _rates(share, rate)

    classes = jnp.arange(num_classes, dtype=jnp.int32)
    true = labels[:, None]

    # One class at a time: all matrices at once would take [n, K, K].
    def of_class(logits: Array, c: Array) -> tuple[Array, None]:
        matrix = jax.random.normal(jax.random.fold_in(matrix_key, c), (x.shape[1], num_classes), jnp.float32)
        return jnp.where(true == c, _project(x, matrix), logits), None

    start = varying(jnp.zeros((x.shape[0], num_classes), jnp.float32), x, labels)
    logits, _ = jax.lax.scan(of_class, start, classes)
    others = jnp.where(true == classes[None, :], -jnp.inf, logits)
    return jax.random.categorical(target_key, others, axis=-1).astype(jnp.int32), flip


def _project(x: Array, onto: Array) -> Array:
    # In full precision on every kind of device, so that a key gives the same noise everywhere but for rounding.
    return jnp.matmul(x, onto, precision=jax.lax.Precision.HIGHEST)


def _ranks(values: Array) -> Array:
    """The share of values below each, ties in their order: 1/(2n), 3/(2n), ..., 1 - 1/(2n), float32 ``[n]``."""
    n = values.shape[0]
    ranks = jnp.zeros((n,), jnp.int32).at[jnp.argsort(values)].set(jnp.arange(n, dtype=jnp.int32))
    return (ranks.astype(jnp.float32) + 0.5) / n


def _rates(share: Array, rate: Array) -> Array:
    """Quantiles, at shares in (0, 1), of the normal distribution around ``rate`` that is cut off symmetrically."""
    width = jnp.minimum(rate, 1 - rate)
    below = ndtr(-width / SPREAD)
    return jnp.clip(rate + SPREAD * ndtri(below + share * (1 - 2 * below)), rate - width, rate + width)
