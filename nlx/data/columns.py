"""Answers from files and frames as Arrow columns, in which what is missing is null."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from nlx.data.csv_text import likeliest_separator
from nlx.data.dataset import DataError

Columns = dict[str, pa.Array]


def read_table(path: Path) -> Any:
    """What a file holds, in one of the other forms."""
    if not path.is_file():
        raise DataError(f"{path}: no such file: give the path of a table of answers.")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".json":
            return _label_studio(json.loads(path.read_text(encoding="utf-8")))
        with path.open(encoding="utf-8-sig") as file:
            separator = likeliest_separator(file.readline())
        options = pyarrow.csv.ParseOptions(delimiter=separator)
        strings = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
        return pyarrow.csv.read_csv(path, parse_options=options, convert_options=strings)
    except (pa.ArrowInvalid, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as answers ({said}): give a table as .csv, .tsv or .parquet."
        ) from error


def _label_studio(tasks: list[dict[str, Any]]) -> Columns:
    """Answers of Label Studio's export; annotations that were cancelled or choose nothing are abstentions."""
    rows: list[tuple[str, str, str | None]] = []
    for task in tasks:
        item = str(task.get("data", {}).get("item", task["id"]))
        for annotation in task.get("annotations", []):
            who = annotation["completed_by"]
            who = who.get("email", who.get("id")) if isinstance(who, dict) else who
            chosen = [r["value"]["choices"] for r in annotation["result"] if "choices" in r.get("value", {})]
            said = chosen[0][0] if chosen and chosen[0] and not annotation.get("was_cancelled") else None
            rows.append((item, str(annotation.get("meta", {}).get("annotator", who)), said))
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    names = ("item", "annotator", "label")
    return {name: pa.array(list(x), pa.string()) for name, x in zip(names, columns, strict=True)}


def column_of(values: Any, where: str) -> pa.Array:
    """A column as an Arrow array, in which what is missing is null."""
    if isinstance(values, (pa.ChunkedArray, pa.Array)):
        column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    else:
        given = np.asarray(values) if hasattr(values, "__array__") else values
        try:
            column = pa.array(given, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            try:  # of several types
                column = pa.array([None if x is None or x != x else str(x) for x in given])  # NaN is not itself
            except (TypeError, ValueError) as error:
                raise DataError(f"{where} holds values of a type that is not known: give numbers or text.") from error
    column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.all(pc.equal(column, pc.round(column)))
        column = column.cast(pa.int64()) if whole.as_py() else column
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
        column = column.cast(pa.string())
    return column


def joined(columns: list[pa.Array]) -> pa.Array:
    """Columns one after the other, of their type, or as text where they differ."""
    types = {column.type for column in columns if not pa.types.is_null(column.type)}
    kind = pa.int64() if all(map(pa.types.is_integer, types)) else pa.string()
    kind = next(iter(types)) if len(types) == 1 else kind
    return pa.concat_arrays([column.cast(kind) for column in columns])
