"""Exact posteriors over what an example's labels hide: its true class and the kind of noise that changed it."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_labels, distributions, floating, varying, working

_NEAR = 40.0  # nats; sums stay above exp(-40) / K, and what float32 loses lies below exp(-87)
_IMPOSSIBLE = -1e6  # nats; for a label of probability 0, as in the losses


class NoiseTypes(NamedTuple):
    """Beliefs about examples, given their inputs and noisy labels.

    Attributes:
      label: q(y), the true class, float ``[B, K]``; rows sum to 1.
      kind: q(z), no noise, random noise and confusing noise in this order, float ``[B, 3]``; rows sum to 1.
      log_evidence: log p(noisy label given x) in nats, float ``[B]``.
    """

    label: Array
    kind: Array
    log_evidence: Array


def noise_types(
    logits_y: ArrayLike,
    logits_z: ArrayLike,
    noisy_labels: ArrayLike,
    confusing: ArrayLike,
    *,
    rows_at_once: int | None = None,
) -> NoiseTypes:
    r"""Posterior of the true class y and the noise type z, given an input and its noisy label j.

    .. math::
        p(y, z \mid j, x) \propto p(y \mid x)\, p(z \mid x) \cdot \begin{cases}
        [y = j] & z = \text{none} \\ [y \ne j] / (K - 1) & z = \text{random} \\
        T_{yj} & z = \text{confusing} \end{cases}

    Only column j of T matters to an example, so that the marginals cost O(K) and no array is larger than ``[B, K]``.
    It is right also where all but one of the probabilities underflow: in log space, unless on a CPU the noise types of
    all examples are within 40 nats of each other, where nothing that counts can underflow.

    Args:
      logits_y: unnormalized log p(y|x), float ``[B, K]``; log-probabilities will do.
      logits_z: unnormalized log p(z|x), for none, random and confusing noise, float ``[B, 3]``.
      noisy_labels: observed classes in ``[0, K)``, int ``[B]``; beliefs about examples with others are NaN.
      confusing: ``T[i, j] = p(noisy = j | true = i, confusing noise)``, float ``[K, K]``; the diagonal is taken as 0,
        rows sum to 1.
      rows_at_once: work on so many rows at a time. Fewer than B saves memory, and time on a CPU where ``[B, K]`` is
        much larger than its caches; for arrays that live on one device. None for all rows at once.

    Returns:
      q(y), q(z) and the log-evidence, in float32, or float64 where logits are. A label of probability 0 tells nothing:
      beliefs are p(y|x) and p(z|x) then, and its log-evidence is -1e6.

    Raises:
      TypeError: logits or T not floating, or labels not integer.
      ValueError: shapes disagree, K < 2, rows_at_once < 1, or a known row of T does not sum to 1.

    Examples:
      >>> confusing = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
      >>> q = noise_types(jnp.array([[2.0, 0.0, 0.0]]), jnp.zeros((1, 3)), jnp.array([1]), confusing)
      >>> print(q.label.round(2), q.kind.round(2))
      [[0.82 0.07 0.11]] [[0.07 0.31 0.62]]

    References:
      Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015, Eq. 5.
    """
    logits_y, logits_z = floating(logits_y, "logits_y"), floating(logits_z, "logits_z")
    matrix = floating(confusing, "confusing")
    k = _checked_shapes(logits_y, logits_z, jnp.shape(noisy_labels), matrix)
    distributions(confusing, "confusing", diagonal=False)
    labels = class_labels(noisy_labels, "noisy_labels", k)
    if rows_at_once is not None:
        at_least(1, rows_at_once=rows_at_once)
    dtype = working(logits_y, logits_z)
    return _noise_types(logits_y.astype(dtype), logits_z.astype(dtype), labels, matrix.astype(dtype), rows_at_once)


@functools.partial(jax.jit, static_argnames="rows_at_once")
def _noise_types(
    logits_y: Array, logits_z: Array, labels: Array, confusing: Array, rows_at_once: int | None
) -> NoiseTypes:
    # A column of T is a row of its transpose, which is contiguous.
    columns, size = confusing.T, len(labels)
    # On a CPU arithmetic counts; elsewhere a branch costs more than it saves.
    one_block = functools.partial(jax.lax.platform_dependent, cpu=_with_a_shortcut, default=_everywhere)
    if rows_at_once is None or rows_at_once >= size:
        whole: NoiseTypes = one_block(logits_y, logits_z, labels, columns)
        return whole
    rows = rows_at_once

    def block(i: Array, done: NoiseTypes) -> NoiseTypes:
        # The last block starts early where rows do not divide B, and does some of them a second time.
        start = jnp.minimum(i * rows, size - rows)
        y, z, noisy = (jax.lax.dynamic_slice_in_dim(x, start, rows) for x in (logits_y, logits_z, labels))
        pairs = zip(done, one_block(y, z, noisy, columns), strict=True)
        return NoiseTypes(*(jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0) for whole, part in pairs))

    empty = (jnp.zeros_like(x) for x in (logits_y, logits_z, logits_z[:, 0]))
    start = NoiseTypes(*(varying(x, logits_y, logits_z, labels, columns) for x in empty))
    return jax.lax.fori_loop(0, -(-size // rows), block, start)


def _with_a_shortcut(logits_y: Array, logits_z: Array, labels: Array, columns: Array) -> NoiseTypes:
    apart = jnp.max(logits_z, axis=1) - jnp.min(logits_z, axis=1)
    # Written so that infinities, whose differences are not numbers, do not take the shortcut.
    near = jnp.all(apart <= _NEAR)
    return jax.lax.cond(near, _where_kinds_are_near, _everywhere, logits_y, logits_z, labels, columns)


def _where_kinds_are_near(logits_y: Array, logits_z: Array, labels: Array, columns: Array) -> NoiseTypes:
    """The posterior where p(z|x) of one kind is at most exp(_NEAR) times another's: what underflows is nothing then.

    One maximum and one exponential a class; everything else is a number an example.
    """
    k = logits_y.shape[1]
    own = jax.lax.broadcasted_iota(labels.dtype, logits_y.shape, 1) == labels[:, None]
    kept = jnp.take_along_axis(logits_y, labels[:, None], axis=1, mode="clip")[:, 0]
    others = jnp.where(own, -jnp.inf, logits_y)
    best = jnp.maximum(jnp.max(others, axis=1), jnp.finfo(logits_y.dtype).min)
    others = jnp.exp(others - best[:, None])
    confused = others * jnp.take(columns, labels, axis=0, mode="clip")
    sum_others, sum_confused = jnp.sum(others, axis=1), jnp.sum(confused, axis=1)
    # The label's own class and the others, over the likelier of the two.
    share, other = jnp.exp(jnp.minimum(kept - best, 0)), jnp.exp(jnp.minimum(best - kept, 0))
    top_kind = jnp.max(logits_z, axis=1)
    none, random, confusing = (jnp.exp(logits_z[:, i] - top_kind) for i in range(3))
    per_other, per_confused = random * other / (k - 1), confusing * other
    joint = (none * share, per_other * sum_others, per_confused * sum_confused)
    total = joint[0] + joint[1] + joint[2]
    q = [part / total for part in joint]
    label = others * (per_other / total)[:, None] + confused * (per_confused / total)[:, None]
    label = jnp.where(own, q[0][:, None], label)
    evidence = jnp.log(total / ((share + other * sum_others) * (none + random + confusing)))
    return _of_classes(labels, NoiseTypes(label, jnp.stack(q, axis=1), evidence))


def _everywhere(logits_y: Array, logits_z: Array, labels: Array, columns: Array) -> NoiseTypes:
    k = logits_y.shape[1]
    lowest = jnp.finfo(logits_y.dtype).min
    own = jax.lax.broadcasted_iota(labels.dtype, logits_y.shape, 1) == labels[:, None]
    kept = jnp.take_along_axis(logits_y, labels[:, None], axis=1, mode="clip")[:, 0]
    # Logits may be large, and only their differences count: everything is measured from the best of the other classes,
    # and noise types from that of the likeliest part, before anything is added up, so as to keep its digits.
    others = jnp.where(own, -jnp.inf, logits_y)
    best = jnp.maximum(jnp.max(others, axis=1), lowest)
    others = others - best[:, None]
    # Each kind of noise explains the label by classes of its own, whose logits may lie far apart: a maximum for each.
    confused = others + jnp.take(jnp.log(columns), labels, axis=0, mode="clip")
    top_confused = jnp.maximum(jnp.max(confused, axis=1), lowest)  # lowest: nothing is ever taken for this label
    others, confused = jnp.exp(others), jnp.exp(confused - top_confused[:, None])
    sum_others, sum_confused = jnp.sum(others, axis=1), jnp.sum(confused, axis=1)

    # log p(y, z, label | x) of each kind is top + log_sum + kind, up to what all three share.
    tops = (kept - best, jnp.zeros_like(best), top_confused)
    log_sums = (jnp.zeros_like(kept), jnp.log(sum_others) - math.log(k - 1), jnp.log(sum_confused))
    kinds = (logits_z[:, 0], logits_z[:, 1], logits_z[:, 2])
    rough = [top + log_sum + kind for top, log_sum, kind in zip(tops, log_sums, kinds, strict=True)]
    first, second = rough[0] >= jnp.maximum(rough[1], rough[2]), rough[1] >= rough[2]
    top_here, kind_here = (jnp.where(first, x[0], jnp.where(second, x[1], x[2])) for x in (tops, kinds))
    # The likeliest part's is between 1 / (K - 1) and K, so that these neither overflow nor all vanish.
    joint = [
        jnp.exp((top - top_here) + (kind - kind_here) + log_sum)
        for top, log_sum, kind in zip(tops, log_sums, kinds, strict=True)
    ]
    total = joint[0] + joint[1] + joint[2]
    q_none, q_random, q_confusing = (part / total for part in joint)
    top_class, top_kind = jnp.maximum(tops[0], 0), jnp.maximum(jnp.maximum(kinds[0], kinds[1]), kinds[2])
    of_label, of_others = jnp.exp(tops[0] - top_class), jnp.exp(-top_class)
    all_classes = of_label + sum_others * of_others
    each_kind = [jnp.exp(kind - top_kind) for kind in kinds]
    all_kinds = each_kind[0] + each_kind[1] + each_kind[2]
    # A sum is at least 1, or 0 with a q of 0. A tiny number in its place would not do: XLA makes (a / b) / c into
    # a / (b c), and b c would underflow to 0.
    per_other = (q_random / jnp.where(sum_others > 0, sum_others, 1.0))[:, None]
    per_confused = (q_confusing / jnp.where(sum_confused > 0, sum_confused, 1.0))[:, None]
    # Where nothing explains the label the prior is all there is, class by class a multiple of what is at hand.
    impossible = jnp.maximum(jnp.maximum(rough[0], rough[1]), rough[2]) == -jnp.inf
    q_none = jnp.where(impossible, of_label / all_classes, q_none)
    per_other = jnp.where(impossible, of_others / all_classes, per_other[:, 0])[:, None]
    per_confused = jnp.where(impossible[:, None], 0.0, per_confused)
    label = jnp.where(own, q_none[:, None], others * per_other + confused * per_confused)
    kind = [jnp.where(impossible, p / all_kinds, q / total) for p, q in zip(each_kind, joint, strict=True)]
    # One logarithm of a quotient is cheaper than three.
    evidence = jnp.log(total / (all_classes * all_kinds)) + (top_here - top_class) + (kind_here - top_kind)
    evidence = jnp.where(impossible, _IMPOSSIBLE, evidence)
    return _of_classes(labels, NoiseTypes(label, jnp.stack(kind, axis=1), evidence))


def _of_classes(labels: Array, beliefs: NoiseTypes) -> NoiseTypes:
    """NaN where a label is no class; written with the beliefs, not after them."""
    known = labels >= 0
    label, kind = (jnp.where(known[:, None], x, jnp.nan) for x in beliefs[:2])
    return NoiseTypes(label, kind, jnp.where(known, beliefs.log_evidence, jnp.nan))


def _checked_shapes(logits_y: Array, logits_z: Array, labels: tuple[int, ...], confusing: Array) -> int:
    if logits_y.ndim != 2 or logits_y.shape[1] < 2:
        raise ValueError(f"logits_y must be [B, K] with at least 2 classes, got {logits_y.shape}")
    size, k = logits_y.shape
    for name, given, shape in (
        ("logits_z", logits_z.shape, (size, 3)),
        ("noisy_labels", labels, (size,)),
        ("confusing", confusing.shape, (k, k)),
    ):
        if given != shape:
            raise ValueError(f"{name} must be {shape} beside logits_y {logits_y.shape}, got {given}")
    return k
