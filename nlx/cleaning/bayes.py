"""Bayes' rule with held-out probabilities and given labels, a block of rows at a time.

Next to the probabilities themselves it takes the memory of a few blocks, however many examples there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx import transitions
from nlx.cleaning.blocks import row_blocks
from nlx.methods.method import KNOWN_WRONG
from nlx.methods.top import Top
from nlx.transitions.confident import UNREACHABLE

LEAST = 1e-12
"""Probability, below which none is told apart."""
FEW = 40
"""Classes, up to which most of those that are mistaken for each other are seen often enough to be counted."""
_KEPT = 5.0  # examples that the matrix to begin with counts for, in each row


class Block(NamedTuple):
    """Some examples: log p, float32 ``[B, K]``, given classes, and what is known of the true ones, int32 ``[B]``."""

    log_p: Array
    labels: Array
    known: Array


class HeldOut:
    """p(true label | x) by models that have not seen the given labels, beside these.

    Args:
      probs: float ``[n, K]``, or the likeliest classes of them.
      labels: given classes in ``[0, K)``, int ``[n]``.
      known: true classes, int ``[n]``, -1 where they are not known, ``KNOWN_WRONG`` where they are not the given one.
    """

    def __init__(self, probs: ArrayLike | Top, labels: ArrayLike, known: np.ndarray | None = None):
        self.probs: Any = probs if isinstance(probs, Top | Array) else np.asarray(probs)
        self.labels = np.asarray(labels)
        self.known = known
        self.slices = row_blocks(*self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """n and K."""
        n, k = self.probs.shape
        return n, k

    def block(self, rows: slice) -> Block:
        """Some of it, on the device."""
        labels = jnp.asarray(self.labels[rows], jnp.int32)
        known = jnp.full_like(labels, -1) if self.known is None else jnp.asarray(self.known[rows], jnp.int32)
        return Block(log_of(self.probs[rows]), labels, known)

    @cached_property
    def _whole(self) -> Block:
        return self.block(slice(None))

    def __iter__(self) -> Iterator[Block]:
        return iter([self._whole]) if len(self.slices) == 1 else map(self.block, self.slices)

    def some(self, cells: int) -> HeldOut:
        """So many numbers of it, in random rows, where there are more; the same rows each time."""
        n, k = self.shape
        if n * k <= cells:
            return self
        return self._take(np.sort(np.random.default_rng(0).permutation(n)[: max(1, cells // k)]))

    def halves(self) -> tuple[HeldOut, HeldOut]:
        """It in two, at random; the same each time."""
        first = np.random.default_rng(0).permutation(len(self.labels)) % 2 == 0
        return self._take(np.flatnonzero(first)), self._take(np.flatnonzero(~first))

    def _take(self, rows: np.ndarray) -> HeldOut:
        return HeldOut(self.probs[rows], self.labels[rows], None if self.known is None else self.known[rows])

    @cached_property
    def joint(self) -> Array:
        """The confident joint, int32 ``[K, K]``, what is known being certain."""
        k = self.shape[1]
        means = np.array([transitions.confident_thresholds(_certain(b), b.labels) for b in self], np.float64)
        often = np.array([np.bincount(self.labels[rows], minlength=k) for rows in self.slices])
        mean = np.sum(means * often, axis=0) / np.maximum(often.sum(axis=0), 1)
        thresholds = np.where(often.any(axis=0), mean, UNREACHABLE).astype(np.float32)
        joint: Any = sum(
            transitions.confident_joint(_certain(b), b.labels, thresholds=thresholds, at_least=0) for b in self
        )
        return jnp.where(jnp.eye(k, dtype=bool), jnp.maximum(joint, 1), joint)

    @cached_property
    def counted(self) -> Array:
        """The transition matrix of the confident joint, float32 ``[K, K]``."""
        return transitions.from_confident_joint(self.joint, self.labels)

    @cached_property
    def one_rate(self) -> Array:
        """As much noise, the same in all classes, which replaces them by others as frequent as they are, ``[K, K]``."""
        return _one_rate(self.counted, jnp.asarray(self.labels, jnp.int32))

    @cached_property
    def start(self) -> Array:
        """T to begin with, float32 ``[K, K]``: of many classes, most of whose pairs no example shows, with one rate."""
        if self.shape[1] <= FEW:
            return self.counted
        return _with_prior(self.joint.astype(jnp.float32), self.one_rate)


class Reading(NamedTuple):
    """T ``[K, K]``, and the power of p(y | x) that goes with it in Bayes' rule."""

    matrix: Array
    power: float


