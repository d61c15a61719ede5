"""The confident joint: how often each noisy label meets each class that a model is confident of."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import array, class_vector, floating, known
from nlx.transitions.estimate import rows_to_one

# As in cleanlab: thresholds are met within SLACK, never fall to where any probability meets them, and cannot be met
# for a class that labels no example.
SLACK = 1e-6
LOWEST = 2e-6
UNREACHABLE = 2.0

_MOST_PARTS = 16  # of the examples, a power of 2: more would lie in each other's way in a cache

# Times a difference of two probabilities that is not 0, far above any class number and far below float32's limit.
HUGE = 2.0**100


def confident_thresholds(pred_probs: ArrayLike, noisy_labels: ArrayLike) -> Array:
    r"""Mean probability that a model gives a class among the examples labelled with it.

    .. math:: t_k = \frac{1}{|\{n : \tilde y_n = k\}|} \sum_{n : \tilde y_n = k} p_{n k}

    Args:
      pred_probs: held-out p(noisy label|x), float ``[n, K]``.
      noisy_labels: observed classes in ``[0, K)``, int ``[n]``; others are left out.

    Returns:
      t, float32 ``[K]``; 2, which no probability reaches, for a class without examples.

    Raises:
      TypeError: pred_probs not floating or labels not integer.
      ValueError: shapes disagree, or an example whose label has no probability, which under a trace is left out.

    Examples:
      >>> confident_thresholds(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([0, 0]))
      Array([0.5, 2. ], dtype=float32)

    References:
      Northcutt et al., 2021, equation 2.
    """
    probs, labels, own = _checked(pred_probs, noisy_labels)
    return _thresholds(own, labels, probs.shape[1])


def confident_joint(
    pred_probs: ArrayLike, noisy_labels: ArrayLike, *, thresholds: ArrayLike | None = None, at_least: int = 1
) -> Array:
    r"""Counts of examples by noisy label and by the class that the model is confident of.

    An example is confidently of class k where :math:`p_k \ge t_k`; of several such classes the most probable class of
    all is taken, the first of equal ones, and an example without any is not counted. The counts are those of
    cleanlab's ``compute_confident_joint(..., calibrate=False)``, and so is the orientation, noisy labels in rows, which
    is a transition matrix's transposed.

    Args:
      pred_probs: held-out p(noisy label|x), float ``[n, K]``; compared as float32.
      noisy_labels: observed classes in ``[0, K)``, int ``[n]``; examples with others are left out.
      thresholds: t, float ``[K]``; None for :func:`confident_thresholds`.
      at_least: the least that stands on the diagonal; 0 for counts of a part of the examples, to be added to others'.

    Returns:
      ``counts[j, i]``: labelled j, confidently i; int32 ``[K, K]``.

    Raises:
      TypeError: pred_probs not floating or labels not integer.
      ValueError: shapes disagree, or an example whose label has no probability, which under a trace is left out.

    Examples:
      >>> probs = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1], [0.1, 0.9]])
      >>> confident_joint(probs, jnp.array([0, 0, 1, 1, 1]))
      Array([[1, 0],
             [1, 2]], dtype=int32)

    References:
      Northcutt et al., 2021, equations 1 and 2.
    """
    probs, labels, own = _checked(pred_probs, noisy_labels)
    if thresholds is not None and jnp.shape(thresholds) != probs.shape[1:]:
        raise ValueError(f"thresholds must be [K] for pred_probs {probs.shape}, got {jnp.shape(thresholds)}")
    t = _thresholds(own, labels, probs.shape[1]) if thresholds is None else jnp.asarray(thresholds, jnp.float32)
    return _count(probs, labels, t - SLACK, np.int32(at_least))


def calibrate_joint(joint: ArrayLike, noisy_labels: ArrayLike) -> Array:
    """Scale a confident joint to all examples: its rows to the numbers of examples with each noisy label.

    Args:
      joint: counts ``[K, K]``, noisy labels in rows, as :func:`confident_joint` gives them.
      noisy_labels: observed classes in ``[0, K)`` of all examples, int ``[n]``; others are left out.

    Returns:
      Expected counts, float32 ``[K, K]``; not rounded, unlike cleanlab's.

    Raises:
      TypeError: labels not integer.
      ValueError: joint not square, or labels not a vector.

    Examples:
      >>> calibrate_joint(jnp.array([[1, 0], [1, 2]]), jnp.array([0, 0, 1, 1, 1, 1]))
      Array([[2.       , 0.       ],
             [1.3333334, 2.6666667]], dtype=float32)

    References:
      Northcutt et al., 2021, equation 3.
    """
    weights = array(joint, "joint").astype(jnp.float32)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"joint must be [K, K], got shape {weights.shape}")
    labels = class_vector(noisy_labels, "noisy_labels", len(weights), unknown=len(weights))
    per_label = jnp.zeros(len(weights), jnp.int32).at[labels].add(1, mode="drop")
    return rows_to_one(weights) * per_label[:, None].astype(jnp.float32)


def from_confident_joint(joint: ArrayLike, noisy_labels: ArrayLike) -> Array:
    r"""Transition matrix that a confident joint implies, once its rows are scaled to all examples.

    .. math:: T_{ij} = \frac{Q_{ji}}{\sum_k Q_{ki}}, \qquad Q = \mathrm{calibrated\ joint}

    Args:
      joint: counts ``[K, K]``, noisy labels in rows, as :func:`confident_joint` gives them.
      noisy_labels: observed classes in ``[0, K)`` of all examples, int ``[n]``; others are left out.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``; the identity's row for a class that no example is
      confidently of.

    Raises:
      TypeError: labels not integer.
      ValueError: joint not square, or labels not a vector.

    Examples:
      >>> from_confident_joint(jnp.array([[1, 0], [1, 1]]), jnp.array([0, 0, 0, 1, 1]))
      Array([[0.75, 0.25],
             [0.  , 1.  ]], dtype=float32)

    References:
      Northcutt et al., 2021, section 3.1.
    """
    return rows_to_one(calibrate_joint(joint, noisy_labels).T)


@partial(jax.jit, static_argnames="k")
def _thresholds(own: Array, labels: Array, k: int) -> Array:
    total = jnp.zeros(k, jnp.int32).at[labels].add(1, mode="drop")
    count = jnp.maximum(total, 1).astype(jnp.float32)
    mean = jnp.zeros(k, jnp.float32).at[labels].add(own, mode="drop") / count
    # Adding a million float32 one by one loses digits; the mean of what is left over brings them back.
    rest = own - mean.at[labels].get(mode="clip")
    mean = mean + jnp.zeros(k, jnp.float32).at[labels].add(rest, mode="drop") / count
    return jnp.where(total > 0, jnp.maximum(mean, LOWEST), UNREACHABLE)


@jax.jit
def _count(probs: Array, labels: Array, thresholds: Array, at_least: ArrayLike) -> Array:
    n, k = probs.shape
    # Few classes: every class is one long vector over examples. Many: strips of a row, in blocks that stay in cache.
    lanes = 1 if k <= 32 else 32 * (-(-k // 2048))
    # A block takes as many rows of each part: where examples are spread over 2, 4, 8 or 16 devices it lies on all.
    parts = math.gcd(n, _MOST_PARTS)
    length = n // parts
    rows = length if k <= 32 else max(1, min(length, 2**21 // k // parts))

    def whole(probs: Array, thresholds: Array) -> Array:
        return _guess(probs, thresholds, lanes)

    def by_blocks(probs: Array, thresholds: Array) -> Array:
        by_part = probs.reshape(parts, length, k)

        def block(i: Array, guesses: Array) -> Array:
            # The last block begins early enough to be whole, and says the same again of the rows that it shares.
            start = jnp.minimum(i * rows, length - rows)
            taken = jax.lax.dynamic_slice(by_part, (0, start, 0), (parts, rows, k)).reshape(parts * rows, k)
            guess = _guess(taken, thresholds, lanes).reshape(parts, rows)
            return jax.lax.dynamic_update_slice(guesses, guess, (0, start))

        empty = jnp.zeros((parts, length), jnp.int32)
        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(-(-length // rows)), block, empty).reshape(n)

    if rows == length:
        guesses = whole(probs, thresholds)
    else:  # what a cache is to a CPU, accelerators have for each row
        guesses = jax.lax.platform_dependent(probs, thresholds, cpu=by_blocks, default=whole)
    counts = jnp.zeros((k, k), jnp.int32).at[labels, guesses].add(1, mode="drop")
    return jnp.where(jnp.eye(k, dtype=bool), jnp.maximum(counts, at_least), counts)


@partial(jax.jit, static_argnames="lanes")
def _guess(probs: Array, thresholds: Array, lanes: int) -> Array:
    """The class that each row is confidently of, or K for none, int32 ``[n]``.

    XLA's argmax on a CPU takes ten times as long as its max. So the row is walked strip by strip, each lane keeping
    its best class and its confident ones, and the lanes are joined by maxima of floats alone: a class number minus
    HUGE wherever it must not win.
    """
    probs = probs.astype(jnp.float32)
    k = probs.shape[1]
    lane = jnp.arange(lanes, dtype=jnp.float32)[None, :]
    # Per confident class in a lane: ONE plus the strip's number. The sum says how many there are, and which if one.
    one = 2.0 ** (k // lanes + 1).bit_length()
    # The last strip begins early enough to be whole. A class that it shares with the one before is met in two lanes,
    # under one number: the lowest and highest number tell it from two classes.
    starts = [*range(0, k - lanes + 1, lanes)] + ([k - lanes] if k % lanes else [])
    best, at, sure = jnp.full_like(probs[:, :lanes], -jnp.inf), jnp.float32(0.0), jnp.float32(0.0)
    for strip, start in enumerate(starts):
        p, t = probs[:, start : start + lanes], thresholds[None, start : start + lanes]
        at = jnp.where(p > best, start, at)
        best = jnp.maximum(p, best)
        sure = sure + jnp.where(p >= t, one + strip, 0.0)
    gap = (best - jnp.max(best, axis=1, keepdims=True)) * HUGE
    likeliest = -jnp.max(gap - (at + lane), axis=1)
    single = jnp.minimum((sure - one) * lanes, k - lanes) + lane
    none = jnp.minimum((sure - one) * HUGE, 0.0)
    first, last = -jnp.max(none - single, axis=1), jnp.max(none + single, axis=1)
    most = jnp.max(sure, axis=1)
    several = (most >= 2.0 * one) | (first < last)
    return jnp.where(most == 0.0, k, jnp.where(several, likeliest, first)).astype(jnp.int32)


def _checked(pred_probs: ArrayLike, noisy_labels: ArrayLike) -> tuple[Array, Array, Array]:
    probs, shape = floating(pred_probs, "pred_probs"), jnp.shape(noisy_labels)
    if probs.ndim != 2 or shape != probs.shape[:1]:
        raise ValueError(f"pred_probs {probs.shape} must be [n, K] and noisy_labels {shape} [n]")
    if probs.shape[0] < 1 or probs.shape[1] < 2:
        raise ValueError(f"pred_probs must have examples and at least two classes, got shape {probs.shape}")
    labels = class_vector(noisy_labels, "noisy_labels", probs.shape[1], unknown=probs.shape[1])
    labels, own, row = _of_probabilities(probs, labels)
    bad = known(row)
    if bad is not None and bad >= 0:
        raise ValueError(f"pred_probs row {bad} gives its label no probability: each must lie in [0, 1]")
    return probs, labels, own


@jax.jit
def _of_probabilities(probs: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Labels that have a probability, K for others, which ``mode="drop"`` leaves out (-1 would count from the end).

    With these probabilities, float32, and the first row that lacks one, -1 if there is none. Logits and gaps are seen
    by an example's own class already.
    """
    n, k = probs.shape
    own = probs.at[jnp.arange(n), labels].get(mode="clip").astype(jnp.float32)
    bad = (labels < k) & ~((own >= -0.01) & (own <= 1.01))
    return jnp.where(bad, k, labels), jnp.where(bad, 0.0, own), jnp.where(jnp.any(bad), jnp.argmax(bad), -1)
