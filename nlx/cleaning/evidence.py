"""What held-out evidence says of a label: a model's opinion joined with the neighbours', and Bayes' rule with both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.special import expit

from nlx import transitions
from nlx.methods.method import KNOWN_WRONG

_LEAST = 1e-12  # probability
_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8)  # of the neighbours' opinion
_POWERS = (0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8)  # of p(y | x): above 1 it is surer than the model is
_KEPT = 5.0  # examples that the matrix to begin with counts for, in each row
_ROUNDS = 5  # of EM
_STEEPNESS = 8.0  # with which evidence for a matrix of noise decides; with its place, found on planted noise


def fuse(
    probs: ArrayLike, labels: ArrayLike, near: np.ndarray, known: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    r"""Join held-out probabilities with what the neighbours' labels are likely to be.

    .. math:: \log f = (1 - w) \log p + w \log \tfrac1k \sum_{j \in N(x)} q_j

    with q the neighbours' posteriors by Bayes' rule, of p at first and of f in a second round. The weight is the one
    whose argmax agrees most with the given labels, neither of whose sides has seen the label that it judges: noise
    that depends on the class alone keeps the order of accuracies.

    Args:
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``.
      labels: given classes in ``[0, K)``, int ``[n]``.
      near: neighbours of each, int ``[n, k]``, see :func:`nlx.cleaning.neighbours.neighbours`.
      known: true classes, int ``[n]``, -1 where they are not known; they stand in for posterior and label.

    Returns:
      f, float32 ``[n, K]``, and w.
    """
    log_p, y = _log(probs), jnp.asarray(labels, jnp.int32)
    log_f, weight, best_known = log_p, 0.0, y if known is None else jnp.where(known >= 0, known, y)
    for _ in range(2):
        posterior = by_em(log_f, y, _counted(log_f, y, known), 1.0, 0, known).posterior
        mixed = (_mixed(log_p, posterior, near, best_known, np.float32(w)) for w in _WEIGHTS)
        fused, agreed = zip(*mixed, strict=True)
        best = int(np.argmax([float(share) for share in agreed]))
        log_f, weight = fused[best], _WEIGHTS[best]
    return np.asarray(jnp.exp(log_f)), weight


class Weighed(NamedTuple):
    """What follows from held-out probabilities and the given labels.

    Attributes:
      posterior: p(true label | x, given label), float32 ``[n, K]``.
      transition: ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``: of both forms of noise, by weight.
      power: of p(y | x) in Bayes' rule, of the form that weighs more; the larger, the less the given label weighs, and
        beyond bounds argmax decides.
      structure: weight of the noise that depends on the class, in [0, 1]; the rest is one rate for all.
    """

    posterior: np.ndarray
    transition: np.ndarray
    power: float
    structure: float


def weigh(
    probs: ArrayLike, labels: ArrayLike, known: np.ndarray | None = None, soft: np.ndarray | None = None
) -> Weighed:
    r"""p(true label | x, given label) by Bayes' rule, with how much to trust either found on the labels themselves.

    .. math:: q_i \propto p(i \mid x)^a \, T_{i \tilde y}

    The power a is the one under which the given labels, which p has not seen, are likeliest, with T from the confident
    joint; T is then refined by a few rounds of EM. (With T refined for each power, models that explain noise by their
    own doubts would win.) A weak model's own confusions look like noise that depends on the class, so that a second
    reading has one rate for all classes instead. The posterior is the mean of both: the matrix weighs
    :math:`\sigma(8 (g / b - \frac12))`, with g how much likelier it makes the labels, in nats, and
    :math:`b = \frac12 (K (K - 1) - 1) \log n`, Schwarz's price of its entries.

    Args:
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``.
      labels: given classes in ``[0, K)``, int ``[n]``.
      known: true classes, int ``[n]``, -1 where they are not known, ``KNOWN_WRONG`` where they are not the given
        one. Power and T then explain these as well; which
        examples were looked at may depend on p and on the labels, as where a person goes down a list.
      soft: how sure each label is, rows that sum to 1, float ``[n, K]``, of which ``labels`` are the largest: the
        likelihood is then the mean over what may have been given, and of a label without any weight there is p alone.

    Examples:
      >>> weighed = weigh(np.repeat([[0.9, 0.1], [0.1, 0.9]], 50, axis=0), np.repeat([0, 1, 0], [50, 45, 5]))
      >>> weighed.posterior.argmax(axis=1)[-5:].tolist()
      [1, 1, 1, 1, 1]
    """
    log_p, y = _log(probs), jnp.asarray(labels, jnp.int32)
    counted = _counted(log_p, y, known)
    readings, fits = [], []
    for start, rounds in ((counted, _ROUNDS), (_one_rate(counted, y), 0)):
        power, fit = likeliest(log_p, y, start, 0, known=known)
        matrix, posterior, _ = by_em(log_p, y, start, power, rounds, known)
        if soft is not None:
            posterior = jax.nn.softmax(np.float32(power) * log_p + jnp.log(jnp.maximum(soft @ matrix.T, _LEAST)))
        readings.append((posterior, matrix, power))
        fits.append(fit)
    n, k = log_p.shape
    price = max(k * (k - 1) - 1, 1) / 2 * math.log(n)
    whole = float(expit(_STEEPNESS * (n * (fits[0] - fits[1]) / price - 0.5))) if n > 1 else 1.0
    posterior, matrix = (whole * a + (1 - whole) * b for a, b in zip(*(r[:2] for r in readings), strict=True))
    return Weighed(np.asarray(posterior), np.asarray(matrix), readings[0 if whole >= 0.5 else 1][2], whole)


def each_class(
    of: Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray],
    probs: ArrayLike,
    labels: np.ndarray,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """What :func:`fuse` or :func:`weigh` makes of several labels to an example, each class a question of its own.

    Args:
      of: (probabilities ``[n, 2]``, labels ``[n]``, what is known ``[n]``) -> probabilities ``[n, 2]``.
      probs: p(class is true | x) by models that have not seen the labels, float ``[n, K]``.
      labels: given ones, {0, 1} ``[n, K]``.
      known: true ones, ``[n, K]``, -1 where they are not known.

    Returns:
      Probabilities, float32 ``[n, K]``; of a class whose labels are all the same those given.
    """
    found = np.array(probs, np.float32)
    for c, p in enumerate(found.T):
        if 0 < np.count_nonzero(labels[:, c]) < len(labels):
            about = labels[:, c].astype(np.int32), None if known is None else known[:, c].astype(np.int32)
            found[:, c] = of(np.stack([1 - p, p], axis=1), *about)[:, 1]
    return found


def weigh_each(probs: ArrayLike, labels: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """p(class is true | x, given label), float32 ``[n, K]``, with a matrix for each class, see :func:`each_class`."""
    return each_class(lambda *about: weigh(*about).posterior, probs, labels, known)


def joined(belief: ArrayLike, probs: ArrayLike, labels: ArrayLike, known: np.ndarray | None = None) -> np.ndarray:
    r"""What a network believes that has learnt from the labels, and what models say that have not seen them.

    .. math:: q_i \propto \sqrt{b_i \, p_i^a} \; T_{i \tilde y}

    with a and T of :func:`weigh`. The root, since both have learnt from the same examples.

    Args:
      belief: b, probabilities of an example's classes, float ``[n, K]``.
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``.
      labels: given classes, int ``[n]``.
      known: true classes, int ``[n]``, -1 where they are not known.

    Returns:
      q, float32 ``[n, K]``.
    """
    found, y = weigh(probs, labels, known), jnp.asarray(labels, jnp.int32)
    both = (_log(belief) + np.float32(found.power) * _log(probs)) / 2
    return np.asarray(jax.nn.softmax(both + _log(found.transition).T[y]))


def _one_rate(matrix: Array, labels: Array) -> Array:
    """As much noise as in a matrix, the same in all classes, which replaces them by others as frequent as they are."""
    k = len(matrix)
    often = jnp.zeros(k).at[labels].add(1.0, mode="drop") / len(labels)
    rate = 1 - jnp.sum(jnp.diagonal(matrix) * often)
    others = jnp.where(jnp.eye(k, dtype=bool), 0.0, often[None] + 1e-6)
    return (1 - rate) * jnp.eye(k) + rate * others / jnp.sum(others, axis=1, keepdims=True)


def likeliest(
    log_p: Array,
    labels: Array,
    start: Array,
    rounds: int,
    powers: tuple[float, ...] = _POWERS,
    known: np.ndarray | None = None,
) -> tuple[float, float]:
    """The power of p under which the labels are likeliest, T refined by so many rounds of EM for each, and how likely.

    The second is their mean log-likelihood.
    """
    found = [float(by_em(log_p, labels, start, power, rounds, known).likelihood) for power in powers]
    return powers[int(np.argmax(found))], max(found)


class Reading(NamedTuple):
    """T ``[K, K]``, posterior ``[n, K]`` and the labels' mean log-likelihood under one power of p."""

    transition: Array
    posterior: Array
    likelihood: Array


