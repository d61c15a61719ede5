"""How good predictions and cleaned labels are: accuracy, VOC average precision, recovery, transition counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import array, class_vector, float_order, label_vectors, mask, masked, same_shape

_LOWEST = -(2**31)  # the sorting key of a score that is not a number
_STEPS = 128  # of a running sum on a CPU
_CLASSES, _SCORES = 16, 2**21  # at most, whose precisions are taken together


def accuracy(scores: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Share of examples whose highest score is the label's.

    Args:
      scores: logits or probabilities, float ``[n, K]``.
      labels: classes in ``[0, K)``, int ``[n]``; examples with others do not count.
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where nothing counts, or a score that counts is NaN.

    Raises:
      TypeError: labels not integer.
      ValueError: shapes disagree.

    Examples:
      >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
      Array(0.5, dtype=float32)
    """
    scores = array(scores, "scores")
    if scores.ndim != 2:
        raise ValueError(f"scores must be [n, K], got {scores.shape}")
    labels = class_vector(labels, "labels", scores.shape[1])
    same_shape("scores[:, 0]", scores.shape[:1], "labels", labels.shape)
    hits = jnp.argmax(scores, axis=1).astype(jnp.int32) == labels
    return _share(hits, jnp.isnan(jnp.max(scores, axis=1)), labels >= 0, where)


def average_precision(
    scores: ArrayLike, labels: ArrayLike, *, points: int | None = None, where: ArrayLike | None = None
) -> Array:
    r"""Average precision of a ranking as PASCAL VOC defines it, with interpolated precision.

    The interpolated precision at recall r is the best precision at any threshold with recall of at least r. Examples
    with equal scores enter together, so that their order in the data does not matter; scores are compared as float32
    without the last bit of the mantissa, whose place in the sorting key the label takes (one array to sort, not two).

    Args:
      scores: higher means more likely positive, float ``[n]``.
      labels: positives, bool or {0, 1} ``[n]``; examples with others do not count, and are refused where known.
      points: None averages over every positive (VOC 2010 and later), 11 over recalls 0, 0.1, ..., 1 (VOC 2007).
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where no example is positive, or a score that counts is NaN.

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
    scores = array(scores, "scores")
    if scores.ndim != 1 or scores.shape != jnp.shape(labels):
        raise ValueError(f"scores {scores.shape} and labels {jnp.shape(labels)} must be vectors of the same length")
    _check_points(points)
    counts = mask(where, scores.shape)
    positive, is_label = label_vectors(labels, "labels", scores.shape, counts)
    return _average_precision(scores, positive, is_label if counts is None else counts & is_label, points)


@partial(jax.jit, static_argnames="points")
def _average_precision(scores: Array, positive: Array, counts: Array, points: int | None) -> Array:
    if not scores.size:
        return jnp.full((), jnp.nan, jnp.float32)
    positive &= counts
    scores = jnp.where(counts, scores, -jnp.inf)
    order = jax.lax.sort(_sorting_key(scores) & -2 | positive.astype(jnp.int32))
    hits, level = order & 1, order >> 1
    counted = jnp.minimum(jnp.arange(1, scores.size + 1, dtype=jnp.int32), jnp.sum(counts, dtype=jnp.int32))
    hits_so_far = _running(jnp.add, jax.lax.cumsum, hits)
    total = hits_so_far[-1]
    positives = jnp.maximum(total, 1).astype(jnp.float32)
    # A threshold can only fall between different scores, so precision counts at the last of equal ones.
    threshold = jnp.append(level[1:] != level[:-1], True)
    share = hits_so_far.astype(jnp.float32) / jnp.maximum(counted, 1).astype(jnp.float32)
    precision = jnp.where(threshold, share, 0.0)
    if points is None:
        interpolated = _running(jnp.maximum, jax.lax.cummax, precision[::-1])[::-1]
        mean = jnp.sum(jnp.where(hits == 1, interpolated, 0.0)) / positives
    else:
        # Recall hits / total is compared to k / 10 in integers: 3 / 10 >= 0.3 must not depend on rounding.
        reached = hits_so_far[None, :] * 10 >= jnp.arange(11, dtype=jnp.int32)[:, None] * total
        mean = jnp.mean(jnp.max(jnp.where(reached, precision[None, :], 0.0), axis=1))
    return jnp.where((total > 0) & (level[0] != _LOWEST >> 1), mean, jnp.nan)


def _running(combine: Callable[[Array, Array], Array], cumulative: Callable[[Array], Array], values: Array) -> Array:
    """A running sum or maximum of a vector ``[n]`` of what is not negative.

    On a CPU in steps over blocks: a logarithm of n passes over all of it, as XLA makes, are slower.
    """

    def by_blocks(values: Array) -> Array:
        blocks = jnp.pad(values, (0, -len(values) % _STEPS)).reshape(-1, _STEPS).T
        last, inside = jax.lax.scan(lambda so_far, x: (combine(so_far, x),) * 2, jnp.zeros_like(blocks[0]), blocks)
        before = jnp.pad(cumulative(last)[:-1], (1, 0))
        return combine(inside, jnp.broadcast_to(before, inside.shape)).T.reshape(-1)[: len(values)]

    running: Array = jax.lax.platform_dependent(values, cpu=by_blocks, default=cumulative)
    return running


def mean_average_precision(
    scores: ArrayLike, labels: ArrayLike, *, points: int | None = None, where: ArrayLike | None = None
) -> Array:
    """Mean over classes of :func:`average_precision`; classes without a positive do not count.

    Args:
      scores: float ``[n, K]``.
      labels: {0, 1} ``[n, K]``, or classes, int ``[n]`` (each class against the rest). What is neither does not count;
        in vectors it is refused where known.
      points: None or 11, see :func:`average_precision`.
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where no class has a positive, or a score that counts is NaN.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> mean_average_precision(jnp.array([[0.9, 0.1], [0.6, 0.8]]), jnp.array([0, 1]))
      Array(1., dtype=float32)
    """
    scores = array(scores, "scores")
    if scores.ndim != 2 or jnp.shape(labels) not in (scores.shape, scores.shape[:1]):
        raise ValueError(f"scores {scores.shape} and labels {jnp.shape(labels)} must have the same shape")
    _check_points(points)
    counts = mask(where, scores.shape[:1])
    positive, is_label = _entries(labels, scores.shape, counts)
    return _mean_average_precision(scores, positive, masked(is_label, counts), points)


@partial(jax.jit, static_argnames="points")
def _mean_average_precision(scores: Array, positive: Array, counts: Array, points: int | None) -> Array:
    columns = scores.T, positive.T, counts.T
    together = max(1, min(_CLASSES, _SCORES // max(1, len(scores))))
    each = jax.lax.map(lambda column: _average_precision(*column, points), columns, batch_size=together)
    return jnp.mean(each, where=jnp.any(positive & counts, axis=0))


def _check_points(points: int | None) -> None:
    if points not in (None, 11):
        raise ValueError(f"points must be None (all points) or 11 (VOC 2007), got {points}")


def recovery(posterior: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Share of true labels that a posterior over them gets right.

    Args:
      posterior: q(true label given x and noisy label), float ``[n, K]``.
      labels: true labels: classes, int ``[n]``, where the argmax must hit; or {0, 1} ``[n, K]``, where every entry
        counts and is called 1 from 0.5 on. What is neither does not count; in vectors it is refused where known.
      where: examples that count, bool ``[n]``.

    Returns:
      A scalar in [0, 1], float32; NaN where nothing counts, or a probability that counts is NaN.

    Raises:
      TypeError: classes not integer.
      ValueError: shapes disagree.

    Examples:
      >>> recovery(jnp.array([[0.9, 0.6], [0.2, 0.7]]), jnp.array([[1, 0], [0, 1]]))
      Array(0.75, dtype=float32)
    """
    if jnp.ndim(labels) == 1:
        return accuracy(posterior, labels, where=where)
    posterior = array(posterior, "posterior")
    if posterior.ndim != 2:
        raise ValueError(f"posterior must be [n, K], got {posterior.shape}")
    rows = mask(where, posterior.shape[:1])
    true, is_label = _entries(labels, posterior.shape, rows)
    return _share((posterior >= 0.5) == true, jnp.isnan(posterior), masked(is_label, rows), None)


