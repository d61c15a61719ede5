"""EM over the true labels of items, given what annotators answer: the same loop for every model of an annotator.

A model says how counts of (annotator, true class, answer) become its parameters, and what confusion matrices these
stand for. Everything is in log space, and no array is larger than ``[N, K]``, ``[A, K, K]`` or, for sums by scatters,
``[M, K]``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_labels, floating, varying
from nlx.crowd.sums import Sizes, Sums, checked

SKILL = 0.7
"""How often everyone is right before anything is known of them."""
_TINY = 1e-30  # of a probability, where nothing was ever counted


class Consensus(NamedTuple):
    """What answers say of the true labels, and of those who answer.

    Attributes:
      posterior: p(true class given all answers), float ``[N, K]``; rows sum to 1.
      confusion: ``T[a, i, j] = p(annotator a answers j | true class i)``, float ``[A, K, K]``; rows sum to 1.
      class_prior: p(true class), float ``[K]``.
      log_evidence: log p(answers of an item), in nats, float ``[N]``; 0 where there are none.
      iterations: of EM, int32.
      change: of any probability in the last of them, at most.
    """

    posterior: Array
    confusion: Array
    class_prior: Array
    log_evidence: Array
    iterations: Array
    change: Array


class Known(NamedTuple):
    """What is known beside the answers.

    Attributes:
      log_prior: unnormalized log p(true class) of each item, such as a classifier's logits, float ``[N, K]``; None for
        one class prior, which EM learns.
      trusted: true class where it is known, -1 elsewhere, int32 ``[N]``; None for nowhere.
      telling: items whose answers tell how good those are who give them, bool ``[N]``; None for all. One answer alone
        confirms itself: people who always say the same would be believed, and in the end one class takes all.
    """

    log_prior: Array | None
    trusted: Array | None
    telling: Array | None = None


class Model(NamedTuple):
    """A model of annotators.

    Attributes:
      start: parameters before anything is known.
      update: (parameters, expected counts ``n[a, i, j]``, float ``[A, K, K]``) -> parameters.
      confusion: parameters -> ``T[a, i, j]``, float ``[A, K, K]``.
    """

    start: Any
    update: Callable[[Any, Array], Any]
    confusion: Callable[[Any], Array]


def known_of(sums: Sums, log_prior: ArrayLike | None, trusted: ArrayLike | None, sizes: Sizes) -> Known:
    """What is known beside the answers, checked.

    Raises:
      TypeError: log_prior not floating, or trusted not integer.
      ValueError: shapes do not fit.
    """
    shape = (sizes.items, sizes.classes)
    if log_prior is not None:
        log_prior = floating(log_prior, "log_prior")
        if log_prior.shape != shape:
            raise ValueError(f"log_prior must be {shape}, one row an item, got {log_prior.shape}")
        log_prior = jax.nn.log_softmax(log_prior.astype(jnp.float32))
    if trusted is not None:
        trusted = class_labels(trusted, "trusted", sizes.classes)
        if trusted.shape != shape[:1]:
            raise ValueError(f"trusted must be {shape[:1]}, a class or -1 an item, got {trusted.shape}")
    if log_prior is not None:
        return Known(log_prior, trusted)
    several = jax.ops.segment_sum(jnp.ones_like(sums.item), sums.item, sizes.items, mode="drop") > 1
    return Known(None, trusted, several if trusted is None else several | (trusted >= 0))


def prepared(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    num_items: int,
    num_annotators: int,
    num_classes: int,
    log_prior: ArrayLike | None,
    trusted: ArrayLike | None,
    iterations: int,
) -> tuple[Sizes, Sums, Known]:
    """What every model is given, checked, and the answers ready to be added up.

    Raises:
      TypeError: numbers not integers, or log_prior not floating.
      ValueError: shapes disagree, fewer than 2 classes, or fewer than 1 of anything else.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    at_least(1, iterations=iterations)
    sizes = Sizes(num_items, num_annotators, num_classes)
    sums = checked(items, annotators, labels, sizes)
    return sizes, sums, known_of(sums, log_prior, trusted, sizes)


