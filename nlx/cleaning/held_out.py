"""Beliefs about labels from models that have not seen them: linear discriminants out of fold, in closed form.

They are made to judge labels, not to be good: they cost a few matrix products, and take no part in training.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, softmax

from nlx import transitions
from nlx.cleaning.arrays import standard_form
from nlx.cleaning.estimates import estimate
from nlx.cleaning.folds import folds_of

_MOST_ROWS, _MOST_DIMENSIONS, _FOLDS = 20_000, 512, 10
_ENOUGH = 5  # examples for each number of an example
_FEW_PIXELS = 1024  # of an image, up to which they say enough for labels to be judged by
_TEMPERATURES = 2.0 ** np.arange(-1, 4.5, 0.5)


class Discriminant:
    """Linear discriminants of vectors, each fold's from the others; one for any labels of these examples.

    Args:
      inputs: ``[n, ...]``; more than 512 values of an example are projected at random.
      labels: by which folds are balanced, int ``[n]`` or {0, 1} ``[n, K]``.

    Attributes:
      rows_of_folds: of the examples of each fold, int.
      width: numbers of an example.
    """

    def __init__(self, inputs: np.ndarray, labels: np.ndarray):
        x = inputs.reshape(len(inputs), -1).astype(np.float32)
        if x.shape[1] > _MOST_DIMENSIONS:
            x = x @ np.random.default_rng(0).standard_normal((x.shape[1], _MOST_DIMENSIONS), np.float32)
        self._x = np.nan_to_num(standard_form(x).apply(x)).astype(np.float64)
        self.width = self._x.shape[1]
        fold = folds_of(labels, min(_FOLDS, len(x)), 0)
        self.rows_of_folds = [np.flatnonzero(fold == i) for i in range(fold.max() + 1)]
        self._squares = [self._x[rows].T @ self._x[rows] for rows in self.rows_of_folds]

    def scores(self, labels: np.ndarray, one_class: bool) -> np.ndarray:
        """Scores of other labels of these examples, out of fold.

        Args:
          labels: {0, 1} ``[n, K]``.
          one_class: whether exactly one class is true of an example.

        Returns:
          Unnormalized log p(class|x), or the log-odds of each class, float ``[n, K]``.
        """
        x, solve = self._x, _one_class if one_class else _each_class
        sums = [labels[rows].T.astype(np.float64) @ x[rows] for rows in self.rows_of_folds]
        counts = [labels[rows].sum(axis=0, dtype=np.float64) for rows in self.rows_of_folds]
        whole, all_sums, all_counts = sum(self._squares), sum(sums), sum(counts)
        out, total = np.empty(labels.shape), x.sum(axis=0)
        for rows, square, part, count in zip(self.rows_of_folds, self._squares, sums, counts, strict=True):
            size, held_in = len(x) - len(rows), np.asarray(all_counts - count)
            rest = (whole - square, all_sums - part, total - x[rows].sum(axis=0))
            weight, bias = solve(*rest, np.maximum(held_in, 1e-3), size)
            out[rows] = x[rows] @ weight + bias
        return out


def _one_class(square: np.ndarray, sums: np.ndarray, total: np.ndarray, counts: np.ndarray, n: int) -> tuple:
    mean = sums / counts[:, None]
    weight = np.linalg.solve(_shrunk((square - sums.T @ mean) / n, n), mean.T)
    return weight, np.log(counts / n) - 0.5 * np.sum(mean.T * weight, axis=0)


def _each_class(square: np.ndarray, sums: np.ndarray, total: np.ndarray, counts: np.ndarray, n: int) -> tuple:
    """A discriminant of two classes for each column; the covariance within them differs by one outer product."""
    share = np.clip(counts / n, 1e-6, 1 - 1e-6)
    has, has_not = sums / counts[:, None], (total - sums) / np.maximum(n - counts, 1e-3)[:, None]
    apart, mean = (has - has_not).T, total / n
    weight = np.linalg.solve(_shrunk(square / n - np.outer(mean, mean), n), apart)
    weight /= np.maximum(1 - share * (1 - share) * np.sum(apart * weight, axis=0), 1e-3)
    return weight, np.log(share / (1 - share)) - 0.5 * np.sum((has + has_not).T * weight, axis=0)


def _shrunk(covariance: np.ndarray, n: int) -> np.ndarray:
    d = len(covariance)
    part = d / (n + d)
    return (1 - part) * covariance + (part * np.trace(covariance) / d + 1e-9) * np.eye(d)


class Judge(NamedTuple):
    """What models that have not seen an example's label believe of it.

    Attributes:
      rows: of the training set, those that are judged, int ``[m]``: all, or 20,000 at random.
      one_class: whether a label is one class.
      given: their labels as vectors, {0, 1} ``[m, K]``.
      beliefs: p(true label given input and given label), float32 ``[m, K]``; None where there are several labels to an
        example: what is missing cannot be told from what is hard to see.
      models: what gives scores to other labels of these rows.
    """

    rows: np.ndarray
    one_class: bool
    given: np.ndarray
    beliefs: np.ndarray | None
    models: Discriminant

    @property
    def sparse(self) -> bool:
        """Whether there are so few examples for their numbers that small gains may be none."""
        return len(self.rows) < _ENOUGH * self.models.width


def judged_as_they_are(inputs: Any) -> TypeGuard[np.ndarray]:
    """Whether linear models can tell classes apart by a split's inputs: vectors and small images, in memory."""
    return isinstance(inputs, np.ndarray) and (inputs.ndim == 2 or inputs[0].size <= _FEW_PIXELS)


