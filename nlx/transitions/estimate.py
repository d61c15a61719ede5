"""Transition matrices from data: from trusted pairs of labels, and from the most confident examples of a classifier."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from nlx.arguments import class_vector, distributions, floating, in_range, mask


def from_pairs(
    true_labels: ArrayLike,
    noisy_labels: ArrayLike,
    num_classes: int,
    *,
    smoothing: float = 0.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Transition matrix from examples whose true label is known beside the noisy one.

    .. math:: T_{ij} = \frac{n_{ij} + s}{\sum_k n_{ik} + K s}

    Args:
      true_labels: trusted classes in ``[0, K)``, int ``[n]``; examples with others are left out.
      noisy_labels: observed classes in ``[0, K)``, int ``[n]``; likewise.
      num_classes: K.
      smoothing: s, examples added to every entry, at least 0; pulls rows with few examples towards uniform.
      where: examples that count, bool ``[n]``.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``. A class without any example, with no smoothing, gets
      the identity's row: nothing is known against its labels.

    Raises:
      TypeError: labels are not integers.
      ValueError: labels are not vectors of the same length, or smoothing is negative.

    Examples:
      >>> from_pairs(jnp.array([0, 0, 0, 0, 2]), jnp.array([0, 0, 0, 1, 0]), 3)
      Array([[0.75, 0.25, 0.  ],
             [0.  , 1.  , 0.  ],
             [1.  , 0.  , 0.  ]], dtype=float32)
    """
    in_range(smoothing, "smoothing", 0)
    counts = _counts(true_labels, noisy_labels, num_classes, where)
    return rows_to_one(counts.astype(jnp.float32) + smoothing)


def from_few_pairs(
    true_labels: ArrayLike, noisy_labels: ArrayLike, num_classes: int, *, where: ArrayLike | None = None
) -> Array:
    r"""Transition matrix from a few examples a class whose true label is known: rows lean on what all classes share.

    .. math:: T_{ij} = \frac{n_{ij} + \kappa m_{ij}}{\sum_k n_{ik} + \kappa}, \qquad
       m_{ij} = (1 - r)\,[i = j] + r\,\frac{b_j}{\sum_{k \ne i} b_k}\,[i \ne j]

    with r the share of wrong labels over all classes and b how often each class is the wrong one. The strength
    :math:`\kappa` is the most likely one under rows drawn from a Dirichlet with parameters :math:`\kappa m_i`
    (empirical Bayes): high where classes err alike, 1 where each errs in its own way.

    Args:
      true_labels: trusted classes in ``[0, K)``, int ``[n]``; examples with others are left out.
      noisy_labels: observed classes in ``[0, K)``, int ``[n]``; likewise.
      num_classes: K.
      where: examples that count, bool ``[n]``.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``; from no wrong label at all the identity.

    Raises:
      TypeError: labels are not integers.
      ValueError: labels are not vectors of the same length.

    Examples:
      >>> true, noisy = jnp.array([0, 0, 0, 1, 1, 1, 2, 2, 2]), jnp.array([0, 0, 1, 1, 1, 1, 2, 2, 1])
      >>> print(from_few_pairs(true, noisy, 3).round(2))
      [[0.78 0.17 0.06]
       [0.11 0.78 0.11]
       [0.06 0.17 0.78]]

    References:
      Minka, 2000, Estimating a Dirichlet distribution (the likelihood of :math:`\kappa`).
    """
    return _leaning(_counts(true_labels, noisy_labels, num_classes, where))


