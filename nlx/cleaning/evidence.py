"""What held-out evidence says of a label: a model's opinion joined with the neighbours', and Bayes' rule with both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.special import expit

from nlx.cleaning.bayes import (
    FEW,
    LEAST,
    Block,
    HeldOut,
    Reading,
    by_em,
    likeliest_power,
    likelihood,
    log_of,
    posterior,
)
from nlx.cleaning.blocks import likeliest_of, too_many
from nlx.methods.top import Top

_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8)  # of the neighbours' opinion
_POWERS = (0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8)  # of p(y | x): above 1 it is surer than the model is
_ROUNDS = 5  # of EM
_ENOUGH = 2**24  # probabilities that a power is found on, at most
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
    log_p, y = log_of(probs), jnp.asarray(labels, jnp.int32)
    f, weight, best_known = jnp.exp(log_p), 0.0, y if known is None else jnp.where(known >= 0, known, y)
    for _ in range(2):
        believed = HeldOut(f, labels, known)
        reading = Reading(believed.counted, 1.0)
        opinion = jnp.concatenate([posterior(block, reading) for block in believed])
        mixed = (_mixed(log_p, opinion, near, best_known, np.float32(w)) for w in _WEIGHTS)
        fused, agreed = zip(*mixed, strict=True)
        best = int(np.argmax([float(share) for share in agreed]))
        f, weight = fused[best], _WEIGHTS[best]
    return np.asarray(f), weight


@dataclass(frozen=True, eq=False)
class Weighed:
    """What follows from held-out probabilities and the given labels.

    Attributes:
      held_out: both.
      readings: with noise that depends on the class, and with one rate for all.
      structure: weight of the first of them, in [0, 1].
      soft: how sure each label is, float ``[n, K]``, or None where each is one class.
    """

    held_out: HeldOut
    readings: tuple[Reading, Reading]
    structure: float
    soft: np.ndarray | None = None

    @cached_property
    def transition(self) -> np.ndarray:
        """``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``: of both readings, by weight."""
        return np.asarray(self._mean(*(reading.matrix for reading in self.readings)))

    @property
    def power(self) -> float:
        """Of p(y | x) in Bayes' rule, in the reading that weighs more.

        The larger, the less the given label weighs, and beyond bounds argmax decides.
        """
        return self.readings[0 if self.structure >= 0.5 else 1].power

    @cached_property
    def posterior(self) -> np.ndarray:
        """p(true label | x, given label), float32 ``[n, K]``."""
        found = np.empty(self.held_out.shape, np.float32)
        for rows, block in self._blocks():
            found[rows] = self._of(rows, block)
        return found

    @property
    def belief(self) -> np.ndarray | Top:
        """The posterior, or the likeliest classes of it where these are kept, without ever making the whole."""
        if not too_many(*self.held_out.shape):
            return self.posterior
        return likeliest_of((self._of(rows, block), block.labels) for rows, block in self._blocks())

    def _blocks(self) -> Iterator[tuple[slice, Block]]:
        return zip(self.held_out.slices, self.held_out, strict=True)

    def _of(self, rows: slice, block: Block) -> Array:
        if self.soft is None:
            return self._mean(*(posterior(block, reading) for reading in self.readings))
        return self._mean(*(_of_soft(block.log_p, self.soft[rows], *reading) for reading in self.readings))

    def _mean(self, first: Array, second: Array) -> Array:
        return self.structure * first + (1 - self.structure) * second


def weigh(
    probs: ArrayLike | Top, labels: ArrayLike, known: np.ndarray | None = None, soft: np.ndarray | None = None
) -> Weighed:
    r"""p(true label | x, given label) by Bayes' rule, with how much to trust either found on the labels themselves.

    .. math:: q_i \propto p(i \mid x)^a \, T_{i \tilde y}

    The power a is the one under which the given labels, which p has not seen, are likeliest (of more than 17 million
    probabilities: those of random examples), with T from the confident joint; T is then refined by a few rounds of EM.
    (With T refined for each power, models that explain noise by their own doubts would win.) A weak model's own
    confusions look like noise that depends on the class, so that a second reading has one rate for all classes instead.
    The posterior is the mean of both: the matrix weighs
    :math:`\sigma(8 (g / b - \frac12))`, with g how much likelier it makes the labels, in nats, and
    :math:`b = \frac12 (K (K - 1) - 1) \log n`, Schwarz's price of its entries. Of more than 40 classes, with more
    entries than examples could pay for, it weighs :math:`\sigma(g')`, with g' how much likelier it makes the labels of
    one half where it was counted on the other, beside one rate as five examples in each row.

    Args:
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``.
      labels: given classes in ``[0, K)``, int ``[n]``.
      known: true classes, int ``[n]``, -1 where they are not known, ``KNOWN_WRONG`` where they are not the given
        one. Power and T then explain these as well; which examples were looked at may depend on p and on the labels, as
        where a person goes down a list.
      soft: how sure each label is, rows that sum to 1, float ``[n, K]``, of which ``labels`` are the largest: the
        likelihood is then the mean over what may have been given, and of a label without any weight there is p alone.

    Examples:
      >>> weighed = weigh(np.repeat([[0.9, 0.1], [0.1, 0.9]], 50, axis=0), np.repeat([0, 1, 0], [50, 45, 5]))
      >>> weighed.posterior.argmax(axis=1)[-5:].tolist()
      [1, 1, 1, 1, 1]
    """
    held_out = HeldOut(probs, labels, known)
    some, (n, k) = held_out.some(_ENOUGH), held_out.shape
    readings, fits = [], []
    for start, rounds in ((held_out.start, _ROUNDS), (held_out.one_rate, 0)):
        power, fit = likeliest_power(some, start, 0, _POWERS)
        readings.append(by_em(held_out, start, power, rounds))
        fits.append(fit)
    if n < 2:
        structure = 1.0
    elif k > FEW:
        structure = float(expit(_gain_on_others(some)))
    else:
        price = max(k * (k - 1) - 1, 1) / 2 * math.log(n)
        structure = float(expit(_STEEPNESS * (n * (fits[0] - fits[1]) / price - 0.5)))
    return Weighed(held_out, (readings[0], readings[1]), structure, soft)


def _gain_on_others(held_out: HeldOut) -> float:
    """How much likelier noise that depends on the class makes labels that it was not counted on, in nats."""
    halves, gain = held_out.halves(), 0.0
    for seen, new in (halves, halves[::-1]):
        powers = [likeliest_power(seen, matrix, 0, _POWERS)[0] for matrix in (seen.start, seen.one_rate)]
        fits = [likelihood(new, Reading(*r)) for r in zip((seen.start, seen.one_rate), powers, strict=True)]
        gain += new.shape[0] * (fits[0] - fits[1])
    return gain


@jax.jit
def _of_soft(log_p: Array, soft: Array, matrix: Array, power: Array) -> Array:
    return jax.nn.softmax(power * log_p + jnp.log(jnp.maximum(soft.astype(np.float32) @ matrix.T, LEAST)))


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
    both = (log_of(belief) + np.float32(found.power) * log_of(probs)) / 2
    return np.asarray(jax.nn.softmax(both + log_of(found.transition).T[y]))


@jax.jit
def _mixed(log_p: Array, posterior: Array, near: Array, labels: Array, weight: Array) -> tuple[Array, Array]:
    """Both opinions by weight, and how often the more likely class is the given one."""
    k = near.shape[1]
    vote = jax.lax.fori_loop(0, k, lambda i, v: v + posterior[near[:, i]], jnp.zeros_like(posterior)) / k
    fused = jax.nn.softmax((1 - weight) * log_p + weight * jnp.log(vote + 0.01 / vote.shape[1]))
    return fused, jnp.mean(jnp.argmax(fused, axis=1) == labels)