def rows_to_judge(n: int) -> np.ndarray:
    """Which of n examples are judged, in order: all, or 20,000 at random."""
    return np.sort(np.random.default_rng(0).permutation(n)[:_MOST_ROWS])


def judge(rows: np.ndarray, inputs: np.ndarray, given: np.ndarray, num_classes: int) -> Judge:
    """Beliefs about labels by held-out noisy likelihood and Bayes' rule; no true label enters.

    Out-of-fold scores get the temperature that makes the given labels likeliest, with a share of random ones beside it,
    so that a weak model is unsure rather than wrong. The transition matrix comes from the confident joint. A model that
    cannot tell classes apart takes hard examples for wrong ones.

    Args:
      rows: of the training set, see :func:`rows_to_judge`.
      inputs: of these rows, ``[m, ...]``: vectors, small images, or features.
      given: labels of the whole training set, int ``[n]`` or {0, 1} ``[n, K]``.
      num_classes: K.
    """
    labels, one_class = given[rows], given.ndim == 1
    models, vectors = Discriminant(inputs, labels), as_vectors(labels, num_classes)
    if not one_class:
        return Judge(rows, False, vectors, None, models)
    probs = _held_out_probs(models, labels, num_classes)
    matrix = jnp.asarray(_transition(probs, labels))
    beliefs = transitions.posterior(jnp.log(jnp.maximum(probs, 1e-12)), labels, matrix)
    return Judge(rows, True, vectors, np.asarray(beliefs), models)


def noise_rate(inputs: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Share of the given labels, int ``[n]``, that look wrong, see :func:`nlx.cleaning.estimates.estimate`.

    The inputs are as for :func:`judge`, of all examples.
    """
    rows = rows_to_judge(len(labels))
    probs = _held_out_probs(Discriminant(inputs[rows], labels[rows]), labels[rows], num_classes)
    return float(estimate(probs, labels[rows]).noise_rate.value)


def held_out_transition(inputs: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The transition matrix by the confident joint of linear discriminants that have not seen an example's label.

    Args:
      inputs: ``[n, ...]``: vectors or small images.
      labels: given ones, int ``[n]``, of every class some.
      num_classes: K.

    Returns:
      T, float32 ``[K, K]``.
    """
    return _transition(_held_out_probs(Discriminant(inputs, labels), labels, num_classes), labels)


def as_vectors(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels as {0, 1} uint8 ``[n, K]``."""
    return labels if labels.ndim == 2 else (labels[:, None] == np.arange(num_classes)).astype(np.uint8)


def _likeliest(own: list[np.ndarray], num_classes: int) -> float:
    """The temperature under which the given labels are likeliest, a share of them being random."""

    def likelihood(log_p: np.ndarray) -> float:
        p, random = np.exp(log_p), 0.2
        for _ in range(20):
            mixed = (1 - random) * p + random / num_classes
            random = float(np.clip(np.mean(random / num_classes / mixed), 1e-4, 0.999))
        return float(np.mean(np.log((1 - random) * p + random / num_classes)))

    return float(_TEMPERATURES[np.argmax([likelihood(log_p) for log_p in own])])


def _held_out_probs(models: Discriminant, labels: np.ndarray, num_classes: int) -> np.ndarray:
    scores = models.scores(as_vectors(labels, num_classes), True)
    own = [log_softmax(scores / t, axis=1)[np.arange(len(labels)), labels] for t in _TEMPERATURES]
    return softmax(scores / _likeliest(own, num_classes), axis=1).astype(np.float32)


def _transition(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(transitions.from_confident_joint(transitions.confident_joint(probs, labels), labels))
