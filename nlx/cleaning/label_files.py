"""The table of labels as files: Parquet for programs, CSV for people, and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlx.arguments import ArgumentError
from nlx.cleaning.reasons import reasons
from nlx.cleaning.table import COLUMNS, Belief, LabelTable
from nlx.data.origin import Origin
from nlx.files import replacing
from nlx.methods.top import Top

SEPARATOR = ";"  # between the classes of one example
_ABOUT = ("chosen", "class_names", "dataset", "method", "guard")
_METADATA = b"nlx"
_OF_TOP = ("classes", "probs", "best", "given")  # of a belief of which the likeliest classes are kept


def for_people(table: LabelTable, split: str = "train") -> dict[str, Any]:
    """A table's columns in words, ``[n]`` each: ``row``, ``id`` or ``path``, ``given``, ``proposed`` and so on.

    README.txt of a run says what each is, see :mod:`nlx.cleaning.readme`.

    Args:
      table: see :func:`nlx.cleaning.table.label_table`.
      split: which part of the data these rows are; of all but ``train`` labels are ranked, but none is an issue.
    """
    n, origin = len(table), table.origin or Origin(table.index.astype(np.int64))
    trained = split == "train"
    key = {} if origin.name is None or origin.key is None else {str(origin.name): origin.key.tolist()}
    return {
        "row": origin.row,
        **key,
        "given": _names(table, table.noisy_label),
        "proposed": _names(table, table.cleaned_label),
        "changed": table.changes,
        "is_issue": table.is_issue & trained,
        "reason": reasons(table),
        "split": [split] * n,
        "trusted": table.marked("trusted"),
    }


def _names(table: LabelTable, labels: np.ndarray) -> list[str | None]:
    """Class names, several joined, None where there is no label."""
    if labels.ndim == 1:
        names = [*table.class_names, None]  # at -1
        return [names[c] for c in labels.tolist()]
    return [
        None if (row < 0).any() else SEPARATOR.join(table.class_names[c] for c in np.flatnonzero(row)) for row in labels
    ]


def write_labels(path: str | Path, table: LabelTable, held_out: Mapping[str, LabelTable] | None = None) -> None:
    """Write a table as Parquet; the file appears whole or not at all.

    Columns have the names of attributes and extras, and those of :func:`for_people`; vectors are lists, of one
    length in a column; beliefs of which the likeliest classes are kept are structs of the attributes of
    :class:`nlx.methods.top.Top`. All else is JSON in the metadata.

    Args:
      path: the file, e.g. ``labels.parquet``.
      table: of the training examples, see :func:`nlx.cleaning.table.label_table`.
      held_out: of other parts of the data, ``test`` say; :func:`read_labels` leaves these rows aside.

    Raises:
      OSError: the file cannot be written, for example because the disk is full.
    """
    parts = {"train": table, **(held_out or {})}
    rows = pa.concat_tables([_as_arrow(part, name) for name, part in parts.items()], promote_options="default")
    key = None if table.origin is None else table.origin.name
    metadata = {"extras": list(table.extras), "key": key} | {name: getattr(table, name) for name in _ABOUT}
    with replacing(path) as file:
        about = rows.replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})
        pq.write_table(about, file, compression="zstd")


def _as_arrow(table: LabelTable, split: str) -> pa.Table:
    true = {} if table.true_label is None else {"true_label": table.true_label}
    columns = for_people(table, split) | {name: getattr(table, name) for name in COLUMNS} | true | table.extras
    return pa.table({name: _to_arrow(values) for name, values in columns.items()})


def write_issues(path: str | Path, table: LabelTable, held_out: Mapping[str, LabelTable] | None = None) -> None:
    """Write a table as CSV for people, the most suspicious label first; the file appears whole or not at all.

    The columns of :func:`for_people`, ``probability`` (that the proposed label is right; of several entries, of the
    least), ``label_score``, ``issue_rank``, and ``label``: empty, for a person's decision, or what is trusted already.

    Args:
      path: the file, e.g. ``issues.csv``.
      table: of the training examples, see :func:`nlx.cleaning.table.label_table`.
      held_out: of other parts of the data.

    Raises:
      OSError: the file cannot be written.
    """
    rows: list[tuple[float, dict[str, Any]]] = []
    for split, part in {"train": table, **(held_out or {})}.items():
        columns = {name: np.asarray(values, object) for name, values in for_people(part, split).items()}
        for row in part.most_suspicious(len(part)):
            told = {name: values[row] for name, values in columns.items()}
            told["label"] = told["proposed"] if told["trusted"] else None
            told["probability"] = f"{part.probability[row].min():.4f}"
            score = float(part.label_score[row])
            told["label_score"] = "" if np.isnan(score) else f"{score:.4f}" if score >= 1e-3 else f"{score:.3g}"
            told["issue_rank"] = part.issue_rank[row]
            rows.append((np.inf if np.isnan(score) else score, told))
    key = [] if table.origin is None or table.origin.name is None else [table.origin.name]
    header = ("row", *key, "given", "proposed", "label", "is_issue", "reason", "probability", "label_score")
    header += ("issue_rank", "changed", "trusted", "split")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    for _, told in sorted(rows, key=lambda pair: pair[0]):
        cells = (told.get(name) for name in header)
        writer.writerow("" if cell is None else int(cell) if isinstance(cell, bool) else cell for cell in cells)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def read_labels(path: str | Path) -> LabelTable:
    """Read the training examples of a table that :func:`write_labels` wrote.

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
            arrow = arrow.filter(pa.compute.equal(arrow.column("split"), "train"))
            names = (*COLUMNS, *metadata["extras"], *(["true_label"] if "true_label" in arrow.column_names else []))
            k = len(metadata["class_names"])
            columns: dict[str, Any] = {name: _to_numpy(arrow.column(name), k) for name in names}
            key = cast(Literal["id", "path"] | None, metadata["key"])
            values = None if key is None else np.asarray(arrow.column(key).to_pylist(), object)
            table = LabelTable(
                **{name: columns[name] for name in COLUMNS},
                true_label=columns.get("true_label"),
                extras={name: columns[name] for name in metadata["extras"]},
                **{name: metadata[name] for name in _ABOUT} | {"class_names": tuple(metadata["class_names"])},
            )
            return replace(table, origin=Origin(_to_numpy(arrow.column("row")), key, values))
        except Exception as error:  # a broken or foreign file can raise anything
            raise ArgumentError(f"{path} cannot be read: give a labels.parquet that a run has written") from error