def by_em(
    log_p: Array, labels: Array, start: Array, power: float, rounds: int, known: np.ndarray | None = None
) -> Reading:
    """Bayes' rule with T by so many rounds of EM from a first one, which stays as a prior; what is known is certain."""
    known = np.full(len(labels), -1, np.int32) if known is None else np.asarray(known, np.int32)
    return _by_em(log_p, labels, start, np.float32(power), np.int32(rounds), known)


@jax.jit
def _by_em(log_p: Array, labels: Array, start: Array, power: Array, rounds: Array, known: Array) -> Reading:
    prior = jax.nn.log_softmax(power * log_p)
    ruled_out = (known >= 0)[:, None] & ~jax.nn.one_hot(known, log_p.shape[1], dtype=bool)
    ruled_out |= (known == KNOWN_WRONG)[:, None] & jax.nn.one_hot(labels, log_p.shape[1], dtype=bool)

    def bayes(matrix: Array) -> tuple[Array, Array]:
        joint = jnp.where(ruled_out, -jnp.inf, prior + jnp.log(jnp.maximum(matrix.T, _LEAST))[labels])
        total = jax.nn.logsumexp(joint, axis=1, keepdims=True)
        return jnp.exp(joint - total), jnp.mean(total)

    def refined(_: Array, matrix: Array) -> Array:
        counts = jnp.zeros_like(matrix).at[labels].add(bayes(matrix)[0]).T + _KEPT * start
        return counts / jnp.sum(counts, axis=1, keepdims=True)

    matrix = jax.lax.fori_loop(jnp.int32(0), rounds, refined, start)
    return Reading(matrix, *bayes(matrix))