def from_anchors(pred_probs: ArrayLike, *, quantile: float = 1.0) -> Array:
    r"""Transition matrix from a classifier trained on noisy labels alone, read off its most confident examples.

    .. math:: T_{ij} = p(\tilde y = j \mid \bar x^i), \qquad \bar x^i = \operatorname{argmax}_x p(\tilde y = i \mid x)

    An example that is surely of class i shows how class i is labelled, provided that the classifier is calibrated and
    that there is such an example for every class.

    Args:
      pred_probs: p(noisy label|x), best of held-out examples, float ``[n, K]``.
      quantile: of each class's scores, where its anchor is taken, in (0, 1]; below 1 it passes over outliers (0.97 in
        the paper's experiments with 10 classes). A class rarer than 1 - quantile then gets an anchor of another class.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``.

    Raises:
      TypeError: pred_probs not floating.
      ValueError: pred_probs not ``[n, K]`` with n of at least 1, an anchor's row, if it is known before tracing, no
        distribution, or quantile outside (0, 1].

    Examples:
      >>> from_anchors(jnp.array([[0.75, 0.25], [0.5, 0.5], [0.375, 0.625]]))
      Array([[0.75 , 0.25 ],
             [0.375, 0.625]], dtype=float32)

    References:
      Patrini et al., 2017, section 4.2 and equations 12 and 13.
    """
    probs = floating(pred_probs, "pred_probs")
    if probs.ndim != 2 or probs.shape[0] < 1:
        raise ValueError(f"pred_probs must be [n, K] with n of at least 1, got shape {probs.shape}")
    in_range(quantile, "quantile", 0, 1, above=True)
    rank = int(quantile * (probs.shape[0] - 1))
    anchors = jnp.argmax(probs, axis=0) if rank == probs.shape[0] - 1 else _ranked(probs, rank)
    rows = probs[anchors].astype(jnp.float32)
    distributions(rows, "pred_probs at the anchors,")
    return rows_to_one(rows)


@partial(jax.jit, static_argnames="rank")
def _ranked(probs: Array, rank: int) -> Array:
    """The row that holds each column's value of a rank, int32 ``[K]``."""
    return jax.lax.map(lambda column: jnp.argsort(column)[rank], probs.T)


def rows_to_one(weights: Array) -> Array:
    """Rows over their sums, float ``[K, K]``; a row of zeros becomes the identity's."""
    total = jnp.sum(weights, axis=1, keepdims=True)
    eye = jnp.eye(weights.shape[0], dtype=weights.dtype)
    return jnp.where(total == 0, eye, weights / jnp.where(total == 0, 1.0, total))


@jax.jit
def _leaning(counts: Array) -> Array:
    """Counts ``[K, K]`` to rows that lean on what all classes share, as far as is most likely."""
    counts = counts.astype(jnp.float32)
    eye = jnp.eye(counts.shape[0], dtype=bool)
    wrong = jnp.where(eye, 0.0, counts)
    rate = jnp.sum(wrong) / jnp.maximum(jnp.sum(counts), 1.0)
    others = jnp.where(eye, 0.0, jnp.sum(wrong, axis=0)[None, :] + 1.0)
    shared = jnp.where(eye, 1.0 - rate, rate * others / jnp.maximum(jnp.sum(others, axis=1, keepdims=True), 1.0))
    total = jnp.sum(counts, axis=1)

    def likelihood(strength: Array) -> Array:
        # What is shared is 0 only where no label, or every one, is wrong: nothing is counted there.
        alpha = jnp.where(shared > 0, strength * shared, 1.0)
        cells = jnp.where(shared > 0, gammaln(alpha + counts) - gammaln(alpha), 0.0)
        return jnp.sum(gammaln(strength) - gammaln(strength + total)) + jnp.sum(cells)

    strengths = 2.0 ** jnp.arange(13, dtype=jnp.float32)
    strength = strengths[jnp.argmax(jax.lax.map(likelihood, strengths))]
    return (counts + strength * shared) / (total + strength)[:, None]


def _counts(true_labels: ArrayLike, noisy_labels: ArrayLike, num_classes: int, where: ArrayLike | None) -> Array:
    """``n[i, j]``, examples of true class i labelled j, int32 ``[K, K]``."""
    # A row or column number of K is out of bounds and dropped; -1 would be the last.
    true, noisy = (
        class_vector(x, name, num_classes, unknown=num_classes)
        for x, name in ((true_labels, "true_labels"), (noisy_labels, "noisy_labels"))
    )
    if true.shape != noisy.shape:
        raise ValueError(f"labels {true.shape} and {noisy.shape} must be vectors of the same length")
    counted = mask(where, true.shape)
    seen = jnp.ones(true.shape, jnp.int32) if counted is None else counted.astype(jnp.int32)
    # Whole numbers until the division: float32 stops counting at 2^24.
    return jnp.zeros((num_classes, num_classes), jnp.int32).at[true, noisy].add(seen, mode="drop")
