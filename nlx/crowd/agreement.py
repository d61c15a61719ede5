"""What answers say without a model of those who answer: votes, and how far people agree."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_vector, same_shape


class Votes(NamedTuple):
    """Votes of items.

    Attributes:
      label: the class of most votes, the first of several, -1 where nobody has answered, int32 ``[N]``.
      counts: votes for each class, int32 ``[N, K]``.
      tied: whether another class has as many votes, bool ``[N]``.
    """

    label: Array
    counts: Array
    tied: Array


def majority_vote(items: ArrayLike, labels: ArrayLike, *, num_items: int, num_classes: int) -> Votes:
    """The class that most answers give, with its ties.

    Args:
      items: which item an answer is about, in ``[0, N)``, int ``[M]``; others do not count.
      labels: the answers, in ``[0, K)``, int ``[M]``; likewise, so that -1 is an abstention.
      num_items: N.
      num_classes: K.

    Raises:
      TypeError: numbers not integers.
      ValueError: not vectors of one length, or fewer than 1 item or class.

    Examples:
      >>> votes = majority_vote(jnp.array([0, 0, 0, 1, 1]), jnp.array([2, 1, 2, 0, 1]), num_items=3, num_classes=3)
      >>> votes.label, votes.tied
      (Array([ 2,  0, -1], dtype=int32), Array([False,  True, False], dtype=bool))
    """
    counts = _counts(items, labels, num_items, num_classes)
    most = jnp.max(counts, axis=1)
    label = jnp.where(most > 0, jnp.argmax(counts, axis=1).astype(jnp.int32), -1)
    return Votes(label, counts, (most > 0) & (jnp.sum(counts == most[:, None], axis=1) > 1))


def krippendorff_alpha(items: ArrayLike, labels: ArrayLike, *, num_items: int, num_classes: int) -> Array:
    r"""Krippendorff's alpha for nominal answers, any of which may be missing.

    .. math:: \alpha = 1 - \frac{D_o}{D_e}, \qquad
        D_o = \frac1n \sum_u \sum_{c \ne k} \frac{n_{uc} n_{uk}}{n_u - 1}, \qquad
        D_e = \frac{1}{n (n - 1)} \sum_{c \ne k} n_c n_k

    over the items u that have at least two answers, n of them together.

    Args:
      items: which item an answer is about, in ``[0, N)``, int ``[M]``; others do not count.
      labels: the answers, in ``[0, K)``, int ``[M]``; likewise.
      num_items: N.
      num_classes: K.

    Returns:
      float32: 1 where all agree, 0 where they agree as chance has it; NaN where no two answers could differ.

    Raises:
      TypeError: numbers not integers.
      ValueError: not vectors of one length, no item, or fewer than 2 classes.

    Examples:
      >>> items, labels = jnp.array([0, 0, 1, 1, 2, 2, 3]), jnp.array([0, 0, 1, 1, 0, 1, 1])
      >>> print(f"{krippendorff_alpha(items, labels, num_items=4, num_classes=2):.3f}")
      0.444

    References:
      Krippendorff, 2011, Computing Krippendorff's alpha-reliability, section C.
    """
    at_least(2, num_classes=num_classes)
    counts = _counts(items, labels, num_items, num_classes).astype(jnp.float32)
    answers = jnp.sum(counts, axis=1)
    counts = jnp.where(answers[:, None] > 1, counts, 0.0)
    answers = jnp.sum(counts, axis=1)
    # Of an item and of all, pairs of different answers, added up: less those of the same class would lose digits.
    differing = jnp.sum(counts * (answers[:, None] - counts), axis=1)
    observed = jnp.sum(differing / jnp.maximum(answers - 1, 1.0))
    total, of_class = jnp.sum(answers), jnp.sum(counts, axis=0)
    expected = jnp.sum(of_class * (total - of_class)) / jnp.maximum(total - 1, 1.0)
    return jnp.where(expected > 0, 1 - observed / jnp.where(expected > 0, expected, 1.0), jnp.nan)


def _counts(items: ArrayLike, labels: ArrayLike, num_items: int, num_classes: int) -> Array:
    at_least(1, num_items=num_items)
    item = class_vector(items, "items", num_items, unknown=num_items)
    label = class_vector(labels, "labels", num_classes, unknown=num_classes)
    same_shape("items", item.shape, "labels", label.shape)
    return jnp.zeros((num_items, num_classes), jnp.int32).at[item, label].add(1, mode="drop")