def _to_arrow(values: Any) -> pa.Array:
    if isinstance(values, Top):
        return pa.StructArray.from_arrays([_to_arrow(getattr(values, name)) for name in _OF_TOP], _OF_TOP)
    if isinstance(values, list):
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):  # ids of several types
            return pa.array([None if value is None else str(value) for value in values])
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    # Lists of fixed size would say it better, but before pyarrow 26 a Parquet file with missing ones cannot be read.
    for size in reversed(values.shape[1:]):
        starts = np.arange(0, len(array) + 1, size)
        small = len(array) < 2**31
        array = (pa.ListArray if small else pa.LargeListArray).from_arrays(
            starts.astype(np.int32) if small else starts, array
        )
    return array


def _to_numpy(column: pa.ChunkedArray, num_classes: int = 0) -> Belief:
    array, shape = column.combine_chunks(), [len(column)]
    if pa.types.is_struct(array.type):
        parts = {name: _to_numpy(pa.chunked_array([array.field(name)])) for name in _OF_TOP}
        return Top(**parts, num_classes=num_classes)
    while pa.types.is_nested(array.type):
        sizes = set(pa.compute.list_value_length(array).unique().to_pylist())
        if len(sizes) != 1:
            raise ValueError("rows are not of one length")
        shape.append(sizes.pop())
        array = array.flatten()
    values: np.ndarray = array.to_numpy(zero_copy_only=False).reshape(shape)
    return values
