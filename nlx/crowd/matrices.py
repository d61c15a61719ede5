"""Dawid-Skene: a confusion matrix for each annotator, which leans on what its group shares."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import class_labels, floating, in_range
from nlx.crowd.em import SKILL, Consensus, Known, Model, count, em, equally_right, prepared
from nlx.crowd.sums import Sizes, Sums

_STRENGTHS = (1.0, 1000.0)  # of the pull towards what annotators share, as answers a row


def dawid_skene(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_items: int,
    num_annotators: int,
    num_classes: int,
    smoothing: float = 0.01,
    strength: float | None = None,
    groups: ArrayLike | None = None,
    log_prior: ArrayLike | None = None,
    trusted: ArrayLike | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Consensus:
    r"""Dawid-Skene: a confusion matrix for each annotator, which leans on the one that its group shares.

    .. math::
        q_n(i) \propto \pi_i \prod_{(a, j) \in n} T^a_{ij}, \qquad
        T^a_{ij} = \frac{n^a_{ij} + \kappa m_{ij} + s}{\sum_j n^a_{ij} + \kappa + K s}, \qquad
        n^a_{ij} = \sum_{n : a \text{ says } j} q_n(i)

    with m the group's counts over their sums. The more annotators of a group differ in how often they are right, the
    smaller :math:`\kappa`: the reciprocal of their intraclass correlation, less 1. Who has answered three times is
    then much like the others, and who has answered a thousand times like nobody else. Items with a single answer do
    not count in matrices and class prior, unless they are trusted or have a prior of their own. With strength 0 they
    do: it is the original with Dirichlet priors. EM starts as if seven in ten answers of every annotator were right.

    Args:
      items: which item an answer is about, in ``[0, N)``, int ``[M]``; others do not count.
      annotators: who answers, in ``[0, A)``, int ``[M]``; likewise.
      labels: the answers, in ``[0, K)``, int ``[M]``; likewise, so that -1 is an abstention.
      num_items: N.
      num_annotators: A.
      num_classes: K.
      smoothing: s, answers added to every entry, at least 0.
      strength: :math:`\kappa`, at least 0, answers a row that stand for what the group shares; None for the most
        fitting one, from 1 to 1000.
      groups: the group of each annotator, in ``[0, A)``, int ``[A]``; None for one group. Who is of none leans on
        nobody.
      log_prior: unnormalized log p(true class) of each item, such as a classifier's logits, float ``[N, K]``; None for
        one class prior, learnt.
      trusted: true classes where they are known, int ``[N]``, -1 elsewhere.
      iterations: of EM, at most.
      tolerance: EM ends where no probability changes by more.

    Returns:
      Beliefs about items and annotators, float32.

    Raises:
      TypeError: numbers not integers, or log_prior not floating.
      ValueError: shapes disagree, or an argument is out of its range.

    Examples:
      >>> items, annotators = jnp.array([0, 0, 0, 1, 1, 1]), jnp.array([0, 1, 2, 0, 1, 2])
      >>> answers = jnp.array([0, 0, 1, 1, 1, 1])
      >>> c = dawid_skene(items, annotators, answers, num_items=2, num_annotators=3, num_classes=2)
      >>> c.posterior.argmax(axis=1)
      Array([0, 1], dtype=int32)

    References:
      Dawid and Skene, 1979; Ridout et al., 1999, equation 2 (the intraclass correlation).
    """
    sizes, sums, known = prepared(
        items, annotators, labels, num_items, num_annotators, num_classes, log_prior, trusted, iterations
    )
    in_range(tolerance, "tolerance", 0)
    lean = lean_of(smoothing, strength, groups, num_annotators)
    known = known._replace(telling=None) if strength == 0 else known
    return _dawid_skene(sums, sizes, known, lean, jnp.int32(iterations), jnp.float32(tolerance))


def annotator_confusion(
    posterior: ArrayLike,
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_annotators: int,
    smoothing: float = 0.01,
    strength: float | None = None,
    groups: ArrayLike | None = None,
) -> Array:
    """The confusion matrices that fit beliefs about items, wherever these come from: Dawid-Skene's M step alone.

    Args:
      posterior: p(true class), float ``[N, K]``, K at least 2.
      items: as in :func:`dawid_skene`, and so are the others.
      annotators: likewise.
      labels: likewise.
      num_annotators: A.
      smoothing: answers added to every entry.
      strength: of the pull towards what the group shares.
      groups: the group of each annotator.

    Returns:
      ``T[a, i, j]``, float32 ``[A, K, K]``.

    Raises:
      TypeError, ValueError: as there.
    """
    belief = floating(posterior, "posterior").astype(jnp.float32)
    if belief.ndim != 2:
        raise ValueError(f"posterior must be [N, K], got {belief.shape}")
    sizes, sums, _ = prepared(
        items, annotators, labels, belief.shape[0], num_annotators, belief.shape[1], None, None, 1
    )
    return leaning(count(sums, sizes, belief), *lean_of(smoothing, strength, groups, num_annotators))


def lean_of(
    smoothing: float, strength: float | None, groups: ArrayLike | None, num_annotators: int
) -> tuple[Array, Array, Array | None]:
    """Group, smoothing and strength, checked."""
    in_range(smoothing, "smoothing", 0)
    in_range(0.0 if strength is None else strength, "strength", 0)
    group = jnp.zeros(num_annotators, jnp.int32) if groups is None else class_labels(groups, "groups", num_annotators)
    if group.shape != (num_annotators,):
        raise ValueError(f"groups must be ({num_annotators},), one an annotator, got {group.shape}")
    return group, jnp.float32(smoothing), None if strength is None else jnp.float32(strength)


@partial(jax.jit, static_argnames="sizes")
def _dawid_skene(
    sums: Sums,
    sizes: Sizes,
    known: Known,
    lean: tuple[Array, Array, Array | None],
    iterations: Array,
    tolerance: Array,
) -> Consensus:
    model = Model(equally_right(sizes), lambda _, counts: leaning(counts, *lean), lambda confusion: confusion)
    return em(sums, sizes, known, model, iterations, tolerance)


@jax.jit
def leaning(counts: Array, group: Array, smoothing: Array, strength: Array | None) -> Array:
    """Confusion matrices of counts ``[A, K, K]``, each leaning on its group's; see :func:`dawid_skene`."""
    weights = leaning_weights(counts, group, smoothing, strength)
    total = jnp.sum(weights, axis=2, keepdims=True)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 1 / counts.shape[1])


