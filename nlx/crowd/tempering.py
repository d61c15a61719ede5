"""How much answers to the same item are worth together, found by predicting each of them from the others."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.crowd.em import Consensus, Known, believe, count, known_of, seen
from nlx.crowd.matrices import lean_of, leaning_weights
from nlx.crowd.sums import Sizes, Sums, scattered

_WEIGHTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SPREAD = 0.5  # of log w before anything is known
_ENOUGH = 20  # trusted labels that are asked in place of answers
_MOST = 2**20  # answers that are asked
_TINY = 1e-30  # of a probability


class Tempered(NamedTuple):
    """Beliefs that are as sure as answers that were not seen bear out.

    Attributes:
      posterior: p(true class given all answers), float32 ``[N, K]``.
      weight: w, of the answers' log-likelihood, float32; 1 where they are as good as independent.
    """

    posterior: Array
    weight: Array


def tempered(
    consensus: Consensus,
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    smoothing: float = 0.01,
    strength: float | None = None,
    groups: ArrayLike | None = None,
    log_prior: ArrayLike | None = None,
    trusted: ArrayLike | None = None,
) -> Tempered:
    r"""Dawid-Skene's beliefs, in which an answer counts for as much as it has proved to be worth.

    .. math:: q_n(i) \propto \pi_i \prod_{(a, j) \in n} (T^a_{ij})^w, \qquad
        w = \arg\max_{w \le 1} \sum_{n, (a, j)} \log \sum_i q_n^{-a}(i)\, \hat T^a_{ij} - 2 \log^2 w

    Every answer is predicted from the others to its item, :math:`q_n^{-a}`, by matrices :math:`\hat T` without that
    item's part in them: they would have learnt its answers by heart. Where 20 true labels or more are trusted, these
    are predicted in place of answers. Mistakes that all make together show in nothing but trusted labels.

    Args:
      consensus: what :func:`dawid_skene` has found in the same answers, with the same options as here.
      items: as there, and so are the others.
      annotators: likewise.
      labels: likewise.
      smoothing: likewise.
      strength: likewise.
      groups: likewise.
      log_prior: likewise.
      trusted: likewise.

    Raises:
      TypeError, ValueError: as there.
    """
    num_annotators, k, _ = consensus.confusion.shape
    sizes = Sizes(consensus.posterior.shape[0], num_annotators, k)
    sums = scattered(items, annotators, labels, sizes)
    known = known_of(sums, log_prior, trusted, sizes)
    known = known._replace(telling=None) if strength == 0 else known
    lean = lean_of(smoothing, strength, groups, num_annotators)
    weights = leaning_weights(count(sums, sizes, seen(consensus.posterior, known)), *lean)
    weight = _fitting_weight(_part(sums), sizes, known, consensus, weights)
    posterior, _ = believe(sums, sizes, known, consensus.confusion**weight, consensus.class_prior)
    return Tempered(posterior, weight)


def _part(sums: Sums) -> Sums:
    """All answers to some of the items, where there are more answers than need be asked."""
    if len(sums.item) <= _MOST or isinstance(sums.item, jax.core.Tracer):
        return sums
    rows = np.flatnonzero(np.asarray(sums.item) % -(-len(sums.item) // _MOST) == 0)
    return Sums(sums.item[rows], sums.cell[rows])


@partial(jax.jit, static_argnames="sizes")
def _fitting_weight(sums: Sums, sizes: Sizes, known: Known, consensus: Consensus, weights: Array) -> Array:
    n, a, k = sizes
    item, there = jnp.minimum(sums.item, n - 1), sums.item < n
    cell = jnp.minimum(sums.cell, a * k - 1)
    own = seen(consensus.posterior, known)[item]
    given = weights.swapaxes(1, 2).reshape(-1, k)[cell] - own
    whole = jnp.sum(weights, axis=2)[cell // k] - own
    row = jnp.log(jnp.maximum(given, _TINY)) - jnp.log(jnp.maximum(whole, _TINY))
    said = jax.ops.segment_sum(row, sums.item, n, mode="drop")
    answers = jax.ops.segment_sum(there.astype(row.dtype), sums.item, n, mode="drop")
    prior = jnp.broadcast_to(
        jnp.log(consensus.class_prior)[None] if known.log_prior is None else known.log_prior, (n, k)
    )
    several, others = there & (answers[item] > 1), said[item] - row
    true = jnp.full(n, -1, jnp.int32) if known.trusted is None else known.trusted
    asked = (true >= 0) & (answers > 0)

    def fit(weight: Array) -> Array:
        predicted = jax.nn.logsumexp(jax.nn.log_softmax(prior[item] + weight * others) + row, axis=1)
        belief = jax.nn.log_softmax(prior + weight * said)
        right = jnp.take_along_axis(belief, jnp.maximum(true, 0)[:, None], axis=1)[:, 0]
        by_answers, by_truth = (jnp.sum(jnp.where(w, x, 0.0)) for w, x in ((several, predicted), (asked, right)))
        return jnp.where(jnp.sum(asked) >= _ENOUGH, by_truth, by_answers) - jnp.log(weight) ** 2 / (2 * _SPREAD**2)

    grid = jnp.asarray(_WEIGHTS, jnp.float32)
    return grid[jnp.argmax(jax.lax.map(fit, grid))]
