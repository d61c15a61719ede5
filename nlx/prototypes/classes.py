"""What unequal classes ask for before prototypes are selected: a centre between classes, and members that stand out."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, class_vector, floating, working
from nlx.prototypes.correction import correct
from nlx.prototypes.similarity import unit


def centered(features: ArrayLike, labels: ArrayLike, num_classes: int) -> Array:
    """Features less the mean of their class means, in which each class counts the same, however large it is.

    The mean of all examples lies inside a class that holds most of them; less that mean, directions of its examples
    would say nothing.

    Args:
      features: float ``[n, d]``.
      labels: classes, int ``[n]``; those outside ``[0, K)`` (padding is -1) do not count.
      num_classes: K.

    Returns:
      Features' dtype ``[n, d]``.

    Raises:
      TypeError: labels not integer, or features not floating.
      ValueError: shapes disagree.

    Examples:
      >>> centered(jnp.array([[1.0], [1.0], [1.0], [5.0]]), jnp.array([0, 0, 0, 1]), 2)[:, 0]
      Array([-2., -2., -2.,  2.], dtype=float32)
    """
    x, group = _checked(features, labels, num_classes)
    means, counts = _class_means(x, group, num_classes)
    present = jnp.maximum(jnp.sum(counts > 0, dtype=jnp.int32), 1).astype(means.dtype)
    return as_type(x.astype(means.dtype) - jnp.sum(means, axis=0, keepdims=True) / present, x.dtype)


def typical(features: ArrayLike, labels: ArrayLike, num_classes: int) -> Array:
    r"""Which examples resemble the members of their own class, on average, more than those of any other.

    .. math:: y_i = \arg\max_c \frac{1}{n_c} \sum_{j: y_j = c} \cos(x_i, x_j)

    Of a rare class most labels may be wrong: 2 % flips of a class fifty times as large fill half of it. Its densest
    members are of the large class then, which are still more frequent there. An example of class y is found among the
    labels c at a rate in proportion to T[y, c] / p(c), which is highest at its own class as long as no other class
    gives its label away more often than it has it.

    Args:
      features: float ``[n, d]``, best :func:`centered`.
      labels: classes, int ``[n]``; those outside ``[0, K)`` (padding is -1) belong to none.
      num_classes: K.

    Returns:
      bool ``[n]``; all members of a class in which there would be none.

    Raises:
      TypeError: labels not integer, or features not floating.
      ValueError: shapes disagree.

    Examples:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
      >>> typical(x, jnp.array([0, 0, 0, 1, 1, 1]), 2)
      Array([ True,  True,  True, False, False,  True], dtype=bool)
    """
    x, group = _checked(features, labels, num_classes)
    means, counts = _class_means(unit(x), group, num_classes)
    own = (correct(x, means, counts > 0).label == group) & (group >= 0)
    known = jnp.maximum(group, 0)
    some = jnp.zeros(num_classes, bool).at[known].max(own)
    return jnp.where(some[known], own, group >= 0)


def _checked(features: ArrayLike, labels: ArrayLike, num_classes: int) -> tuple[Array, Array]:
    x, group = floating(features, "features"), class_vector(labels, "labels", num_classes)
    if x.ndim != 2 or group.shape != x.shape[:1]:
        raise ValueError(f"features must be [n, d] and labels [n], got {x.shape} and {group.shape}")
    return x, group


def _class_means(x: Array, group: Array, num_classes: int) -> tuple[Array, Array]:
    """Means ``[K, d]``, zero for a class without members, and the number of these ``[K]``."""
    where = jnp.where(group >= 0, group, num_classes)  # one row more, which is dropped
    dtype = working(x)
    sums = jnp.zeros((num_classes + 1, x.shape[1]), dtype).at[where].add(x.astype(dtype))[:-1]
    counts = jnp.zeros(num_classes + 1, jnp.int32).at[where].add(1)[:-1]
    return sums / jnp.maximum(counts, 1).astype(dtype)[:, None], counts
