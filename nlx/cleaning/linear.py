"""Linear models in folds, in the setting by which they predict labels best that they have not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax import Array

from nlx.cleaning.folds import OutOfFold, folds_of, out_of_fold
from nlx.cleaning.trainers import FEW_CLASSES, MANY, Setting, trainer_for
from nlx.data.dataset import Split
from nlx.metrics import mean_average_precision
from nlx.training.trainer import Trainer

_SOFTER = Setting(q=0.3)
_OF_MANY_CLASSES = (FEW_CLASSES, _SOFTER, Setting(q=0.3, decay=0.1))
_OF_VECTORS = Setting(decay=0.1)
_WEAK = 0.5  # share of the labels that are predicted, below which another setting is tried
_FEW = 40  # classes, up to which the first setting is the right one unless it is weak
_EACH = 64  # examples of a class that are enough to choose by


class Linear(NamedTuple):
    """Linear models in folds, what trains such, and how they learnt."""

    trainer: Trainer
    found: OutOfFold
    setting: Setting


def linear_in_folds(split: Split, num_classes: int, key: Array, folds: int, epochs: int | None = None) -> Linear:
    """Linear models in folds, see :func:`nlx.cleaning.folds.out_of_fold`, in the setting that suits.

    With q = 0.7 next to nothing is learnt from a label that has the probability of one class among many, and a decay
    that suits ten classes keeps the probabilities of a thousand alike. So settings are tried where there are more than
    40 classes, on 64 examples of each or 32,000 where there are more, and the first fold alone judges where there are
    as many as that; else where fewer than half of the labels of fewer than 32,000 examples are predicted.

    Args:
      split: prepared features and the labels to learn.
      num_classes: K.
      key: typed PRNG key.
      folds: number of models.
      epochs: passes over the examples; None for as many as their number suggests.
    """
    several = split.observed.ndim == 2
    if num_classes > _FEW and not several:
        if len(split) < MANY:
            return _best_in_folds(split, num_classes, key, folds, epochs)
        best = _best_of_one_fold(split, num_classes, key, folds, epochs)
        return _fitted(best, split, num_classes, key, folds, epochs)
    first = _fitted(FEW_CLASSES, split, num_classes, key, folds, epochs)
    if len(split) >= MANY or _hits(first, split) >= _WEAK:
        return first
    other = _fitted(_OF_VECTORS if several else _SOFTER, split, num_classes, key, folds, epochs)
    return max(first, other, key=lambda linear: _hits(linear, split))


def trials(n: int, num_classes: int, folds: int) -> float:
    """What it takes to choose a setting for so many examples of one label each, in trainings of all folds."""
    if num_classes <= _FEW:
        return 0.0
    settings = float(len(_OF_MANY_CLASSES))
    return settings if n < MANY else settings * min(n, _enough(num_classes)) / n / folds


def fits(n: int, num_classes: int, folds: int) -> float:
    """What :func:`linear_in_folds` takes, in such trainings: 1, and more of many classes."""
    tried = trials(n, num_classes, folds)
    return tried if tried and n < MANY else 1 + tried


def setting_for(split: Split, num_classes: int, key: Array, folds: int = 5) -> Setting:
    """The setting for one linear model of all examples, whose labels are clean."""
    if num_classes <= _FEW or split.observed.ndim == 2:
        return FEW_CLASSES
    if len(split) < MANY:
        return _best_in_folds(split, num_classes, key, min(folds, len(split))).setting
    return _best_of_one_fold(split, num_classes, key, folds)


def _best_in_folds(split: Split, num_classes: int, key: Array, folds: int, epochs: int | None = None) -> Linear:
    """The models that predict held-out labels best."""
    tried = (_fitted(setting, split, num_classes, key, folds, epochs) for setting in _OF_MANY_CLASSES)
    return max(tried, key=lambda linear: _hits(linear, split))


def _best_of_one_fold(split: Split, num_classes: int, key: Array, folds: int, epochs: int | None = None) -> Setting:
    """The setting in which one model predicts the labels of the first fold best, of as many examples as are enough."""
    if len(split) > _enough(num_classes):
        split = split.take(np.sort(np.random.default_rng(0).permutation(len(split))[: _enough(num_classes)]))
    fold = folds_of(split.observed, folds, 0)
    seen, new = (split.take(np.flatnonzero(rows)) for rows in (fold != 0, fold == 0))

    def hits(setting: Setting) -> float:
        trainer, stage = trainer_for(seen, None, len(seen), num_classes, epochs=epochs, setting=setting)
        probs = trainer.predict(trainer.fit(seen, key, stage).state, new)
        return float(np.mean(probs.argmax(axis=1) == new.observed))

    return max(_OF_MANY_CLASSES, key=hits)


def _enough(num_classes: int) -> int:
    return max(MANY, _EACH * num_classes)


def _fitted(
    setting: Setting, split: Split, num_classes: int, key: Array, folds: int, epochs: int | None = None
) -> Linear:
    size = len(split) - len(split) // folds
    trainer, stage = trainer_for(split, None, size, num_classes, epochs=epochs, setting=setting)
    return Linear(trainer, out_of_fold(trainer, split, key, folds=folds, stages=stage), setting)


def _hits(linear: Linear, split: Split) -> float:
    """Share of the labels that are held for likeliest; of several to an example the mean average precision."""
    probs = linear.found.probs
    if split.observed.ndim == 2:
        return float(mean_average_precision(probs, split.observed))
    return float(np.mean(probs.argmax(axis=1) == split.observed))