@jax.jit
def _mixed(log_p: Array, posterior: Array, near: Array, labels: Array, weight: Array) -> tuple[Array, Array]:
    """Both opinions by weight, and how often the more likely class is the given one."""
    k = near.shape[1]
    vote = jax.lax.fori_loop(0, k, lambda i, v: v + posterior[near[:, i]], jnp.zeros_like(posterior)) / k
    fused = jax.nn.log_softmax((1 - weight) * log_p + weight * jnp.log(vote + 0.01 / vote.shape[1]))
    return fused, jnp.mean(jnp.argmax(fused, axis=1) == labels)


def _counted(log_p: Array, labels: Array, known: np.ndarray | None = None) -> Array:
    probs = jnp.exp(log_p)
    if known is not None:
        probs = jnp.where((known >= 0)[:, None], jax.nn.one_hot(known, probs.shape[1]), probs)
        given = jax.nn.one_hot(labels, probs.shape[1])
        others = probs * (1 - given) + _LEAST * (1 - given)
        wrong = (known == KNOWN_WRONG)[:, None]
        probs = jnp.where(wrong, others / jnp.sum(others, axis=1, keepdims=True), probs)
    return transitions.from_confident_joint(transitions.confident_joint(probs, labels), labels)


def _log(probs: ArrayLike) -> Array:
    return jnp.log(jnp.maximum(jnp.asarray(probs, jnp.float32), _LEAST))
