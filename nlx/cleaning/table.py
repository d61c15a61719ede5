"""The cleaned labels of a data set: made from a posterior, written to Parquet and read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlx.arguments import ArgumentError
from nlx.data.dataset import Split
from nlx.files import replacing

_COLUMNS = ("index", "noisy_label", "posterior", "cleaned_label", "probability", "label_score", "issue_rank")
_ABOUT = ("chosen", "class_names", "dataset", "method", "guard")
_METADATA = b"nlx"
_TOLERANCE = 1e-3  # of float32 probabilities that went through a softmax


@dataclass(frozen=True)
class LabelTable:
    """What is known about every label of a training set; made by :func:`label_table`.

    Attributes:
      index: position in the training set, int32 ``[n]``.
      noisy_label: the given labels, int32 ``[n]`` (single-label) or {0, 1} uint8 ``[n, K]`` (multi-label).
      posterior: p(true label given input and noisy label), float32 ``[n, K]``.
      cleaned_label: the posterior's argmax, or its entries from 0.5 on, in the form of ``noisy_label``.
      probability: that the cleaned label is right, float32 ``[n]``, or of each of its entries, ``[n, K]``.
      label_score: probability that the given label is right, float32 ``[n]``; of its least probable entry where there
        are several classes to a label.
      issue_rank: int32 ``[n]``, 0 for the lowest score, that is, the most suspicious label.
      true_label: the true labels in the form of ``noisy_label`` where they are known, for evaluation, else None.
      extras: a method's own columns by name, ``[n, ...]``.
      chosen: which of a method's posteriors this is.
      class_names: K names.
      dataset: name of the data set.
      method: name of the method.
      guard: how cleaned labels look beside the given ones, see :meth:`nlx.cleaning.guard.Guard.summary`.
    """

    index: np.ndarray
    noisy_label: np.ndarray
    posterior: np.ndarray
    cleaned_label: np.ndarray
    probability: np.ndarray
    label_score: np.ndarray
    issue_rank: np.ndarray
    true_label: np.ndarray | None = None
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    chosen: str = "posterior"
    class_names: tuple[str, ...] = ()
    dataset: str = ""
    method: str = ""
    guard: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def multi_label(self) -> bool:
        """Whether labels are {0, 1} vectors rather than class numbers."""
        return self.noisy_label.ndim == 2

    @property
    def changed(self) -> np.ndarray:
        """Where the cleaned label is not the given one, bool in the shape of the labels."""
        changed: np.ndarray = self.cleaned_label != self.noisy_label
        return changed

    def most_suspicious(self, top: int) -> np.ndarray:
        """The rows of the ``top`` most suspicious labels, worst first, int ``[min(top, n)]``."""
        return np.argsort(self.issue_rank, kind="stable")[:top]


def label_table(
    posterior: np.ndarray,
    noisy_label: np.ndarray,
    *,
    index: np.ndarray | None = None,
    true_label: np.ndarray | None = None,
    extras: Mapping[str, np.ndarray] | None = None,
    chosen: str = "posterior",
    class_names: Sequence[str] | None = None,
    dataset: str = "",
    method: str = "",
) -> LabelTable:
    """Clean labels with a posterior and rank the given ones by how likely they are wrong.

    Args:
      posterior: p(true label given input and noisy label), float ``[n, K]``: rows that sum to 1 where a label is one
        class, one probability per class where it is a {0, 1} vector.
      noisy_label: the given labels, int ``[n]`` in ``[0, K)`` or {0, 1} ``[n, K]``.
      index: position of each row in the training set, int ``[n]``; 0 to n - 1 by default.
      true_label: true labels in the form of ``noisy_label``, where they are known; carried along for evaluation.
      extras: further columns, ``[n, ...]``.
      chosen: which of a method's posteriors this is.
      class_names: K names; the class numbers by default.
      dataset: name of the data set.
      method: name of the method.

    Returns:
      The table.

    Raises:
      ValueError: shapes disagree, a value is no probability, or a label is out of range.

    Examples:
      >>> table = label_table(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, 0]))
      >>> table.cleaned_label, table.issue_rank
      (array([0, 0, 1], dtype=int32), array([2, 0, 1], dtype=int32))
    """
    posterior = _checked_posterior(np.asarray(posterior))
    n, k = posterior.shape
    noisy_label = _checked_labels("noisy_label", np.asarray(noisy_label), n, k)
    if true_label is not None:
        true_label = _checked_labels("true_label", np.asarray(true_label), n, k)
        if true_label.ndim != noisy_label.ndim:
            raise ValueError(
                f"true_label {true_label.shape} and noisy_label {noisy_label.shape} must both be classes or both "
                "{0, 1} vectors"
            )
    names = tuple(map(str, range(k)) if class_names is None else class_names)
    if len(names) != k:
        raise ValueError(f"class_names has {len(names)} names for a posterior over {k} classes: give one per class")
    index = np.asarray(range(n) if index is None else index)
    if index.shape != (n,):
        raise ValueError(f"index must have shape ({n},) as the posterior has {n} rows, got {index.shape}")
    columns = {name: np.asarray(values) for name, values in (extras or {}).items()}
    for name, values in columns.items():
        if name in (*_COLUMNS, "true_label"):
            raise ValueError(f"extras has a column {name!r}, which the table has already: rename it")
        if values.shape[:1] != (n,):
            raise ValueError(f"extras[{name!r}] must have {n} rows like the posterior, got shape {values.shape}")
    if noisy_label.ndim == 1:
        _check_sums(posterior)
        cleaned = np.argmax(posterior, axis=1).astype(np.int32)
        probability = np.take_along_axis(posterior, cleaned[:, None], axis=1)[:, 0]
        score = np.take_along_axis(posterior, noisy_label[:, None], axis=1)[:, 0]
    else:
        cleaned = (posterior >= 0.5).astype(np.uint8)
        probability = np.maximum(posterior, 1 - posterior)
        score = np.where(noisy_label == 1, posterior, 1 - posterior).min(axis=1)
    rank = np.empty(n, np.int32)
    rank[np.lexsort((index, score))] = np.arange(n, dtype=np.int32)
    judged = (cleaned, probability, score, rank)
    return LabelTable(
        index.astype(np.int32), noisy_label, posterior, *judged, true_label, columns, chosen, names, dataset, method
    )


def with_trusted(probs: np.ndarray, split: Split) -> np.ndarray:
    """A posterior ``[n, K]`` that is certain where the true label is trusted."""
    trusted = split.trusted_label
    if trusted is None:
        return probs
    known = np.all(trusted.reshape(len(probs), -1) >= 0, axis=1, keepdims=True)
    certain = trusted if trusted.ndim == 2 else np.arange(probs.shape[1]) == trusted[:, None]
    return np.where(known, certain, probs).astype(probs.dtype)


def _checked_posterior(posterior: np.ndarray) -> np.ndarray:
    if posterior.ndim != 2 or posterior.shape[1] == 0:
        raise ValueError(f"posterior must have shape [n, K], one row per example, got {posterior.shape}")
    bad = ~((posterior >= -_TOLERANCE) & (posterior <= 1 + _TOLERANCE))  # True for NaN, too
    if bad.any():
        row, column = np.argwhere(bad)[0]
        value = posterior[row, column]
        raise ValueError(f"posterior[{row}, {column}] is {value}: give probabilities in [0, 1], not logits or NaN")
    return np.clip(posterior, 0, 1).astype(np.float32)


def _check_sums(posterior: np.ndarray) -> None:
    sums = posterior.sum(axis=1)
    bad = np.abs(sums - 1) > _TOLERANCE
    if bad.any():
        row = np.argmax(bad)
        raise ValueError(
            f"posterior[{row}] sums to {sums[row]:.4g}: divide by the sum, or give {{0, 1}} labels for one probability "
            "per class"
        )


def _checked_labels(name: str, labels: np.ndarray, n: int, k: int) -> np.ndarray:
    if labels.shape not in ((n,), (n, k)):
        raise ValueError(f"{name} must have shape ({n},) or ({n}, {k}) for a posterior ({n}, {k}), got {labels.shape}")
    size = k if labels.ndim == 1 else 2
    whole = labels.astype(np.int32)
    bad = (whole != labels) | (whole < 0) | (whole >= size)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(place)} is {labels[place]}: labels must be whole numbers in [0, {size})")
    return whole if labels.ndim == 1 else whole.astype(np.uint8)


def write_labels(path: str | Path, table: LabelTable) -> None:
    """Write a table as Parquet; the file appears whole or not at all.

    Columns have the names of attributes and extras; vectors are lists of fixed size. All else is JSON in the metadata.

    Args:
      path: the file, e.g. ``labels.parquet``.
      table: see :func:`label_table`.

    Raises:
      OSError: the file cannot be written, for example because the disk is full.
    """
    true = {} if table.true_label is None else {"true_label": table.true_label}
    columns = {name: getattr(table, name) for name in _COLUMNS} | true | table.extras
    metadata = {"extras": list(table.extras)} | {name: getattr(table, name) for name in _ABOUT}
    arrow = pa.table({name: _to_arrow(values) for name, values in columns.items()})
    arrow = arrow.replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})
    with replacing(path) as file:
        pq.write_table(arrow, file, compression="zstd")


def write_issues(path: str | Path, table: LabelTable) -> None:
    """Write a table as CSV for people, the most suspicious label first; the file appears whole or not at all.

    Columns: ``index``, ``given`` and ``proposed`` (class names, several joined by ``;``), ``changed``, ``probability``
    (that it is right; of several entries, of the least), ``label_score``, ``issue_rank``, ``decided`` if known.

    Args:
      path: the file, e.g. ``issues.csv``.
      table: see :func:`label_table`.

    Raises:
      OSError: the file cannot be written.
    """

    def names(label: np.ndarray) -> str:
        classes = [int(label)] if label.ndim == 0 else np.flatnonzero(label).tolist()
        return ";".join(table.class_names[c] for c in classes)

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    more = {"decided": table.extras["decided"].astype(int)} if "decided" in table.extras else {}
    writer.writerow(("index", "given", "proposed", "changed", "probability", "label_score", "issue_rank", *more))
    for row in table.most_suspicious(len(table)):
        labels = names(table.noisy_label[row]), names(table.cleaned_label[row])
        numbers = float(table.probability[row].min()), float(table.label_score[row])
        told = table.index[row], *labels, int(table.changed[row].any()), *(f"{x:.4f}" for x in numbers)
        writer.writerow((*told, table.issue_rank[row], *(column[row] for column in more.values())))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def read_labels(path: str | Path) -> LabelTable:
    """Read a table that :func:`write_labels` wrote.

    Args:
      path: the file.

    Returns:
      The table.

    Raises:
      FileNotFoundError: there is no such file.
      ArgumentError: the file is broken or something else.
    """
    with open(path, "rb") as file:
        try:
            arrow = pq.read_table(file)
            metadata = json.loads(arrow.schema.metadata[_METADATA])
            columns: dict[str, Any] = {name: _to_numpy(arrow.column(name)) for name in arrow.column_names}
            return LabelTable(
                **{name: columns[name] for name in _COLUMNS},
                true_label=columns.get("true_label"),
                extras={name: columns[name] for name in metadata["extras"]},
                **{name: metadata[name] for name in _ABOUT} | {"class_names": tuple(metadata["class_names"])},
            )
        except Exception as error:  # a broken or foreign file can raise anything
            raise ArgumentError(f"{path} cannot be read: give a labels.parquet that a run has written") from error


def _to_arrow(values: np.ndarray) -> pa.Array:
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    array, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    values: np.ndarray = array.to_numpy(zero_copy_only=False).reshape(shape)
    return values
