"""Noise on class numbers that looks at the class alone: flips by a transition matrix, and outliers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import distributions, floating
from nlx.corruption.corrupted import Corrupted, checked, redrawn, relabelled, touched


def uniform_flips(key: Array, labels: ArrayLike, num_classes: int, rate: ArrayLike) -> Corrupted:
    r"""Replace labels, each with the same probability, by one drawn uniformly among the other classes.

    .. math:: p(\tilde y = j \mid y = i) = (1 - r)\,[i = j] + \frac{r}{K - 1}\,[i \ne j]

    Args:
      key: typed PRNG key.
      labels: clean classes in ``[0, K)``, int ``[n]``; others stay as they are.
      num_classes: K, at least 2.
      rate: r, probability that a label is replaced, in [0, 1]; scalar.

    Returns:
      Noisy classes ``[n]`` and the mask of the replaced ones, each of which differs from its clean class.

    Raises:
      TypeError: labels are not integers, or the key is not typed.
      ValueError: labels are not one-dimensional, num_classes < 2, or a rate known before tracing is outside [0, 1].

    Examples:
      >>> noisy, mask = uniform_flips(jax.random.key(0), jnp.array([0, 1, 2]), num_classes=3, rate=1.0)
      >>> mask.tolist(), (noisy == jnp.array([0, 1, 2])).any().item()
      ([True, True, True], False)
    """
    given, true = checked(key, labels, num_classes)
    touch_key, class_key = jax.random.split(key)
    mask = touched(touch_key, true.shape, rate)
    # A step of 1 to K - 1 around the circle of classes reaches every other class equally often and never the same one.
    shift = jax.random.randint(class_key, true.shape, 1, num_classes, dtype=jnp.int32)
    return relabelled(given, (true + shift) % num_classes, mask, num_classes)


def flips(key: Array, labels: ArrayLike, transition: ArrayLike) -> Corrupted:
    r"""Draw every label anew from its class's row of a transition matrix.

    .. math:: p(\tilde y = j \mid y = i) = T_{ij}

    An example takes the first class at which the sum of its row exceeds a uniform number, by bisection: memory is
    O(n + K²), with no row gathered per example. A class of probability 0 is never drawn.

    Args:
      key: typed PRNG key.
      labels: clean classes in ``[0, K)``, int ``[n]``; others stay as they are.
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``.

    Returns:
      Noisy classes ``[n]`` and the mask of those that differ from their clean class.

    Raises:
      TypeError: labels are not integers, T is not floating, or the key is not typed.
      ValueError: labels are not one-dimensional, T is not square with K >= 2, or a T known before tracing has a row
        that is no distribution.

    Examples:
      >>> to_the_next = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
      >>> noisy, mask = flips(jax.random.key(0), jnp.array([0, 1, 2]), to_the_next)
      >>> noisy.tolist(), mask.tolist()
      ([1, 2, 0], [True, True, True])

    References:
      Sukhbaatar et al., 2015, *Training Convolutional Networks with Noisy Labels*, section 3.1.
    """
    rows = floating(transition, "transition").astype(jnp.float32)
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1] or len(rows) < 2:
        raise ValueError(f"transition must be square, [K, K] with K of at least 2, got shape {rows.shape}")
    distributions(transition, "transition")
    num_classes = len(rows)
    given, true = checked(key, labels, num_classes)
    noisy, mask = _drawn(key, true, jnp.maximum(rows, 0))
    return relabelled(given, noisy, mask, num_classes)


@jax.jit
def _drawn(key: Array, true: Array, rows: Array) -> tuple[Array, Array]:
    """Classes drawn from the rows of true ones, and which of them differ."""
    num_classes = len(rows)
    # Summed column by column: a class of probability 0 then adds nothing, not even by rounding, and every kind of
    # device rounds in the same way.
    _, columns = jax.lax.scan(_add, jnp.zeros_like(rows[:, 0]), rows.T)
    flat = columns.T.ravel()
    # Rounding may leave a row's sum below 1, and what lies above it goes to the last class that is possible at all.
    last = num_classes - 1 - jnp.argmax(rows[:, ::-1] > 0, axis=1).astype(jnp.int32)

    u = jax.random.uniform(key, true.shape, dtype=jnp.float32)
    low, high = jnp.zeros_like(true), last[true]
    for _ in range((num_classes - 1).bit_length()):
        middle = (low + high) // 2
        beyond = flat[true * num_classes + middle] <= u
        low, high = jnp.where(beyond, jnp.minimum(middle + 1, high), low), jnp.where(beyond, high, middle)
    return low, low != true


def outliers(key: Array, labels: ArrayLike, num_classes: int, rate: ArrayLike) -> Corrupted:
    r"""Choose examples whose input gives way to one from elsewhere, and label those uniformly at random.

    .. math:: p(\tilde y = j \mid \text{outlier}) = 1 / K

    Which inputs stand in for the chosen ones is the caller's business; here they only get their labels.

    Args:
      key: typed PRNG key.
      labels: clean classes in ``[0, K)``, int ``[n]``; others stay as they are.
      num_classes: K, at least 2.
      rate: probability that an example is replaced by an outlier, in [0, 1]; scalar.

    Returns:
      Noisy classes ``[n]`` and the mask of the outliers, whose class may by luck be the one that stood there before.

    Raises:
      TypeError: labels are not integers, or the key is not typed.
      ValueError: labels are not one-dimensional, num_classes < 2, or a rate known before tracing is outside [0, 1].

    Examples:
      >>> noisy, mask = outliers(jax.random.key(0), jnp.array([0, 1, 2]), num_classes=3, rate=0.0)
      >>> noisy.tolist(), mask.tolist()
      ([0, 1, 2], [False, False, False])

    References:
      Sukhbaatar et al., 2015, *Training Convolutional Networks with Noisy Labels*, section 3.3.
    """
    return redrawn(key, checked(key, labels, num_classes)[0], rate, num_classes)


def _add(total: Array, p: Array) -> tuple[Array, Array]:
    return total + p, total + p