def by_em(held_out: HeldOut, start: Array, power: float, rounds: int) -> Reading:
    """T by so many rounds of EM from a first one, which stays as a prior; what is known is certain."""
    matrix = start
    for _ in range(rounds):
        counts: Any = sum(_counts(block, matrix, np.float32(power)) for block in held_out)
        matrix = _with_prior(counts, start)
    return Reading(matrix, power)


def posterior(block: Block, reading: Reading) -> Array:
    """p(true label | x, given label), float32 ``[B, K]``; what is known is certain."""
    return _bayes(block, reading.matrix, np.float32(reading.power))


def likelihood(held_out: HeldOut, reading: Reading) -> float:
    """The given labels' mean log-likelihood, in nats."""
    totals = [_total(block, reading.matrix, np.float32(reading.power)) for block in held_out]
    return float(np.sum(np.array(totals, np.float64))) / held_out.shape[0]


def likeliest_power(held_out: HeldOut, start: Array, rounds: int, powers: tuple[float, ...]) -> tuple[float, float]:
    """The power under which the labels are likeliest, T refined by so many rounds of EM for each, and how likely."""
    found = [likelihood(held_out, by_em(held_out, start, power, rounds)) for power in powers]
    return powers[int(np.argmax(found))], max(found)


def _joint(block: Block, matrix: Array, power: Array) -> Array:
    """log p(true label, given label | x) up to a constant of each x, ``[B, K]``."""
    classes = jnp.arange(block.log_p.shape[1], dtype=jnp.int32)[None, :]
    known, labels = block.known[:, None], block.labels[:, None]
    ruled_out = ((known >= 0) & (known != classes)) | ((known == KNOWN_WRONG) & (labels == classes))
    prior = jax.nn.log_softmax(power * block.log_p)
    return jnp.where(ruled_out, -jnp.inf, prior + jnp.log(jnp.maximum(matrix.T, LEAST))[block.labels])


@jax.jit
def _bayes(block: Block, matrix: Array, power: Array) -> Array:
    joint = _joint(block, matrix, power)
    return jnp.exp(joint - jax.nn.logsumexp(joint, axis=1, keepdims=True))


@jax.jit
def _total(block: Block, matrix: Array, power: Array) -> Array:
    return jnp.sum(jax.nn.logsumexp(_joint(block, matrix, power), axis=1))


@jax.jit
def _counts(block: Block, matrix: Array, power: Array) -> Array:
    """Expected numbers of examples by given and true class, float32 ``[K, K]``."""
    return jnp.zeros_like(matrix).at[block.labels].add(_bayes(block, matrix, power))


@jax.jit
def _with_prior(counts: Array, start: Array) -> Array:
    joint = counts.T + _KEPT * start
    return joint / jnp.sum(joint, axis=1, keepdims=True)


def _one_rate(matrix: Array, labels: Array) -> Array:
    k = len(matrix)
    often = jnp.zeros(k).at[labels].add(1.0, mode="drop") / len(labels)
    rate = 1 - jnp.sum(jnp.diagonal(matrix) * often)
    others = jnp.where(jnp.eye(k, dtype=bool), 0.0, often[None] + 1e-6)
    return (1 - rate) * jnp.eye(k) + rate * others / jnp.sum(others, axis=1, keepdims=True)


@jax.jit
def _certain(block: Block) -> Array:
    """p(true label | x), ``[B, K]``, certain where it is known and without the given class where that is wrong."""
    probs, k = jnp.exp(block.log_p), block.log_p.shape[1]
    probs = jnp.where((block.known >= 0)[:, None], jax.nn.one_hot(block.known, k), probs)
    given = jax.nn.one_hot(block.labels, k)
    others = (probs + LEAST) * (1 - given)
    wrong = (block.known == KNOWN_WRONG)[:, None]
    return jnp.where(wrong, others / jnp.sum(others, axis=1, keepdims=True), probs)


@jax.jit
def log_of(probs: ArrayLike) -> Array:
    """log p, float32, of what may be 0."""
    return jnp.log(jnp.maximum(jnp.asarray(probs, jnp.float32), LEAST))
