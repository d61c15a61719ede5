"""What linear models in folds say of a run's labels, which they have not seen: ``nlx.clean`` of its training set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nlx.cleaning.clean import clean, evidence_of
from nlx.cleaning.held_out import judged_as_they_are
from nlx.cleaning.table import LabelTable
from nlx.data.checks import memory
from nlx.data.dataset import Dataset

_BYTES = 40  # of a number of the inputs, while they are prepared and learnt from


def first_answer(data: Dataset, *, folds: int = 5, seed: int = 0) -> LabelTable:
    """The table of ``nlx.clean`` for the training set, whose trusted labels count."""
    split = data.train
    known = split.trusted_label
    trusted = None if known is None else {int(row): int(known[row]) for row in np.flatnonzero(known >= 0)}
    names = data.class_names
    return clean(split.inputs, split.observed, trusted=trusted, class_names=names, folds=folds, seed=seed)


def evidence_for(data: Dataset) -> Callable[[], np.ndarray] | None:
    """What gives p(true label | x) without the label itself, ``[n, K]``; None where linear models cannot judge.

    They can judge vectors and small images in memory that have one label each, of which it does not know all. Their
    folds are the same whatever the run's seed.
    """
    split = data.train
    if (
        data.multi_label
        or len(split) < 2
        or not judged_as_they_are(split.inputs)
        or _BYTES * split.inputs.size > memory()
    ):
        return None
    if split.trusted_label is not None and (split.trusted_label >= 0).all():
        return None
    return lambda: evidence_of(first_answer(data, folds=min(5, len(split))))[:]
