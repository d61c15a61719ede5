"""Synthetic label noise: pure functions from a key and clean labels to noisy labels and the mask of what was touched.

Labels are class numbers, int ``[n]``, or {0, 1} label vectors, ``[n, K]``. Nothing here knows of data sets or files,
and everything runs under ``jax.jit`` and ``jax.vmap``. Class numbers outside [0, K) cannot be seen under jit: the
loaders check them where data enters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class Corrupted(NamedTuple):
    """Noisy labels and which examples the noise touched.

    Attributes:
      labels: noisy labels, same shape and dtype as the clean ones.
      mask: examples that were touched, bool ``[n]``; by luck some of them may keep their label where a kind of noise
        allows it.
    """

    labels: Array
    mask: Array


def uniform_flips(key: Array, labels: ArrayLike, num_classes: int, rate: ArrayLike) -> Corrupted:
    r"""Replace labels, each with the same probability, by one drawn uniformly among the other classes.

    .. math:: p(\tilde y = j \mid y = i) = (1 - r)\,[i = j] + \frac{r}{K - 1}\,[i \ne j]

    Args:
      key: typed PRNG key.
      labels: clean classes in ``[0, K)``, int ``[n]``.
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
    labels = jnp.asarray(labels)
    _check_key(key)
    _check_classes(labels, num_classes)
    touch_key, class_key = jax.random.split(key)
    mask = _touched(touch_key, labels.shape[0], rate)
    # A step of 1 to K - 1 around the circle of classes reaches every other class equally often and never the same one.
    shift = jax.random.randint(class_key, labels.shape, 1, num_classes, dtype=jnp.int32)
    flipped = ((labels.astype(jnp.int32) + shift) % num_classes).astype(labels.dtype)
    return Corrupted(jnp.where(mask, flipped, labels), mask)


def vector_shuffle(key: Array, labels: ArrayLike, rate: ArrayLike, num_classes: int | None = None) -> Corrupted:
    r"""Shuffle the elements of label vectors, each vector with the same probability: the noise of the CAN paper.

    A touched vector :math:`y \in \{0, 1\}^K` becomes :math:`(y_{\pi(1)}, \dots, y_{\pi(K)})` under a random permutation
    of its own. A class number stands for its one-hot vector, whose shuffle is uniform over all K classes:

    .. math:: p(\tilde y = j \mid y = i) = (1 - r)\,[i = j] + \frac{r}{K}

    Args:
      key: typed PRNG key.
      labels: clean label vectors of zeros and ones ``[n, K]`` of any dtype, or classes in ``[0, K)``, int ``[n]``.
      rate: r, probability that an example is shuffled, in [0, 1]; scalar.
      num_classes: K; needed for classes, and may be left out for vectors.

    Returns:
      Noisy labels in the form they came, and the mask of the shuffled examples. A shuffle may leave a label as it was:
      a class stays with probability 1/K.

    Raises:
      TypeError: labels ``[n]`` are not integers, or the key is not typed.
      ValueError: labels have other dimensions, num_classes is missing or disagrees with the vectors, or a rate known
        before tracing is outside [0, 1].

    Examples:
      >>> noisy, mask = vector_shuffle(jax.random.key(0), jnp.array([[1, 1, 0, 0], [0, 0, 0, 1]]), rate=1.0)
      >>> noisy.sum(axis=1).tolist()
      [2, 1]

    References:
      CAN: Contrastive-Additive Noise network, experiments with synthetic noise (Table VI).
    """
    labels = jnp.asarray(labels)
    _check_key(key)
    touch_key, shuffle_key = jax.random.split(key)
    if labels.ndim == 2:
        if num_classes is not None and labels.shape[1] != num_classes:
            raise ValueError(f"labels have {labels.shape[1]} columns but num_classes is {num_classes}")
        mask = _touched(touch_key, labels.shape[0], rate)
        shuffled = jax.random.permutation(shuffle_key, labels, axis=1, independent=True)
        return Corrupted(jnp.where(mask[:, None], shuffled, labels), mask)
    if num_classes is None:
        raise ValueError("num_classes is needed to shuffle labels given as class numbers")
    _check_classes(labels, num_classes)
    mask = _touched(touch_key, labels.shape[0], rate)
    drawn = jax.random.randint(shuffle_key, labels.shape, 0, num_classes, dtype=jnp.int32).astype(labels.dtype)
    return Corrupted(jnp.where(mask, drawn, labels), mask)


def _touched(key: Array, n: int, rate: ArrayLike) -> Array:
    """Each of n examples with probability ``rate``, bool ``[n]``."""
    if not isinstance(rate, jax.core.Tracer) and not 0.0 <= float(rate) <= 1.0:  # type: ignore[arg-type]
        raise ValueError(f"rate must lie in [0, 1], got {rate}")
    # float32 whatever the precision flags say, so that a key gives the same noise everywhere.
    return jax.random.uniform(key, (n,), dtype=jnp.float32) < jnp.asarray(rate, dtype=jnp.float32)


def _check_key(key: Array) -> None:
    if not isinstance(key, Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError("the first argument must be a typed key: make one with jax.random.key(seed)")


def _check_classes(labels: Array, num_classes: int) -> None:
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"labels must have one dimension, got shape {labels.shape}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