def em(sums: Sums, sizes: Sizes, known: Known, model: Model, iterations: Array, tolerance: Array) -> Consensus:
    """Run EM until no probability changes by more than a tolerance, or so many times.

    It starts as if everyone were right equally often, and every class as frequent as another.
    """
    uniform = jnp.full((sizes.items, sizes.classes), 1 / sizes.classes, jnp.float32)

    def again(state: tuple[Any, ...]) -> Array:
        done, change = state[0], state[1]
        return (done < iterations) & (change > tolerance)

    def once(state: tuple[Any, ...]) -> tuple[Any, ...]:
        done, _, before, parameters, _ = state
        prior = class_prior_of(seen(before, known))
        posterior, evidence = believe(sums, sizes, known, model.confusion(parameters), prior)
        change = jnp.max(jnp.abs(posterior - before), initial=0.0)
        counts = count(sums, sizes, seen(posterior, known))
        return done + 1, change, posterior, model.update(parameters, counts), evidence

    start = jnp.int32(0), jnp.float32(jnp.inf), uniform, model.start, uniform[:, 0]
    start = jax.tree.map(lambda x: varying(x, *jax.tree.leaves((sums, known))), start)
    done, change, posterior, parameters, evidence = jax.lax.while_loop(again, once, start)
    prior = class_prior_of(seen(posterior, known))
    return Consensus(posterior, model.confusion(parameters), prior, evidence, done, change)


def equally_right(sizes: Sizes) -> Array:
    """Confusion matrices of annotators of whom nothing is known, ``[A, K, K]``."""
    others = jnp.float32((1 - SKILL) / (sizes.classes - 1))
    matrix = jnp.where(jnp.eye(sizes.classes, dtype=bool), jnp.float32(SKILL), others)
    return jnp.broadcast_to(matrix[None], (sizes.annotators, *matrix.shape))


def believe(sums: Sums, sizes: Sizes, known: Known, confusion: Array, class_prior: Array) -> tuple[Array, Array]:
    """The E step: p(true class given answers) ``[N, K]``, and the log-evidence of each item's answers ``[N]``."""
    table = jnp.log(jnp.maximum(confusion, _TINY)).swapaxes(1, 2).reshape(-1, sizes.classes)
    said = sums.of_items(table, sizes)
    prior = known.log_prior if known.log_prior is not None else jnp.log(class_prior)[None, :]
    joint = prior + said
    evidence = jax.nn.logsumexp(joint, axis=1)
    posterior = jnp.exp(joint - evidence[:, None])
    if known.trusted is not None:
        certain = jax.nn.one_hot(known.trusted, sizes.classes, dtype=posterior.dtype)
        posterior = jnp.where(known.trusted[:, None] >= 0, certain, posterior)
    return posterior, evidence


@partial(jax.jit, static_argnames="sizes")
def count(sums: Sums, sizes: Sizes, posterior: Array) -> Array:
    """Expected counts ``n[a, i, j]`` of annotator a answering j where i is true, ``[A, K, K]``."""
    by_cell = sums.of_cells(posterior, sizes)
    return by_cell.reshape(sizes.annotators, sizes.classes, sizes.classes).swapaxes(1, 2)


def seen(posterior: Array, known: Known) -> Array:
    """Beliefs about the items that tell something of annotators, and zeros, ``[N, K]``."""
    return posterior if known.telling is None else jnp.where(known.telling[:, None], posterior, 0.0)


def class_prior_of(posterior: Array) -> Array:
    """p(true class) with one pseudo-item spread over all classes, ``[K]``; rows of zeros do not count."""
    total = jnp.sum(posterior, axis=0)
    return (total + 1 / posterior.shape[1]) / (jnp.sum(total) + 1)
