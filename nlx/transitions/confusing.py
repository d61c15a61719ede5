"""The matrix of confusing noise in closed form, from examples whose true label is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_vector, distributions, floating, mask, same_shape

NONE, RANDOM, CONFUSING = 0, 1, 2
"""Noise types, in the order in which everything counts them."""

_SAME = 1e-6  # nats per mislabelled example; what float32 cannot tell apart is a tie


class Confusing(NamedTuple):
    """What examples with a true and a noisy label say about confusing noise.

    Attributes:
      transition: ``T[i, j] = p(noisy = j | true = i, confusing noise)``, zero diagonal, rows sum to 1, float32
        ``[K, K]``.
      kind: noise type of each example, 0 none, 1 random, 2 confusing, -1 where it does not count, int32 ``[n]``.
      counts: how often true i came out as noisy j, int32 ``[K, K]``; a class whose row is empty was not seen.
    """

    transition: Array
    kind: Array
    counts: Array


def estimate_confusing(
    true_labels: ArrayLike, noisy_labels: ArrayLike, num_classes: int, *, where: ArrayLike | None = None
) -> Confusing:
    r"""Choose the matrix of confusing noise and the noise types together, so that both explain the noisy labels best.

    A class is confused with the k classes that it is most often taken for, in proportion; its other mistakes are
    random. For every class, of all k the one is taken that maximizes

    .. math:: E(k) = \sum_{i \le k} m_i \ln \frac{m_i}{\sum_{l \le k} m_l} - \sum_{i > k} m_i \ln (K - 1)

    where :math:`m_1 \ge m_2 \ge \dots` count the class's mistakes. Of equal E the smallest k is taken, of equal counts
    the lower class; a class that is never mislabelled has a uniform row, which makes no mistake a confusion. With fewer
    than six classes more than one confusion never pays.

    Args:
      true_labels: classes in ``[0, K)``, int ``[n]``; examples with others do not count.
      noisy_labels: classes in ``[0, K)``, int ``[n]``; likewise.
      num_classes: K, at least 2.
      where: examples that count, bool ``[n]``; the labels of others may be anything.

    Returns:
      The matrix, the examples' noise types and the counts they come from.

    Raises:
      TypeError: labels not integer.
      ValueError: shapes disagree or num_classes < 2.

    Examples:
      >>> true, noisy = jnp.array([0, 0, 0, 0, 1, 2]), jnp.array([0, 1, 1, 2, 0, 2])
      >>> estimate = estimate_confusing(true, noisy, 3)
      >>> print(estimate.transition, estimate.kind)
      [[0.  1.  0. ]
       [1.  0.  0. ]
       [0.5 0.5 0. ]] [0 2 2 1 2 0]

    References:
      Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015, Eq. 8 to 14.
    """
    at_least(2, num_classes=num_classes)
    true, noisy, usable = _pairs(true_labels, noisy_labels, num_classes)
    if (counted := mask(where, true.shape)) is not None:
        usable &= counted
    k = num_classes
    # A row number of K is out of bounds and dropped; -1 would be the last row.
    counts = jnp.zeros((k, k), jnp.int32).at[jnp.where(usable, true, k), noisy].add(1, mode="drop")
    transition = _closed_form(jnp.where(jnp.eye(k, dtype=bool), 0, counts))
    return Confusing(transition, jnp.where(usable, noise_kinds(true, noisy, transition), -1), counts)


def noise_kinds(true_labels: ArrayLike, noisy_labels: ArrayLike, confusing: ArrayLike) -> Array:
    """Noise type of examples whose true label is known.

    Args:
      true_labels: classes in ``[0, K)``, int ``[n]``.
      noisy_labels: classes in ``[0, K)``, int ``[n]``.
      confusing: matrix of confusing noise, float ``[K, K]``, see :func:`estimate_confusing`.

    Returns:
      0 where the labels agree, 2 where confusing noise explains the noisy label better than random noise does (an entry
      above 1 / (K - 1)), 1 elsewhere, -1 where a label is no class; int32 ``[n]``.

    Examples:
      >>> print(noise_kinds(jnp.array([0, 0, 0]), jnp.array([0, 1, 2]), jnp.array([[0, 0.9, 0.1]] * 3)))
      [0 2 1]

    References:
      Xiao et al., Theorem 2.
    """
    t = floating(confusing, "confusing")
    if t.ndim != 2 or t.shape[0] != t.shape[1] or len(t) < 2:
        raise ValueError(f"confusing must be [K, K] with K of at least 2, got shape {t.shape}")
    distributions(confusing, "confusing", diagonal=False)
    true, noisy, usable = _pairs(true_labels, noisy_labels, len(t))
    mistake = jnp.where(t[true, noisy] > jnp.asarray(1 / (len(t) - 1), t.dtype), CONFUSING, RANDOM)
    return jnp.where(usable, jnp.where(true == noisy, NONE, mistake), -1).astype(jnp.int32)


def _pairs(true_labels: ArrayLike, noisy_labels: ArrayLike, k: int) -> tuple[Array, Array, Array]:
    """Both labels, and which examples have two that are classes."""
    true, noisy = class_vector(true_labels, "true_labels", k), class_vector(noisy_labels, "noisy_labels", k)
    same_shape("true_labels", true.shape, "noisy_labels", noisy.shape)
    return true, noisy, (true >= 0) & (noisy >= 0)


def _closed_form(mistakes: Array) -> Array:
    """Eq. 14 for the best k of every row; int ``[K, K]`` with a zero diagonal to float32 ``[K, K]``."""
    k = mistakes.shape[0]
    order = jnp.argsort(-mistakes, axis=1, stable=True)
    m = jnp.take_along_axis(mistakes, order, axis=1)
    total = jnp.maximum(jnp.sum(m, axis=1, keepdims=True), 1).astype(jnp.float32)
    # Sums are taken of integers, which is exact, and then made shares of the row, so that E does not grow with n.
    kept = jnp.cumsum(m, axis=1).astype(jnp.float32) / total
    share = m.astype(jnp.float32) / total
    objective = jnp.cumsum(_x_log_x(share), axis=1) - _x_log_x(kept) - (1 - kept) * math.log(k - 1)
    # Classes that were never taken for this one add nothing to E, and must not win by a rounding error.
    objective = jnp.where(m > 0, objective, -jnp.inf)
    best = jnp.argmax(objective >= jnp.max(objective, axis=1, keepdims=True) - _SAME, axis=1)[:, None]
    # m / sum of m in one division: an entry of exactly 1 / (K - 1) must compare equal to it.
    sums = jnp.take_along_axis(jnp.cumsum(m, axis=1), best, axis=1)
    rank = jnp.arange(k)[None, :]
    chosen = jnp.where(rank <= best, m, 0).astype(jnp.float32) / jnp.maximum(sums, 1).astype(jnp.float32)
    rows = jnp.put_along_axis(jnp.zeros_like(chosen), order, chosen, axis=1, inplace=False)
    uniform = (1 - jnp.eye(k, dtype=jnp.float32)) / (k - 1)
    return jnp.where(jnp.any(m > 0, axis=1, keepdims=True), rows, uniform)


def _x_log_x(x: Array) -> Array:
    return x * jnp.log(jnp.where(x > 0, x, 1.0))
