"""Answers from files and frames as Arrow columns, in which what is missing is null."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from nlx.data.csv_text import likeliest_separator, read_text
from nlx.data.dataset import DataError
from nlx.data.label_studio import answers_in

Columns = dict[str, pa.Array]
_EXACT = 2.0**53  # up to which floats are whole numbers without a gap


def read_table(path: Path) -> Any:
    """What a file holds, in one of the other forms. All cells of a CSV file are text: an id 007 is not the id 7."""
    if not path.is_file():
        raise DataError(f"{path}: no such file: give the path of a table of answers.")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".json":
            return answers_in(json.loads(path.read_text(encoding="utf-8")), str(path))
        text = read_text(path)
        first = text.partition("\n")[0]
        separator = likeliest_separator(first)
        header = next(csv.reader(io.StringIO(first, newline=""), delimiter=separator), [])
        refuse_twice(header, f"{path}")
        return pyarrow.csv.read_csv(
            pa.BufferReader(text.encode()),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
            convert_options=pyarrow.csv.ConvertOptions(
                strings_can_be_null=True, column_types=dict.fromkeys(header, pa.string())
            ),
        )
    except DataError:
        raise
    except (pa.ArrowInvalid, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as answers ({said}): give a table as .csv, .tsv or .parquet."
        ) from error


def refuse_twice(names: Sequence[str], where: str) -> None:
    """Raise a DataError where two columns have one name."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where} has two columns {twice[0]!r}: rename one of them, or leave it out.")


def column_of(values: Any, where: str) -> pa.Array:
    """A column as an Arrow array, in which what is missing is null.

    Raises:
      DataError: its values are no numbers and no text.
    """
    try:
        column = _array_of(values)
        if pa.types.is_floating(column.type):
            column = _whole(pc.if_else(pc.is_nan(column), None, column))
        plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
        return column if any(kind(column.type) for kind in plain) else column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
        raise DataError(
            f"{where} holds values of a type that is not known: give one number or text in each cell."
        ) from error


def _array_of(values: Any) -> pa.Array:
    if isinstance(values, (pa.ChunkedArray, pa.Array)):
        column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    if isinstance(values, np.ma.MaskedArray):
        return pa.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values), from_pandas=True)
    given = np.asarray(values) if hasattr(values, "__array__") else values
    try:
        return pa.array(given, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        # Of several types, or whole numbers beyond 64 bits; NaN is not itself.
        if any(np.ndim(x) for x in given):
            raise TypeError("not one value a cell") from None
        return pa.array([None if x is None or x != x else str(x) for x in given])


def _whole(column: pa.Array) -> pa.Array:
    """Floats as integers where all are, such as ids that have gone through a frame with gaps."""
    fits = pc.and_(pc.equal(column, pc.round(column)), pc.less(pc.abs(column), _EXACT))
    return column.cast(pa.int64()) if pc.all(fits).as_py() in (True, None) else column


def joined(columns: list[pa.Array]) -> pa.Array:
    """Columns one after the other, of their type, or as text where they differ."""
    types = {column.type for column in columns if not pa.types.is_null(column.type)}
    kind = pa.int64() if all(map(pa.types.is_integer, types)) else pa.string()
    kind = next(iter(types)) if len(types) == 1 else kind
    return pa.concat_arrays([column.cast(kind) for column in columns])


def places_of(names: pa.Array, known: pa.Array) -> np.ndarray:
    """Where names stand among known ones, int ``[n]``, -1 for nowhere; as text where their types differ."""
    if names.type != known.type:
        names, known = names.cast(pa.string()), known.cast(pa.string())
    return np.asarray(pc.index_in(names, known).fill_null(-1).to_numpy(zero_copy_only=False))
