"""Crowds: the classifier, the annotators' confusion matrices and the true labels, learnt together by EM.

Every example has answers of several annotators. The E step takes the classifier's p(y given x) as each example's prior,
the M step fits the classifier to the posterior and, between epochs, the annotators' matrices, which lean on what their
group shares (:func:`nlx.crowd.dawid_skene`). What rivals learn in its place is in :mod:`nlx.methods.crowd_layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.crowd import Consensus, dawid_skene
from nlx.losses import soft_cross_entropy
from nlx.methods.method import (
    UNKNOWN,
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
)

_TINY = 1e-30  # of a probability


class Given(NamedTuple):
    """Answers by example, int32 ``[n, P]`` with P the most that an example has; -1 where it has fewer.

    Attributes:
      annotator: who.
      label: says what.
    """

    annotator: Array
    label: Array


class CrowdMemory(NamedTuple):
    """What is kept of every example.

    Attributes:
      given: its answers, 8 P bytes.
      log_likelihood: log p(answers | true class), float32 ``[n, K]``.
      log_probs: log p(true class | x), as the classifier has it or held-out models, float32 ``[n, K]``.
    """

    given: Given
    log_likelihood: Array
    log_probs: Array


def given_answers(annotators: ArrayLike, labels: ArrayLike, num_annotators: int, num_classes: int) -> Given:
    """Answers by example, checked.

    Raises:
      ArgumentError: not int ``[n, P]``, or an annotator or a label out of range.
    """
    pair = [np.asarray(x) for x in (annotators, labels)]
    if any(x.ndim != 2 or x.dtype.kind not in "iu" or x.shape != pair[0].shape for x in pair):
        raise ArgumentError(f"`annotators` and `labels` must be int [n, P], got {pair[0].shape} and {pair[1].shape}")
    for name, x, size in zip(("annotators", "labels"), pair, (num_annotators, num_classes), strict=True):
        if x.size and not -1 <= x.min() <= x.max() < size:
            raise ArgumentError(f"`{name}` must lie in [0, {size}), -1 for none, got {x.min()} to {x.max()}")
    return Given(*(jnp.asarray(x, jnp.int32) for x in pair))


def padded(rows: Array, size: int, fill: float) -> Array:
    """Rows ``[n, ...]`` and others of a fill, ``[size, ...]``."""
    more = ((0, size - rows.shape[0]), *(((0, 0),) * (rows.ndim - 1)))
    return jnp.pad(rows, more, constant_values=fill)


def log_likelihood(given: Given, confusion: Array) -> Array:
    """Log p(answers | true class) of each example, float32 ``[n, K]``, from ``T[a, i, j]``, float ``[A, K, K]``."""
    table = jnp.log(jnp.maximum(confusion, _TINY))

    def add(total: Array, answer: tuple[Array, Array]) -> tuple[Array, None]:
        annotator, label = answer
        there = ((annotator >= 0) & (label >= 0))[:, None]
        said = table[jnp.maximum(annotator, 0), :, jnp.maximum(label, 0)]
        return total + jnp.where(there, said, 0.0), None

    start = jnp.zeros((given.label.shape[0], confusion.shape[1]), table.dtype)
    return jax.lax.scan(add, start, (given.annotator.T, given.label.T))[0]


def fit_annotators(
    given: Given,
    log_probs: Array | None,
    num_annotators: int,
    *,
    num_classes: int,
    groups: ArrayLike | None = None,
    strength: float | None = None,
    trusted: Array | None = None,
    iterations: int = 20,
) -> Consensus:
    """Dawid-Skene over answers by example with p(y given x) as the prior, see :func:`nlx.crowd.dawid_skene`."""
    n, most = given.label.shape
    return dawid_skene(
        jnp.repeat(jnp.arange(n, dtype=jnp.int32), most),
        given.annotator.reshape(-1),
        given.label.reshape(-1),
        num_items=n,
        num_annotators=num_annotators,
        num_classes=num_classes,
        groups=groups,
        strength=strength,
        log_prior=log_probs,
        trusted=trusted,
        iterations=iterations,
    )


def crowd(
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_annotators: int,
    num_classes: int,
    trusted: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    strength: float | None = None,
    held_out: ArrayLike | None = None,
    iterations: int = 20,
    refresh_after: Callable[[int], bool] = lambda epochs: True,
) -> Method:
    r"""EM with the classifier as each example's prior, and an annotator's confusion matrix for each who answers.

    .. math:: q(y) \propto p(y \mid x) \prod_{(a, j)} T^a_{yj}, \qquad \ell = \mathrm{CE}(p(y \mid x), q(y))

    with q a constant to the gradient, and certain where the true label is trusted. The noisy label of a batch has no
    part: what annotators say is in memory. Matrices are fitted to the answers alone before training, and between epochs
    with the classifier's predictions of the epoch as the prior. Memory: 8 P + 8 K bytes an example.

    Args:
      annotators: who answers, int ``[n, P]`` in ``[0, A)``, -1 where an example has fewer answers.
      labels: the answers, int ``[n, P]`` in ``[0, K)``, -1 likewise.
      num_annotators: A.
      num_classes: K.
      trusted: true classes where they are known, int ``[n]``, -1 elsewhere, for the matrices before training.
      groups: the group of each annotator, int ``[A]``, see :func:`nlx.crowd.dawid_skene`; None for one.
      strength: of the pull towards what a group shares; None for the most fitting.
      held_out: p(y given x) by models that have not seen the example's answers, float ``[n, K]``: the prior in place of
        the classifier's own, which comes to know the answers by heart. Matrices and targets then stay as they begin.
      iterations: of EM, before training and after an epoch, at most.
      refresh_after: number of epochs done -> whether matrices are fitted then.

    Returns:
      A method for one label per example. Candidates ``crowd``, q, and ``answers``, of the answers alone; the column
      ``classifier``. Trusted labels have no part in them.

    Raises:
      ArgumentError: arrays that do not fit.

    References:
      Raykar et al., 2010, section 3; Albarqouni et al., 2016 (a network in its place).
    """
    given = given_answers(annotators, labels, num_annotators, num_classes)
    n = given.label.shape[0]
    if held_out is not None and np.shape(held_out) != (n, num_classes):
        raise ArgumentError(f"`held_out` must be [{n}, {num_classes}], got {np.shape(held_out)}")
    prior = None if held_out is None else jnp.log(jnp.maximum(jnp.asarray(held_out, jnp.float32), 1e-6))
    known = None if trusted is None else jnp.asarray(trusted, jnp.int32)

    def fit(given: Given, log_probs: Array | None, known: Array | None) -> Consensus:
        return fit_annotators(
            given,
            log_probs,
            num_annotators,
            num_classes=num_classes,
            groups=groups,
            strength=strength,
            trusted=known,
            iterations=iterations,
        )

    begun = fit(given, prior, known)
    first = log_likelihood(given, begun.confusion)
    start = prior if prior is not None else jnp.zeros_like(first)  # no logarithms of probabilities: not yet visited

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs, num_classes
        rows = (padded(x, size, -1) for x in given)
        return {}, CrowdMemory(Given(*rows), padded(first, size, 0.0), padded(start, size, 0.0))

    def target(memory: CrowdMemory, opinion: Array) -> Array:
        return jax.nn.softmax((opinion if prior is None else memory.log_probs) + memory.log_likelihood)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        logits = outputs["logits"]
        opinion = jax.lax.stop_gradient(jax.nn.log_softmax(logits))
        q = target(memory, opinion)
        true = batch.get("trusted_label", jnp.full(logits.shape[:1], UNKNOWN, jnp.int32))
        q = jnp.where((true >= 0)[:, None], jax.nn.one_hot(true, num_classes, dtype=q.dtype), q)
        stored = memory if prior is not None else memory._replace(log_probs=opinion)
        return soft_cross_entropy(logits, q), stored, {"certainty": jnp.max(q, axis=1)}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, batch
        opinion = jax.nn.log_softmax(outputs["logits"])
        q, alone = target(memory, opinion), jax.nn.softmax(memory.log_likelihood)
        zero = jnp.zeros(q.shape[0], q.dtype)
        columns = {
            "classifier": Column(jnp.exp(opinion), "belief"),
            "answers_given": Column(jnp.sum(memory.given.label >= 0, axis=1, dtype=jnp.int32)),
        }
        return Posterior({"crowd": Candidate(q, zero), "answers": Candidate(alone, zero + 1)}, columns)

    def refresh(key: Array, memory: Memory, features: Array, labels: Batch) -> Memory:
        del key, features
        # Of examples that this training does not visit, another fold's say, the classifier has no opinion.
        visited = jnp.sum(jnp.exp(memory.log_probs), axis=1, keepdims=True) < 1.5
        given = memory.given._replace(label=jnp.where(visited, memory.given.label, -1))
        new = fit(given, memory.log_probs, labels.get("trusted_label"))
        return memory._replace(log_likelihood=log_likelihood(memory.given, new.confusion))

    again = refresh if prior is None else None
    return Method("crowd", loss, posterior, init, refresh=again, refresh_after=refresh_after)
