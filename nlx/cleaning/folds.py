"""Probabilities for every example from a network that has not seen its label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from nlx.arguments import ArgumentError
from nlx.training.given import Data, as_split
from nlx.training.loop import Fitted
from nlx.training.stages import Stage
from nlx.training.trainer import Trainer

_ROWS = 2**14  # examples that are predicted at once: scores and probabilities of many take as much again as the result


def folds_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each example, with as much of each class in one as in another.

    Args:
      labels: noisy classes, int ``[n]``, or {0, 1} vectors ``[n, K]``, which are told apart by their first class.
      folds: how many, from 2 to n.
      seed: of the order within a class.

    Returns:
      Folds in ``[0, folds)``, int ``[n]``; their sizes differ by one at most.

    Raises:
      ArgumentError: fewer than 2 folds, or more than examples.
    """
    n = len(labels)
    if not 2 <= folds <= n:
        raise ArgumentError(f"`folds` must lie between 2 and the {n} examples, got {folds}")
    classes = labels if labels.ndim == 1 else np.argmax(labels, axis=1)
    order = np.lexsort((np.random.default_rng(seed).permutation(n), classes))
    fold = np.empty(n, np.int64)
    fold[order] = np.arange(n) % folds
    return fold


class OutOfFold(NamedTuple):
    """Networks of folds, and what each says of the examples that it has not seen.

    Attributes:
      probs: class probabilities, float32 ``[n, K]``.
      fitted: the networks, see :meth:`nlx.training.trainer.Trainer.fit_many`.
    """

    probs: np.ndarray
    fitted: Fitted


def out_of_fold(
    trainer: Trainer, data: Data, key: Array, *, folds: int = 5, stages: int | Stage | Sequence[Stage] = 20
) -> OutOfFold:
    """Train a network for each fold without it, all in one program, and predict every example by the one it is new to.

    Args:
      trainer: what trains; its method's predictions are taken.
      data: with noisy labels, in memory.
      key: typed PRNG key; the folds follow from it too.
      folds: number of networks, from 2 to n.
      stages: what each visits when, within the other folds.

    Raises:
      ArgumentError, DataError: what :meth:`nlx.training.trainer.Trainer.fit_many` raises, or folds out of range.
    """
    split = as_split(data)
    seed = int(jax.random.bits(jax.random.fold_in(key, folds), dtype="uint32"))
    fold = folds_of(split.observed, folds, seed)
    rows = [np.flatnonzero(fold != i) for i in range(folds)]
    fitted = trainer.fit_many(split, jax.random.split(key, folds), stages, rows=rows)
    several = split.observed.ndim == 2
    probs: np.ndarray | None = None
    for i in range(folds):
        own, state = np.flatnonzero(fold == i), fitted.member(i).state
        for start in range(0, len(own), _ROWS):
            rows_of_part = own[start : start + _ROWS]
            part = trainer.predict(state, split.take(rows_of_part), multi_label=several)
            probs = np.empty((len(split), part.shape[1]), np.float32) if probs is None else probs
            probs[rows_of_part] = part
    assert probs is not None
    return OutOfFold(probs, fitted)
