"""Self-learning with prototypes: labels corrected after each epoch by resemblance to the densest examples of a class.

Han et al., Deep Self-Learning From Noisy Labels: no clean data, no model of the noise, one network. After some epochs
on the labels as they are, training and correction take turns: the network's features choose several prototypes for
each class, every training example takes the label of the class that it resembles most, and the next epoch trains on
both labels.

Corrected labels live in memory by the examples' positions in the training set and change only between epochs; what
order the data come in is of no consequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import cross_entropy
from nlx.methods.method import (
    Batch,
    Candidate,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    as_rows,
    from_rows,
)
from nlx.methods.verified import eligible, known_wrong
from nlx.prototypes import Select, centered, class_prototypes, correct, selector, stored_scores, typical

CleanWith = Literal["held_out", "prototypes", "classifier", "combined"]


class Corrections(NamedTuple):
    """What is kept of every example, by position in the training set.

    Attributes:
      corrected: corrected label, int32 ``[n]``, -1 before any.
      first: the first of them.
      margin: by how much it won, float32 ``[n]``.
      refused: how many corrections were refused so far, int32 ``[n]``, the same for all.
      scores: sigma of all classes, float16 ``[n, K]`` :func:`as_rows`; None where they are not kept.
    """

    corrected: Array
    first: Array
    margin: Array
    refused: Array
    scores: Array | None


def corrections(start: int, every: int = 1, last: int | None = None) -> Callable[[int], bool]:
    """The epochs that a correction follows.

    Args:
      start: epochs on the labels as they are, at least 1; the first correction comes after these.
      every: epochs between two corrections.
      last: no correction after more epochs than this: the labels stay as they are then. None goes on to the end.

    Returns:
      Number of epochs done -> whether labels are to be corrected now.

    Raises:
      ArgumentError: start or every below 1, or last below start.

    Examples:
      >>> [done for done in range(1, 11) if corrections(3, every=2, last=8)(done)]
      [3, 5, 7]
    """
    if start < 1 or every < 1:
        raise ArgumentError(f"`start` and `every` must be at least 1 epoch, got {start} and {every}")
    if last is not None and last < start:
        raise ArgumentError(f"`last` ({last}) must not come before `start` ({start})")
    return lambda done: done >= start and (done - start) % every == 0 and (last is None or done <= last)


def self_learning(
    num_classes: int,
    *,
    refresh_after: Callable[[int], bool],
    alpha: float = 0.5,
    prototypes: int = 8,
    members: int = 1280,
    quantile: float = 0.4,
    limit: float = 0.95,
    select: Select = "density",
    center: bool = True,
    typical_only: bool = True,
    keep_good: bool = True,
    verified: bool = False,
    temperature: float = 0.1,
    clean_with: CleanWith = "held_out",
    keep_scores: bool = True,
    parts: int | None = None,
) -> Method:
    r"""Self-learning with multi-prototypes as a method.

    .. math:: \ell = (1 - \alpha) \mathrm{CE}(p, \tilde y) + \alpha \mathrm{CE}(p, \hat y)

    with :math:`\alpha = 0` for an example that has no corrected label yet. Single-label data only.

    Memory, by position in the training set: the corrected label and the first one (int32, -1 before any), the margin
    (float32), the number of refused corrections (int32), and, unless ``keep_scores`` is False, the scores sigma of all
    classes (float16 ``[K]``): 16 + 2 K bytes an example, 2.7 GB at K = 1000 and 1.3 million.

    Args:
      num_classes: K.
      refresh_after: number of epochs done -> whether labels are corrected then, such as :func:`corrections`.
      alpha: weight of the corrected label, in [0, 1] (paper 0.5).
      prototypes: p, prototypes per class (paper 8).
      members: m, random examples of a class that they are selected from (paper 1280).
      quantile: the value at this share of the similarities in ascending order is the density's threshold (paper 0.4).
      limit: members this close to a denser one are no prototypes (paper 0.95).
      select: ``density`` (paper), ``kmeans`` or ``density_peaks`` (Table 4), for which quantile and limit are not used.
      center: compare features less the mean of their class means. Features that follow a ReLU are all alike in their
        mean, which leaves the cosine little to say (the paper compares them as they are).
      typical_only: take prototypes from examples that resemble their own class more than any other, see
        :func:`nlx.prototypes.typical` (the paper takes them from all).
      keep_good: refuse a correction that agrees with fewer of the given labels than the one before, by more than two
        standard errors; the one before stands then (the paper takes every correction). With ``verified``, labels that
        are known to be wrong do not count.
      verified: take prototypes from examples whose label is verified, where the batch's ``trusted_label`` says so.
      temperature: of the softmax that makes probabilities of sigma, which is a score. It changes no cleaned label of
        ``prototypes``, only how sure they are.
      clean_with: the candidate that labels are cleaned with; ``held_out`` leaves that to models that have not seen
        them.
      keep_scores: keep sigma, 2 bytes for each class. Without it, ``prototypes`` knows the corrected label and its
        margin only.
      parts: in how many parts the examples are corrected, see :func:`nlx.prototypes.correct`.

    Returns:
      The method. Its posterior has three candidates: ``prototypes``, the softmax of sigma / temperature;
      ``classifier``; and ``combined``, their geometric mean. All cost 0, or infinity where ``clean_with`` names another
      one. Before the first correction, all three are the classifier.

    Raises:
      ArgumentError: an option out of its range.

    References:
      Han et al., 2019, Eq. 4 and Algorithm 1.
    """
    _check(
        num_classes=(num_classes, num_classes >= 1, "at least 1"),
        alpha=(alpha, 0 <= alpha <= 1, "in [0, 1]"),
        prototypes=(prototypes, prototypes >= 1, "at least 1"),
        members=(members, members >= 1, "at least 1"),
        quantile=(quantile, 0 <= quantile <= 1, "in [0, 1]"),
        temperature=(temperature, temperature > 0, "above 0"),
        parts=(parts, parts is None or parts >= 1, "at least 1"),
        select=(select, select in get_args(Select), "density, kmeans or density_peaks"),
        clean_with=(clean_with, clean_with in get_args(CleanWith), " or ".join(get_args(CleanWith))),
    )
    rule = selector(select, share=quantile, limit=limit)

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs
        none = jnp.full(size, -1, jnp.int32)
        scores = as_rows(jnp.zeros((size, num_classes), jnp.float16)) if keep_scores else None
        return {}, Corrections(none, none, jnp.zeros(size, jnp.float32), jnp.zeros(size, jnp.int32), scores)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        logits, noisy, corrected = outputs["logits"], _single(batch), memory.corrected
        known = corrected >= 0
        share = jnp.where(known, jnp.asarray(alpha, logits.dtype), jnp.zeros((), logits.dtype))
        given = cross_entropy(logits, noisy)
        better = cross_entropy(logits, jnp.maximum(corrected, 0))
        changed = known & (corrected != noisy)
        metrics = {"labels_changed": changed, "corrections_refused": memory.refused}
        mixed = (1 - share) * given + share * better
        return mixed, memory, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, batch
        corrected, margin = memory.corrected, memory.margin
        known = (corrected >= 0)[:, None]
        classifier = jax.nn.log_softmax(outputs["logits"])
        scores = None
        chosen = jnp.arange(num_classes, dtype=jnp.int32)[None, :] == corrected[:, None]
        if keep_scores:
            scores = from_rows(memory.scores, classifier.shape[1:]).astype(jnp.float32)
            # Half precision may make two of them equal; the margin tells them apart.
            others = jnp.max(jnp.where(chosen, -1.0, scores), axis=1)
            scores = jnp.where(chosen, (others + margin)[:, None], scores)
            log_q = jax.nn.log_softmax(jnp.where(known, scores, 0.0) / temperature)
        else:
            # As if there were the best class and the next only; what is left is spread over the others.
            sure = jax.nn.log_sigmoid(margin / temperature)
            rest = jax.nn.log_sigmoid(-margin / temperature) - jnp.log(jnp.float32(max(num_classes - 1, 1)))
            log_q = jax.nn.log_softmax(jnp.where(chosen, sure[:, None], rest[:, None]))
        log_q = jnp.where(known, log_q, classifier)
        candidates = {
            "combined": jax.nn.softmax((classifier + log_q) / 2),
            "prototypes": jnp.exp(log_q),
            "classifier": jnp.exp(classifier),
        }
        out = {name: clean_with not in ("held_out", name) for name in candidates}
        cost = {name: jnp.full(corrected.shape, jnp.inf if out[name] else 0.0, jnp.float32) for name in candidates}
        columns = {
            "corrected_label": Column(corrected, "label"),
            "first_label": Column(memory.first, "label"),
            "margin": Column(margin),
            **({} if scores is None else {"sigma": Column(scores)}),
        }
        return Posterior({n: Candidate(probs, cost[n]) for n, probs in candidates.items()}, columns)

    def refresh(key: Array, memory: Memory, features: Array, labels: Batch) -> Memory:
        noisy = _single(labels)
        if center:
            features = centered(features, noisy, num_classes)
        where = noisy >= 0
        if verified and "trusted_label" in labels:
            where = eligible(noisy, labels["trusted_label"], num_classes)
        if typical_only:
            where = where & typical(features, jnp.where(where, noisy, -1), num_classes)
        chosen = class_prototypes(
            key,
            features,
            noisy,
            num_classes,
            members=members,
            count=prototypes,
            where=where,
            selector=rule,
        )
        present = jnp.any(chosen.valid, axis=1)
        # As wide as rows of memory are: scores that have to be filled up would be a second copy.
        as_wide = as_rows(chosen.mean.T).T, as_rows(present[None, :])[0]
        decision = correct(features, *as_wide, parts=parts)
        corrected = jnp.where(noisy >= 0, decision.label, -1)
        first = jnp.where(memory.first >= 0, memory.first, corrected)
        new = Corrections(corrected, first, decision.margin, memory.refused, None)
        old = memory._replace(refused=memory.refused + 1, scores=None)
        compared = (noisy >= 0) & (memory.corrected >= 0)
        if verified and "trusted_label" in labels:
            compared = compared & ~known_wrong(noisy, labels["trusted_label"])
        worse = _worse(corrected == noisy, memory.corrected == noisy, compared)
        refused = keep_good & worse
        kept = jax.tree.map(lambda before, after: jnp.where(refused, before, after), old, new)
        if memory.scores is None:
            return kept
        # In parts they are computed once more: those that were decided by, and stay for the refusal, would be another.
        scores = jax.lax.cond(refused, lambda: memory.scores, lambda: stored_scores(features, *as_wide, parts=parts))
        return kept._replace(scores=scores)

    return Method("self_learning", loss, posterior, init, refresh=refresh, refresh_after=refresh_after)


def _worse(new: Array, old: Array, where: Array) -> Array:
    """Whether labels agree with the given ones less often than others do, by two standard errors (McNemar)."""
    lost, won = (jnp.sum(x & where, dtype=jnp.int32).astype(jnp.float32) for x in (old & ~new, new & ~old))
    return lost - won > 2 * jnp.sqrt(lost + won)


def _single(batch: Batch) -> Array:
    labels = batch["noisy_label"]
    if labels.ndim != 1:
        raise ArgumentError(f"self-learning needs one class per example, int [n], got labels of shape {labels.shape}")
    return labels


def _check(**options: tuple[object, bool, str]) -> None:
    for name, (value, fine, domain) in options.items():
        if not fine:
            raise ArgumentError(f"`{name}` must be {domain}, got {value!r}")
