"""Who repeats whom: annotators who agree more often than independent ones of their kind would."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy.sparse import coo_array

from nlx.arguments import in_range
from nlx.crowd.quality import checked_answers

_MOST_ANSWERS = 50  # of an item that are compared
_MOST_PAIRS = 5_000_000  # of answers to the same item that are compared
_MOST_SUSPECTS, _SEEDS, _LARGEST = 2_000, 100, 50  # annotators of whom a group is made; from whom on; its size
_BLOCK = 2**16


class Copies(NamedTuple):
    """Answers that are no evidence of their own.

    Attributes:
      repeated: whether another annotator of the group gives the same label to the item and is counted, bool ``[M]``.
      group: the lowest number among those who repeat one another, one's own for who is alone, int64 ``[A]``.
    """

    repeated: np.ndarray
    group: np.ndarray


def copies(
    posterior: ArrayLike,
    confusion: ArrayLike,
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    rate: float = 0.7,
    error: float = 0.01,
) -> Copies:
    r"""Find groups of annotators who give one another's answers.

    Independent given the true class, a and b agree about an item with probability p, and if one copies the other in a
    share c of the cases with another one. A group's evidence is that of all its pairs, less what it costs to name it:

    .. math::
        p_{ab} = \operatorname{mean}_n \sum_i q_n(i) \sum_j T^a_{ij} T^b_{ij}, \qquad
        e_{ab} = O_{ab} \log \frac{c + (1 - c) p_{ab}}{p_{ab}} + (n_{ab} - O_{ab}) \log (1 - c), \qquad
        \sum_{a < b \in G} e_{ab} > |G| \log A - \log \epsilon

    with O agreements about n items. So many people are found by few common items each. Groups grow greedily from pairs;
    of a group's equal answers to an item one counts. Where two are right against all others they are taken for copies.

    Args:
      posterior: p(true class given all answers), float ``[N, K]``.
      confusion: ``T[a, i, j] = p(annotator a answers j | true class i)``, float ``[A, K, K]``.
      items: which item an answer is about, in ``[0, N)``, int ``[M]``; others do not count.
      annotators: who answers, in ``[0, A)``, int ``[M]``; likewise.
      labels: the answers, in ``[0, K)``, int ``[M]``; likewise.
      rate: c, in (0, 1).
      error: :math:`\epsilon`, about how often an independent crowd has a group, in (0, 1].

    Returns:
      Who, and which answers. Of more than 5 million pairs of answers to an item a part is looked at.

    Raises:
      TypeError: posterior not floating, or numbers not integers.
      ValueError: shapes disagree, or an argument is out of its range.

    Examples:
      >>> said = np.random.default_rng(0).integers(0, 2, (4, 99))
      >>> said[3] = said[0]
      >>> item, who = np.tile(np.arange(99), 4), np.repeat(np.arange(4), 99)
      >>> guesses = np.full((99, 2), 0.5), np.full((4, 2, 2), 0.5)
      >>> copies(*guesses, item, who, said.ravel()).group
      array([0, 1, 2, 0])

    References:
      Dong, Berti-Equille and Srivastava, 2009 (pairs of dependent sources).
    """
    in_range(rate, "rate", 0, 1, above=True)
    in_range(error, "error", 0, 1, above=True)
    belief, item, who, label = (np.asarray(x) for x in checked_answers(posterior, items, annotators, labels))
    matrices, k = np.asarray(confusion, np.float64), belief.shape[1]
    if matrices.ndim != 3 or matrices.shape[1:] != (k, k):
        raise ValueError(f"confusion must be [A, K, K], K as in posterior, got {matrices.shape}")
    counted = np.flatnonzero((item >= 0) & (who >= 0) & (who < len(matrices)) & (label >= 0))
    item, who, label = item[counted], who[counted], label[counted]
    group = _groups(*_evidence(belief, matrices, item, who, label, rate), len(matrices), error)
    shared = np.flatnonzero(np.bincount(group, minlength=len(group))[group[who]] > 1)
    cell = (item[shared].astype(np.int64) * len(group) + group[who[shared]]) * k + label[shared]
    again = np.ones(len(shared), bool)
    again[np.unique(cell, return_index=True)[1]] = False
    repeated = np.zeros(np.shape(items), bool)
    repeated[counted[shared[again]]] = True
    return Copies(repeated, group)


def _evidence(
    belief: np.ndarray, matrices: np.ndarray, item: np.ndarray, who: np.ndarray, label: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of annotators who have an item in common, and e of each."""
    one, other = _pairs(item)
    one, other = (side[who[one] != who[other]] for side in (one, other))
    low, high = np.minimum(who[one], who[other]), np.maximum(who[one], who[other])
    pair, place, common = np.unique(
        low.astype(np.int64) * len(matrices) + high, return_inverse=True, return_counts=True
    )
    a, b = np.divmod(pair, len(matrices))
    agreed = np.bincount(place, label[one] == label[other], len(pair))
    expected = np.zeros(len(pair))
    for i in range(belief.shape[1]):  # of items of class i
        often = np.bincount(place, belief[item[one], i], len(pair))
        for start in range(0, len(pair), _BLOCK):
            rows = slice(start, start + _BLOCK)
            expected[rows] += often[rows] * np.sum(matrices[a[rows], i] * matrices[b[rows], i], axis=1)
    p = np.clip(expected / common, 1e-6, 1 - 1e-6)
    return a, b, agreed * np.log(rate / p + 1 - rate) + (common - agreed) * np.log1p(-rate)