@jax.jit
def leaning_weights(counts: Array, group: Array, smoothing: Array, strength: Array | None) -> Array:
    """The same before rows are made to sum to 1: counted answers and those that stand for what is shared."""
    a, k, _ = counts.shape
    where = jnp.where(group >= 0, group, a)
    pooled = jax.ops.segment_sum(counts, where, a)
    if strength is None:
        strength = _fitting(counts, pooled, where)[group]
    # One answer a row, as if nothing were known, for classes that the group has never seen.
    pooled = pooled + (SKILL * jnp.eye(k, dtype=counts.dtype) + (1 - SKILL) / k)[None]
    shared = (pooled / jnp.sum(pooled, axis=2, keepdims=True))[group]
    pull = jnp.where(group >= 0, strength, 0.0)[:, None, None]
    return counts + pull * shared + smoothing


def _fitting(counts: Array, pooled: Array, group: Array) -> Array:
    """For each group the strength that fits how much its annotators differ in being right, ``[A]``."""
    a = len(counts)
    answers, right = jnp.sum(counts, axis=2), jnp.diagonal(counts, axis1=1, axis2=2)
    all_answers, all_right = jnp.sum(pooled, axis=2), jnp.diagonal(pooled, axis1=1, axis2=2)
    mean = all_right / jnp.maximum(all_answers, 1e-9)
    add = partial(jax.ops.segment_sum, segment_ids=group, num_segments=a)
    # Between annotators, in units of what a coin of the group's mean would give.
    between = add((right - answers * mean[group]) ** 2 / jnp.maximum(answers, 1e-9))
    coin, people = mean * (1 - mean), add(jnp.minimum(answers, 1.0)) - 1
    room = all_answers - add(answers**2) / jnp.maximum(all_answers, 1e-9) - people
    correlation = jnp.sum(between - people * coin, axis=1) / jnp.maximum(jnp.sum(coin * room, axis=1), 1e-9)
    low, high = _STRENGTHS
    return 1 / jnp.clip(correlation, 1 / (1 + high), 1 / (1 + low)) - 1
