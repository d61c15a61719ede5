"""Crowds made to order, for data sets whose true labels are known: who answers what, and how each of them errs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlx.data.dataset import DataError

KINDS = {"skilled": 0.6, "lazy": 0.15, "adversarial": 0.1, "colluding": 0.15}
"""Kinds of annotators, and their shares of a crowd."""
_PEOPLE = 50
_LAZY, _COPIED = 0.8, 0.55  # answers that are a habit; share of the colluders' common answers that is right


class Planted(NamedTuple):
    """A crowd's answers, and what is known of it.

    Attributes:
      item: int32 ``[M]``.
      annotator: int32 ``[M]``.
      label: int32 ``[M]``.
      confusion: ``T[a, i, j] = p(annotator a answers j | true class i)``, float64 ``[A, K, K]``.
      kind: of each annotator, one of ``KINDS``, str ``[A]``.
    """

    item: np.ndarray
    annotator: np.ndarray
    label: np.ndarray
    confusion: np.ndarray
    kind: np.ndarray


def planted_crowd(
    labels: np.ndarray, num_classes: int, *, per_item: int, annotators: int, seed: int = 0, skilled_only: bool = False
) -> Planted:
    """Answers of a crowd to items whose true labels are known.

    The skilled are right in 60 to 95 % of the cases, and each has class pairs of their own to confuse; the lazy give a
    favourite class four times in five; the adversarial take every class for the next one; the colluding copy one
    another's answers, of which 55 % are right.

    Args:
      labels: true classes, int ``[n]``.
      num_classes: K, at least 2.
      per_item: answers an item, each by another annotator.
      annotators: A.
      seed: of everything random.
      skilled_only: a crowd without the other kinds.

    Raises:
      DataError: fewer annotators than answers an item, or none.
    """
    if not 1 <= per_item <= annotators:
        raise DataError(f"an item must have between 1 and {annotators} answers, as many as annotators, got {per_item}.")
    rng, n, k, eye = np.random.default_rng([seed, 0x63726F]), len(labels), num_classes, np.eye(num_classes)
    shares = np.array(list(KINDS.values()))
    many = np.round(shares.cumsum() * annotators).astype(int)
    kind = np.array(list(KINDS))[np.searchsorted(many, np.arange(annotators), side="right").clip(max=len(KINDS) - 1)]
    kind = np.full(annotators, "skilled") if skilled_only else kind
    skill = rng.uniform(0.6, 0.95, annotators)
    confusion = np.empty((annotators, k, k))
    for a in range(annotators):
        if kind[a] == "lazy":
            confusion[a] = (1 - _LAZY) / k + _LAZY * eye[rng.integers(k)]
        elif kind[a] == "adversarial":
            confusion[a] = 0.8 * np.roll(eye, 1, axis=1) + 0.2 / k
        else:
            right = _COPIED if kind[a] == "colluding" else skill[a]
            errors = rng.dirichlet(np.full(k, 0.5), k) * (1 - eye) + 1e-9
            errors = (1 - eye) / (k - 1) if kind[a] == "colluding" else errors / errors.sum(axis=1, keepdims=True)
            confusion[a] = right * eye + (1 - right) * errors
    item = np.repeat(np.arange(n), per_item)
    who = rng.random((n, annotators)).argpartition(per_item - 1, axis=1)[:, :per_item].ravel()
    copied = _draw(rng, np.where(eye > 0, _COPIED, (1 - _COPIED) / (k - 1))[labels])
    own = np.empty(len(item), np.int64)
    for start in range(0, len(item), 2**18):
        rows = slice(start, start + 2**18)
        own[rows] = _draw(rng, confusion[who[rows], labels[item[rows]]])
    said = np.where(kind[who] == "colluding", copied[item], own)
    return Planted(item.astype(np.int32), who.astype(np.int32), said.astype(np.int32), confusion, kind)


def _draw(rng: np.random.Generator, probs: np.ndarray) -> np.ndarray:
    """A class for each row of probabilities ``[m, K]``."""
    return np.minimum((probs.cumsum(axis=1) < rng.random((len(probs), 1))).sum(axis=1), probs.shape[1] - 1)


def planted_answers(labels: np.ndarray, class_names: tuple[str, ...], spec: str, seed: int) -> dict[str, np.ndarray]:
    """A table of answers by a crowd of 50, as ``planted:P`` asks for, P of them an item.

    Raises:
      DataError: P is no number of answers.
    """
    count = spec.partition(":")[2]
    if not count.isdigit():
        raise DataError(f"`answers`={spec} is not known: write planted:3, say, or the path of a table.")
    crowd = planted_crowd(labels, len(class_names), per_item=int(count), annotators=_PEOPLE, seed=seed)
    names = np.array([f"{kind} {a}" for a, kind in enumerate(crowd.kind)])
    said = np.array(class_names)[crowd.label]
    return {"item": crowd.item, "annotator": names[crowd.annotator], "label": said}
