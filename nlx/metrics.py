"""How good predictions and cleaned labels are: accuracy, VOC average precision, recovery, transition counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def accuracy(scores: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Share of examples whose highest score is the label's.

    Args:
      scores: logits or probabilities, float ``[n, K]``.
      labels: classes, int ``[n]``.
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where nothing counts.

    Examples:
      >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
      Array(0.5, dtype=float32)
    """
    hits = jnp.argmax(jnp.asarray(scores), axis=-1) == jnp.asarray(labels)
    return jnp.mean(hits, dtype=jnp.float32, where=None if where is None else jnp.asarray(where))


def average_precision(
    scores: ArrayLike, labels: ArrayLike, *, points: int | None = None, where: ArrayLike | None = None
) -> Array:
    r"""Average precision of a ranking as PASCAL VOC defines it, with interpolated precision.

    The interpolated precision at recall r is the best precision at any threshold with recall of at least r. Examples
    with equal scores enter together, so that their order in the data does not matter; scores are compared as float32
    without the last bit of the mantissa, whose place in the sorting key the label takes (one array to sort, not two).

    Args:
      scores: higher means more likely positive, float ``[n]``; no NaN.
      labels: positives, bool or {0, 1} ``[n]``.
      points: None averages over every positive (VOC 2010 and later), 11 over recalls 0, 0.1, ..., 1 (VOC 2007).
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where no example is positive.

    Raises:
      ValueError: shapes disagree, or points is neither None nor 11.

    Examples:
      >>> print(f"{average_precision(jnp.array([0.9, 0.8, 0.7]), jnp.array([1, 0, 1])):.3f}")
      0.833
      >>> print(f"{average_precision(jnp.array([0.9, 0.8, 0.7]), jnp.array([1, 0, 1]), points=11):.3f}")
      0.848

    References:
      Everingham et al., The PASCAL Visual Object Classes Challenge, 2010, section 4.2; VOC 2010 development kit.
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must be vectors of the same length")
    if points not in (None, 11):
        raise ValueError(f"points must be None (all points) or 11 (VOC 2007), got {points}")
    counts = jnp.ones(scores.shape, bool) if where is None else jnp.asarray(where)
    positive = labels.astype(bool) & counts
    scores = jnp.where(counts, scores, -jnp.inf)
    order = jax.lax.sort(_descending_key(scores) & -2 | positive.astype(jnp.int32))
    hits, level = order & 1, order >> 1
    counted = jnp.minimum(jnp.arange(1, scores.size + 1), jnp.sum(counts))
    found = jnp.cumsum(hits)
    total = found[-1]
    positives = jnp.maximum(total, 1).astype(jnp.float32)
    # A threshold can only fall between different scores, so precision counts at the last of equal ones.
    threshold = jnp.append(level[1:] != level[:-1], True)
    precision = jnp.where(threshold, found.astype(jnp.float32) / jnp.maximum(counted, 1).astype(jnp.float32), 0.0)
    if points is None:
        interpolated = jax.lax.cummax(precision, reverse=True)
        mean = jnp.sum(jnp.where(hits == 1, interpolated, 0.0)) / positives
    else:
        # Recall found / total is compared to k / 10 in integers: 3 / 10 >= 0.3 must not depend on rounding.
        reached = found[None, :] * 10 >= jnp.arange(11)[:, None] * total
        mean = jnp.mean(jnp.max(jnp.where(reached, precision[None, :], 0.0), axis=1))
    return jnp.where(total > 0, mean, jnp.nan)


def mean_average_precision(
    scores: ArrayLike, labels: ArrayLike, *, points: int | None = None, where: ArrayLike | None = None
) -> Array:
    """Mean over classes of :func:`average_precision`; classes without a positive do not count.

    Args:
      scores: float ``[n, K]``.
      labels: {0, 1} ``[n, K]``, or classes, int ``[n]`` (each class against the rest).
      points: None or 11, see :func:`average_precision`.
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where no class has a positive.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> mean_average_precision(jnp.array([[0.9, 0.1], [0.6, 0.8]]), jnp.array([0, 1]))
      Array(1., dtype=float32)
    """
    scores = jnp.asarray(scores)
    labels = as_vectors(labels, scores.shape[-1])
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must have the same shape")

    def one_class(s: Array, y: Array) -> Array:
        return average_precision(s, y, points=points, where=where)

    return jnp.nanmean(jax.lax.map(lambda column: one_class(*column), (scores.T, labels.T)))


def recovery(posterior: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Share of true labels that a posterior over them gets right.

    Args:
      posterior: q(true label given x and noisy label), float ``[n, K]``.
      labels: true labels: classes, int ``[n]``, where the argmax must hit; or {0, 1} ``[n, K]``, where every entry
        counts and is called 1 from 0.5 on.
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where nothing counts.

    Examples:
      >>> recovery(jnp.array([[0.9, 0.6], [0.2, 0.7]]), jnp.array([[1, 0], [0, 1]]))
      Array(0.75, dtype=float32)
    """
    posterior, labels = jnp.asarray(posterior), jnp.asarray(labels)
    if labels.ndim == 1:
        return accuracy(posterior, labels, where=where)
    hits = (posterior >= 0.5) == labels.astype(bool)
    return jnp.mean(hits, dtype=jnp.float32, where=None if where is None else jnp.asarray(where)[:, None])


def transition_counts(latent: ArrayLike, noisy: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """How often each latent label comes out as each noisy one.

    For label vectors, a label in both vectors is one count on the diagonal; labels only in the latent vector are
    counted against those only in the noisy one.

    Args:
      latent: latent labels {0, 1} ``[n, K]``.
      noisy: noisy labels {0, 1} ``[n, K]``.
      where: examples that count, bool ``[n]``.

    Returns:
      ``counts[i, j]``: latent i came out as noisy j, float32 ``[K, K]``.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> transition_counts(jnp.array([[1, 0, 1]]), jnp.array([[1, 1, 0]]))
      Array([[1., 0., 0.],
             [0., 0., 0.],
             [0., 1., 0.]], dtype=float32)

    References:
      Yao et al., section IV-D 3 and Fig. 9.
    """
    z, y = jnp.asarray(latent, jnp.float32), jnp.asarray(noisy, jnp.float32)
    if z.shape != y.shape or z.ndim != 2:
        raise ValueError(f"latent {z.shape} and noisy {y.shape} must both be [n, K]")
    if where is not None:
        z = jnp.where(jnp.asarray(where)[:, None], z, 0.0)
    return jnp.diag(jnp.sum(z * y, axis=0)) + (z * (1 - y)).T @ (y * (1 - z))


def as_vectors(labels: ArrayLike, num_classes: int) -> Array:
    """Labels as {0, 1} vectors, whichever form they come in.

    Args:
      labels: classes, int ``[...]`` with one class per example, or {0, 1} ``[..., K]``.
      num_classes: K. A matrix of integers with K columns is taken as {0, 1} vectors.

    Returns:
      float32 ``[n, K]``.

    Examples:
      >>> as_vectors(jnp.array([1, 0]), 2)
      Array([[0., 1.],
             [1., 0.]], dtype=float32)
    """
    labels = jnp.asarray(labels)
    return jax.nn.one_hot(labels, num_classes) if labels.ndim == 1 else labels.astype(jnp.float32)


def _descending_key(scores: Array) -> Array:
    """Integers that sort as the scores do from high to low, int32."""
    # Adding 0 turns -0 into 0. Bits of positive floats sort as integers; those of negative ones in reverse.
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32) + 0.0, jnp.int32)
    return ~jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