def _pairs(item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers to the same item, each pair once."""
    order = np.argsort(item, kind="stable")
    begin = np.flatnonzero(np.diff(item[order], prepend=-1))
    rank = np.arange(len(item)) - np.repeat(begin, np.diff(begin, append=len(item)))
    order, many = order[rank < _MOST_ANSWERS], int(rank[rank < _MOST_ANSWERS].sum())
    order = order[item[order] % max(-(-many // _MOST_PAIRS), 1) == 0]
    of, parts = item[order], [np.zeros((2, 0), np.int64)]
    for apart in range(1, _MOST_ANSWERS):
        row = np.flatnonzero(of[apart:] == of[:-apart])
        parts.append(np.stack([order[row], order[row + apart]]))
    one, other = np.concatenate(parts, axis=1)
    return one, other


def _groups(a: np.ndarray, b: np.ndarray, evidence: np.ndarray, annotators: int, error: float) -> np.ndarray:
    """The lowest number of everyone's group, ``[A]``."""
    group, cost = np.arange(annotators), np.log(annotators)
    entries = (np.tile(evidence, 2), (np.concatenate([a, b]), np.concatenate([b, a])))
    pairs = coo_array(entries, shape=(annotators, annotators)).tocsr()
    suspects = np.argsort(-pairs.max(axis=1).toarray(), kind="stable")[:_MOST_SUSPECTS]
    table = pairs[suspects][:, suspects].toarray()
    while True:
        seeds = np.argsort(-table.max(axis=1), kind="stable")[:_SEEDS]
        grown = [_grown(table, int(seed), cost) for seed in seeds]
        worth = [table[np.ix_(members, members)].sum() / 2 - cost * len(members) for members in grown]
        if max(worth) <= -np.log(error):
            return group
        found = grown[int(np.argmax(worth))]
        group[suspects[found]] = suspects[found].min()
        table[found], table[:, found] = 0.0, 0.0


def _grown(table: np.ndarray, seed: int, cost: float) -> list[int]:
    """The best group on the way from one annotator to many, without those who are not worth their name."""
    members, gain, gains = [seed], table[seed].copy(), [-cost]
    while len(members) < min(_LARGEST, len(table)):
        gain[members[-1]] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        gains.append(gain[best] - cost)
        members.append(best)
        gain += table[best]
    members = members[: int(np.argmax(np.cumsum(gains))) + 1]
    while len(members) > 2:
        each = table[np.ix_(members, members)].sum(axis=1)
        worst = int(np.argmin(each))
        if each[worst] >= cost:
            break
        members.pop(worst)
    return members
