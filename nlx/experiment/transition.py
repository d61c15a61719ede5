"""Where a given transition matrix comes from: the truth, trusted pairs, a file, or a plain run's predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nlx import transitions
from nlx.cleaning.table import read_labels
from nlx.data import Dataset
from nlx.experiment.options import ConfigError


def true_transition(dataset: Dataset) -> np.ndarray | None:
    """How the training set's true labels came out as noisy ones.

    Args:
      dataset: with true training labels, or without.

    Returns:
      T, float32 ``[K, K]``, or ``[K, 2, 2]`` for several labels; None where it cannot be known.
    """
    train = dataset.train
    if train.label is None or train.noisy_label is None or dataset.noisy_names is not None:
        return None
    inside = np.ones(len(train), bool) if train.outlier is None else ~train.outlier
    true, noisy = train.label[inside].astype(np.int32), train.noisy_label[inside].astype(np.int32)
    if dataset.multi_label:
        return np.stack([np.asarray(transitions.from_pairs(true[:, k], noisy[:, k], 2)) for k in range(true.shape[1])])
    return np.asarray(transitions.from_pairs(true, noisy, dataset.num_classes))


def read_transition(source: str, dataset: Dataset) -> np.ndarray:
    """A transition matrix by where it is to come from.

    Args:
      source: ``true`` (from all true training labels, an oracle), ``trusted`` (from the trusted ones),
        ``anchors:LABELS`` or ``confident:LABELS`` (estimated from the predictions of a plain run on the same data, in
        its labels.parquet), or the path of an ``.npy`` file.
      dataset: training data; single-label.

    Returns:
      T, float32 ``[K, K]``.

    Raises:
      ConfigError: the source does not exist, does not fit the data, or is no transition matrix.
    """
    kind, _, path = source.partition(":")
    if kind == "true":
        found = true_transition(dataset)
        if found is None:
            raise ConfigError(f"--transition=true needs true training labels, which {dataset.name} does not have")
        return found
    if kind == "trusted":
        trusted, noisy = dataset.train.trusted_label, dataset.train.noisy_label
        if trusted is None or noisy is None:
            raise ConfigError("--transition=trusted needs trusted labels; add --clean_fraction=0.1, say")
        rows = trusted >= 0
        return np.asarray(transitions.from_pairs(trusted[rows], noisy[rows], dataset.num_classes))
    if kind in ("anchors", "confident"):
        return _estimated(kind, Path(path), dataset)
    return _from_file(Path(source), dataset.num_classes)


def _estimated(kind: str, path: Path, dataset: Dataset) -> np.ndarray:
    try:
        table = read_labels(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--transition={kind}:{path}: {error}") from error
    if table.posterior.shape != (len(dataset.train), dataset.num_classes):
        raise ConfigError(
            f"--transition={kind}:{path} holds predictions {table.posterior.shape} for other data than the "
            f"({len(dataset.train)}, {dataset.num_classes}) here; give the labels.parquet of a plain run on them"
        )
    if kind == "anchors":
        return np.asarray(transitions.from_anchors(table.posterior))
    assert dataset.train.noisy_label is not None
    joint = transitions.confident_joint(table.posterior, dataset.train.noisy_label)
    return np.asarray(transitions.from_confident_joint(joint, dataset.train.noisy_label))


def _from_file(path: Path, num_classes: int) -> np.ndarray:
    if path.suffix != ".npy":
        raise ConfigError(
            f"--transition={path} is not known; choose true, trusted, anchors:LABELS, confident:LABELS or an .npy file"
        )
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"--transition={path} is no array that numpy.save wrote: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise ConfigError(f"--transition={path} must hold one array of real numbers")
    found = found.astype(np.float32)
    try:
        transitions.check(found)
    except ValueError as error:
        raise ConfigError(f"--transition={path}: {error}") from error
    if found.shape != (num_classes, num_classes):
        raise ConfigError(f"--transition={path} has shape {found.shape}; the data have {num_classes} classes")
    return found