def transition_counts(latent: ArrayLike, noisy: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """How often each latent label comes out as each noisy one.

    For label vectors, a label in both vectors is one count on the diagonal; labels only in the latent vector are
    counted against those only in the noisy one.

    Args:
      latent: latent labels {0, 1} ``[n, K]``; others do not count, and are refused where known.
      noisy: noisy labels {0, 1} ``[n, K]``; likewise.
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
    shape = jnp.shape(latent)
    if shape != jnp.shape(noisy) or len(shape) != 2:
        raise ValueError(f"latent {shape} and noisy {jnp.shape(noisy)} must both be [n, K]")
    rows = mask(where, shape[:1])
    (z, z_known), (y, y_known) = (label_vectors(x, n, shape, rows) for x, n in ((latent, "latent"), (noisy, "noisy")))
    counts = masked(z_known & y_known, rows)
    both, latent_only, noisy_only = ((x & counts).astype(jnp.float32) for x in (z & y, z & ~y, y & ~z))
    return jnp.diag(jnp.sum(both, axis=0)) + latent_only.T @ noisy_only


def as_vectors(labels: ArrayLike, num_classes: int) -> Array:
    """Labels as {0, 1} vectors, whichever form they come in.

    Args:
      labels: classes, int ``[n]``, or {0, 1} ``[n, K]``; what is neither gives NaN, and in vectors is refused where
        known.
      num_classes: K.

    Returns:
      float32 ``[n, K]``.

    Raises:
      TypeError: classes not integer.
      ValueError: shapes disagree.

    Examples:
      >>> as_vectors(jnp.array([1, 0]), 2)
      Array([[0., 1.],
             [1., 0.]], dtype=float32)
    """
    present, is_label = _entries(labels, (*jnp.shape(labels)[:1], num_classes))
    return jnp.where(is_label, present.astype(jnp.float32), jnp.nan)


def _entries(labels: ArrayLike, shape: tuple[int, ...], where: Array | None = None) -> tuple[Array, Array]:
    """Which entries of vectors ``[n, K]``, or of classes ``[n]`` as such, are 1, and which are 0 or 1, both bool."""
    if jnp.ndim(labels) != 1:
        return label_vectors(labels, "labels", shape, where)
    classes = class_vector(labels, "labels", shape[1])[:, None]
    return classes == jnp.arange(shape[1], dtype=jnp.int32)[None, :], jnp.broadcast_to(classes >= 0, shape)


def _share(hits: Array, invalid: Array, counts: Array, where: ArrayLike | None) -> Array:
    """Share of hits among what counts, float32; NaN where anything that counts is not a number."""
    counts = masked(counts, mask(where, counts.shape))
    return jnp.mean(jnp.where(invalid, jnp.nan, hits.astype(jnp.float32)), where=counts)


def _sorting_key(scores: Array) -> Array:
    """Integers that sort as the scores do from high to low, NaN first, int32."""
    return jnp.where(jnp.isnan(scores), _LOWEST, ~float_order(scores.astype(jnp.float32)))
