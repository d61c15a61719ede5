"""How much is wrong, with intervals, and a list of wrong labels whose precision is promised: without any true label.

Three assumptions carry both: a model is right about as often as it says where it is surest (of the *anchors*);
noise there is no more frequent than elsewhere; and by which classes a true one is replaced depends on that class alone.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.stats import beta, norm

from nlx import transitions
from nlx.cleaning.bayes import Block, HeldOut, by_em, likeliest_power, posterior
from nlx.cleaning.blocks import row_blocks
from nlx.cleaning.evidence import Weighed, weigh
from nlx.methods.top import Top

CONFIDENCE = 0.95
ENOUGH = 2**24
"""Probabilities that estimates are made from, at most."""
_ANCHORS = 0.4  # share of the examples, the surest
_SOFT = (0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8)  # powers of p that may explain noise by doubt
_ROUNDS = 10  # of EM
_DOUBT = 0.65  # of the softest power, and at most 1: as far as the classifier may be less sure than its likelihood says
_CUTS = 2048  # scores at which a list may end
_CELLS = 2**22  # examples × classes that are looked at at once


class Interval(NamedTuple):
    """An estimate between bounds: scalars, or arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def percent(self, sign: str = "", unit: str = " %") -> str:
        """A scalar in words, such as ``2.4 % [1.5, 3.3]``."""
        return f"{100 * self.value:{sign}.1f}{unit} [{100 * self.low:{sign}.1f}, {100 * self.high:{sign}.1f}]"


class Estimates(NamedTuple):
    """What is known of the noise; bounds hold both what sampling and what the assumptions leave open.

    Attributes:
      noise_rate: share of given labels that are wrong.
      wrong_by_label: share of wrong ones among the labels of each given class, ``[K]``.
      transition: ``T[i, j] = p(noisy = j | true = i)``, ``[K, K]``.
      remaining: share of labels that are still wrong after cleaning.
    """

    noise_rate: Interval
    wrong_by_label: Interval
    transition: Interval
    remaining: Interval


def estimate(probs: ArrayLike, labels: ArrayLike) -> Estimates:
    """Noise, T and what cleaning leaves, from held-out probabilities and the labels.

    Between the bounds lie five readings of the same evidence: the posterior's own; the softest and a harder one, which
    take a disagreement for the model's mistake or for the label's; the confident joint's; and, below, noise no more
    frequent than among the examples that the model is surest of.

    Args:
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``: a table's column ``evidence``,
        or ``out_of_fold`` where there is none.
      labels: given classes in ``[0, K)``, int ``[n]``.

    Returns:
      Intervals; `benchmarks/promises.py` counts how often they hold. Of more than 17 million probabilities they come
      from those of random examples, by whose number they are as wide.
    """
    return NoiseView(probs, labels).estimates


def decided(probs: ArrayLike, labels: ArrayLike, precision: float, confidence: float = CONFIDENCE) -> np.ndarray:
    r"""A list of labels of which at least a given share is wrong.

    It goes down the scores as far as a lower bound of its precision allows. Among the anchors, a listed label is wrong
    unless the model is. Of the others, wrong ones are at least as many as the noise of the anchors makes:

    .. math:: W(t) \ge \lambda \sum_{x} \sum_{j : s(x, j) \le t} \sum_{i \ne j} p(i \mid x) \, T_{ij}, \qquad
              \lambda = \frac{\text{noise of the anchors, at least}}{\text{noise of the anchors by } T}

    with s(x, j) the score that x would have if it were labelled j; what is listed beyond that may be right.

    Args:
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``.
      labels: given classes in ``[0, K)``, int ``[n]``.
      precision: the share that is wrong, at least, above 0 and below 1.
      confidence: of each bound that goes into it.

    Returns:
      Which labels are listed, bool ``[n]``; none where nothing can be promised.
    """
    return NoiseView(probs, labels, confidence).decided(precision)


