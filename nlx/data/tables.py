"""Tables of any make: CSV, Parquet, pandas, polars, Arrow, Hugging Face; columns by name, and features from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlx.data.csv_text import cells
from nlx.data.dataset import DataError
from nlx.data.names import check_unused, clean_name

# A label beside a noisy one is the true one.
LABEL = ("noisy_label", "noisy", "given_label", "given", "label", "labels", "target", "class", "y")
ID = ("id",)
PATH = ("path", "file_name", "filename", "file", "image", "filepath")
TRUSTED = ("trusted",)
_USUAL = {"label": LABEL, "id": ID, "path": PATH, "trusted": TRUSTED}
TABLES = (".csv", ".tsv", ".txt", ".parquet")


class Table(NamedTuple):
    """Columns of one length.

    Attributes:
      where: what it was read from; begins sentences.
      columns: values by name, ``[n]`` each, or ``[n, F]`` where a cell is a vector.
      heading: whether the names are its own.
    """

    where: str
    columns: dict[str, np.ndarray]
    heading: bool = True

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def find(self, role: str, wanted: str | None, *, required: bool = True) -> str | None:
        """The column of a role, ``label``, ``id``, ``path`` or ``trusted``: the one wanted, or one usually so called.

        Names are compared without case.

        Raises:
          DataError: the wanted one is required, and not there.
        """
        if not self.heading:
            return None
        lower = {clean_name(name).lower(): name for name in reversed(self.columns)}
        if wanted is not None:
            if wanted in self.columns:
                return wanted
            if required and clean_name(wanted).lower() not in lower:
                raise DataError(f"{self.where}: there is no column {wanted!r}, but {_listed(self.columns)}.")
            return lower.get(clean_name(wanted).lower())
        return next((lower[name] for name in _USUAL[role] if name in lower), None)

    def labels(self, wanted: str | None) -> str:
        """The column of labels, or the only one.

        Raises:
          DataError: there is none, or it is not clear which; the sentence names the columns.
        """
        found = self.find("label", wanted)
        if found is None and len(self.columns) == 1:
            found = next(iter(self.columns))
        if found is None and self.heading:
            check_unused(f"{self.where}: column", list(self.columns), ("label", "noisy_label", "target", "class"))
        if found is None:
            raise DataError(
                f"{self.where}: which column holds the labels? Name one by `label`: {_listed(self.columns)}."
            )
        return found

    def features(self, without: Collection[str]) -> np.ndarray:
        """The one column of vectors, or all columns of numbers, float ``[n, F]``.

        Args:
          without: columns that are something else.

        Raises:
          DataError: there are no such columns, several of vectors, or a vector of another length.
        """
        left = {name: values for name, values in self.columns.items() if name not in without}
        vectors = [name for name, values in left.items() if values.ndim == 2]
        if len(vectors) > 1:
            raise DataError(f"{self.where}: {_listed(vectors)} are columns of vectors: keep one of them.")
        if vectors:
            return left[vectors[0]]
        for name, values in left.items():
            if values.dtype.kind == "O" and len(values) and isinstance(values[0], (list, tuple, np.ndarray)):
                raise DataError(f"{self.where}: the vectors of column {name!r} differ in length, or hold no numbers.")
        numeric = [values for values in map(as_numbers, left.values()) if values is not None]
        if not numeric:
            raise DataError(f"{self.where}: no column of numbers or of vectors besides {_listed(without) or 'none'}.")
        return np.stack(numeric, axis=1)


def _listed(names: Collection[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def as_numbers(values: np.ndarray) -> np.ndarray | None:
    """A column as float64, an empty cell being NaN; None where it holds something else."""
    if values.dtype.kind in "iufb":
        return values.astype(np.float64)
    if values.dtype.kind not in "OU":
        return None
    try:
        return np.array([np.nan if v is None or v == "" else v for v in values.tolist()], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def read_table(path: Path, separator: str | None = None, known: Sequence[str | None] = ()) -> Table:
    """A table from a file.

    Text other than ``.csv`` and ``.tsv`` is one column. CSV has a heading if a usual name, or one of the known ones,
    stands in row 1, or if no number does and there are several columns, or numbers below.

    Args:
      path: ``.csv``, ``.tsv``, ``.txt`` or ``.parquet``.
      separator: between columns of CSV; by default the likeliest.
      known: names of columns, None for none.

    Raises:
      DataError: the file is broken or something else.
      OSError: it cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        with open(path, "rb") as file:
            try:
                arrow = pq.read_table(file)
            except Exception as error:  # a broken file can raise anything
                raise DataError(f"{path}: no Parquet file, or a broken one: write it anew.") from error
        return as_table(arrow, str(path))
    rows = cells(path, "\0" if path.suffix.lower() == ".txt" else "\t" if path.suffix == ".tsv" else separator)
    names = [clean_name(cell) for cell in rows[0]]
    lower, usual = {name.lower() for name in names}, {name for role in _USUAL.values() for name in role}
    known_names = {clean_name(name).lower() for name in known if name}
    numeric = [_is_number(cell) for cell in rows[0]]
    heading = path.suffix.lower() != ".txt" and (
        bool(lower & known_names)
        or bool(lower & usual)
        or (len(rows) > 1 and not any(numeric) and (len(names) > 1 or _is_number(rows[1][0])))
    )
    if heading and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: column {twice!r} stands twice in row 1: remove one.")
    if heading and len(rows) == 1:
        raise DataError(f"{path}: there are no rows under the heading: give one example a row.")
    names, body = (names, rows[1:]) if heading else ([str(i) for i in range(len(names))], rows)
    by_column = zip(names, zip(*body, strict=True), strict=True)
    return Table(str(path), {name: np.array([cell.strip() for cell in column]) for name, column in by_column}, heading)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_frame(data: Any) -> bool:
    """Whether data have named columns: a pandas or polars frame, an Arrow table, a Hugging Face data set."""
    if isinstance(data, (np.ndarray, pa.Array, pa.ChunkedArray)) or getattr(data, "ndim", 2) == 1:
        return False
    return hasattr(data, "column_names") or (hasattr(data, "columns") and hasattr(data, "__arrow_c_stream__"))


def as_table(data: Any, where: str = "`inputs`") -> Table:
    """A table from anything with named columns, see :func:`is_frame`, by way of Arrow.

    Raises:
      DataError: it has no rows, or columns of a type that Arrow does not know.
    """
    try:
        if hasattr(data, "with_format"):
            data = data.with_format("arrow")[:]
        arrow = data if isinstance(data, pa.Table) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as a table ({str(error).splitlines()[0]}).") from error
    if not len(arrow) or not arrow.num_columns:
        raise DataError(f"{where}: has no rows: give at least two examples.")
    names = [name for name in arrow.column_names if not name.startswith("__index_level_")]
    return Table(where, {name: _values(arrow.column(name)) for name in names})


def _values(column: pa.ChunkedArray) -> np.ndarray:
    kind, n = column.type, len(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        whole = column.combine_chunks()
        flat = whole.flatten()
        same = pa.types.is_fixed_size_list(kind) or len(set(whole.value_lengths().to_pylist())) == 1
        if same and _is_numeric(flat.type) and len(flat) and not column.null_count and not flat.null_count:
            return np.asarray(flat).reshape(n, -1)
    elif not column.null_count and (_is_numeric(kind) or pa.types.is_boolean(kind)):
        return np.asarray(column.to_numpy())
    values = np.empty(n, object)
    values[:] = column.to_pylist()
    return values


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