class Anchors(NamedTuple):
    """The examples that the model is surest of, and what noise there is among them.

    Attributes:
      rows: which they are, bool ``[n]``.
      differs: those whose likeliest class is not the given one, bool ``[n]``.
      least: noise that is surely there, as a share of what T says.
      mistaken: probability that an example that differs is the model's mistake, ``[n]``.
    """

    rows: np.ndarray
    differs: np.ndarray
    least: float
    mistaken: np.ndarray


class NoiseView:
    """What held-out evidence says of the noise: each part is found once, when it is first asked for.

    Args:
      probs: p(true label | x) by models that have not seen the label, float ``[n, K]``: a table's column ``evidence``,
        or ``out_of_fold`` where there is none.
      labels: given classes in ``[0, K)``, int ``[n]``.
      confidence: of each bound that goes into a decided list.
      weighed: :func:`nlx.cleaning.evidence.weigh` of both, where it is known.
    """

    def __init__(
        self,
        probs: ArrayLike | Top,
        labels: ArrayLike,
        confidence: float = CONFIDENCE,
        weighed: Weighed | None = None,
    ):
        self.held_out = HeldOut(probs, labels) if weighed is None else weighed.held_out
        self.labels, self._confidence, self._weighed = self.held_out.labels, confidence, weighed

    @cached_property
    def estimates(self) -> Estimates:
        """See :func:`estimate`."""
        some = self.held_out.some(ENOUGH)
        if some is not self.held_out:
            return NoiseView(some.probs, some.labels, self._confidence).estimates
        own = self.weighed.posterior
        n, k = own.shape
        count = np.bincount(self.labels, minlength=k)
        readings = [(self._wrong_by_label(own), self.weighed.transition.astype(np.float64))]
        least = self.anchors.least
        readings.append((readings[0][0] * least, np.eye(k) + least * (readings[0][1] - np.eye(k))))
        soft, hard = self._read(self._soft), self._read(2 * self.weighed.power)
        readings += [(self._wrong_by_label(q), t) for q, t in (soft, hard)]
        joint = np.asarray(transitions.calibrate_joint(self.held_out.joint, self.labels), np.float64)
        counted = np.asarray(self.held_out.counted, np.float64)
        readings.append((1 - np.diag(joint) / np.maximum(joint.sum(axis=1), 1e-9), counted))
        by_label, matrices = (np.stack(part) for part in zip(*readings, strict=True))
        rows = (count @ matrices[0])[:, None].clip(1)
        best = own.argmax(axis=1)
        left = [1 - float(np.mean(own.max(axis=1)))]
        softer = self._read(min(1.0, _DOUBT * self._soft))
        left += [1 - float(np.mean(_entries(q, best))) for q, _ in (soft, softer, hard)]
        return Estimates(
            _between(by_label @ count / n, n),
            _between(by_label, count.clip(1)),
            _between(matrices, rows),
            _between(np.array(left), n),
        )

    def decided(self, precision: float) -> np.ndarray:
        """See :func:`decided`."""
        n, parts = len(self.labels), row_blocks(*self.held_out.shape, _CELLS)
        own = np.concatenate([_entries(self._scores(part)[1], self.labels[part]) for part in parts])
        cuts = np.unique(np.sort(own)[:: -(-n // _CUTS)])
        place = np.searchsorted(cuts, own)  # the first cut that lists it
        others = np.zeros(len(cuts) + 1)
        anchors, z = self.anchors, self._deviations
        for part in parts:
            noisy, s = self._scores(part)
            mass = np.where(anchors.rows[part, None], 0, noisy * (1 - s))
            others += np.bincount(np.searchsorted(cuts, s).ravel(), mass.ravel(), len(cuts) + 1)
        listed, certain, mistakes = (
            np.cumsum(np.bincount(place, weight, len(cuts) + 1)[:-1])
            for weight in (np.ones(n), anchors.differs.astype(float), np.where(anchors.differs, anchors.mistaken, 0))
        )
        others = anchors.least * np.cumsum(others[:-1])
        wrong = np.maximum(certain - (mistakes + z * np.sqrt(mistakes) + 1), 0)
        wrong += np.minimum(listed - certain, np.maximum(others - z * np.sqrt(others), 0))
        kept = np.flatnonzero(wrong >= precision * listed)
        chosen: np.ndarray = own <= cuts[kept[-1]] if len(kept) else np.zeros(n, bool)
        return chosen

    @cached_property
    def weighed(self) -> Weighed:
        """Bayes' rule with the evidence."""
        return weigh(self.held_out.probs, self.labels) if self._weighed is None else self._weighed

    @cached_property
    def anchors(self) -> Anchors:
        """The surest, and how far noise there is surely noise."""
        powers = np.float32(self.weighed.power), np.float32(self._soft)
        about = [_surest(block, *powers) for block in self.held_out]
        best, top, doubt = (np.concatenate(parts) for parts in zip(*about, strict=True))
        n = len(self.labels)
        rows = np.zeros(n, bool)
        rows[np.argsort(-top, kind="stable")[: max(1, int(_ANCHORS * n))]] = True
        differs = rows & (best != self.labels)
        m, x, mistakes = int(rows.sum()), int(differs.sum()), float(doubt[rows].sum())
        surely = m * float(beta.ppf(1 - self._confidence, x, m - x + 1)) if x else 0.0
        surely -= mistakes + self._deviations * np.sqrt(mistakes) + 1
        noise = 1 - np.diag(self.weighed.transition)[best]
        least = float(np.clip(surely / max(noise[rows].sum(), 1e-9), 0, 1))
        return Anchors(rows, differs, least, doubt / np.maximum(doubt + noise * least, 1e-9))

    @cached_property
    def _soft(self) -> float:
        return likeliest_power(self.held_out.some(ENOUGH), self.held_out.start, _ROUNDS, _SOFT)[0]

    @property
    def _deviations(self) -> float:
        return float(norm.ppf(self._confidence))

    def _scores(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """p(noisy label | x) and the score of every label that an example could have, ``[rows, K]`` each."""
        p = np.asarray(_sharpened(self.held_out.block(rows).log_p, np.float32(self.weighed.power)))
        noisy = p @ self.weighed.transition
        s: np.ndarray = p * np.diag(self.weighed.transition) / np.maximum(noisy, 1e-12)
        return noisy, s

    def _read(self, power: float) -> tuple[np.ndarray, np.ndarray]:
        """Posterior and T under another power of p."""
        reading = by_em(self.held_out, self.held_out.start, power, _ROUNDS)
        found = np.concatenate([posterior(block, reading) for block in self.held_out])
        return found, np.asarray(reading.matrix, np.float64)

    def _wrong_by_label(self, posterior: np.ndarray) -> np.ndarray:
        """Share of wrong labels in each given class, ``[K]``."""
        k, wrong = posterior.shape[1], 1 - _entries(posterior, self.labels)
        return np.bincount(self.labels, wrong, k) / np.bincount(self.labels, minlength=k).clip(1)


def _entries(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each row ``[n, K]`` that of its label, ``[n]``."""
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


@jax.jit
def _sharpened(log_p: jax.Array, power: jax.Array) -> jax.Array:
    return jax.nn.softmax(power * log_p)


@jax.jit
def _surest(block: Block, power: jax.Array, soft: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The likeliest class under a power, how likely it is, and how much is left for others under a softer one."""
    p = _sharpened(block.log_p, power)
    return jnp.argmax(p, axis=1), jnp.max(p, axis=1), 1 - jnp.max(_sharpened(block.log_p, soft), axis=1)


def _between(readings: np.ndarray, size: np.ndarray | float) -> Interval:
    """The first of several readings, ``[r, ...]``, between the least and the most, with what sampling adds."""
    least, most = readings.min(axis=0), readings.max(axis=0)
    below, above = (1.96 * np.sqrt(p * (1 - p) / size) for p in (least, most))
    above = np.where(most * size < 1, 3 / size, above)  # the rule of three
    return Interval(readings[0], np.clip(least - below, 0, 1), np.clip(most + above, 0, 1))
