"""``folder:PATH``: a folder of pictures with a ``labels.csv``, single-label or multi-label."""

from __future__ import annotations

import csv
import difflib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlx.data.checks import missing_files
from nlx.data.dataset import DataError, Dataset, ImageFiles, Inputs, Split
from nlx.data.decode import decode_all

TABLE = "labels.csv"
CLASSES = "classes.txt"
REQUIRED = ("path", "noisy")
OPTIONAL = ("label", "split")
SPLITS = ("train", "test")


class TableRow(NamedTuple):
    """A row of the table.

    Attributes:
      number: as an editor or a spreadsheet counts, the header being row 1.
      path: of the picture, relative to the folder.
      noisy: observed labels.
      label: true labels.
      split: ``train`` or ``test``.
    """

    number: int
    path: str
    noisy: tuple[str, ...]
    label: tuple[str, ...]
    split: str


def folder(
    path: str | Path,
    image_size: int = 224,
    *,
    in_memory_gib: float = 2.0,
    name: str | None = None,
    multi_label: bool | None = None,
) -> Dataset:
    """A data set from pictures in a folder.

    ``labels.csv`` has the columns ``path,noisy[,label][,split]``: the picture relative to the folder, its observed
    labels separated by ``;``, its true labels in the same form (empty in every row of a split where they are unknown),
    and ``train`` (also if empty) or ``test``. Other columns are left alone. ``classes.txt``, if there is one, has a
    class a line and fixes their order; otherwise the classes are all labels of the table, sorted.

    Args:
      path: the folder.
      image_size: height and width of the pictures, pixels: short side resized, centre cropped.
      in_memory_gib: pictures that fill no more than this are decoded at once, others stay ``ImageFiles``.
      name: of the data set; the folder's name by default.
      multi_label: whether labels are {0, 1} vectors; by default they are if a row has several labels, or a training row
        none.

    Returns:
      The data set. Test rows need true labels; their noisy ones are not used.

    Raises:
      DataError: anything the user has to change, with the number of the row.
    """
    root = Path(path).expanduser()
    table = root / TABLE
    rows = _read_rows(table)
    _check_files(root, table, rows)
    names = _class_names(root, table, rows)
    if multi_label is None:
        multi_label = any(len(r.noisy) > 1 or len(r.label) > 1 or (r.split == "train" and not r.noisy) for r in rows)

    parts = {split: [r for r in rows if r.split == split] for split in SPLITS}
    if not parts["train"]:
        raise DataError(f"{table}: there is no training row: set 'split' to train, or leave it empty, in some rows.")
    in_memory = len(rows) * image_size**2 * 3 <= in_memory_gib * 2**30

    def inputs(part: list[TableRow]) -> Inputs:
        paths = tuple(str(root / r.path) for r in part)
        return decode_all(paths, image_size) if in_memory else ImageFiles(paths, image_size)

    true = {split: _encode(table, part, "label", names, multi_label) for split, part in parts.items()}
    if parts["test"] and true["test"] is None:
        raise DataError(
            f"{table}: row {parts['test'][0].number} is a test row without a true label: fill 'label' in, or set "
            f"'split' to train."
        )
    noisy = _encode(table, parts["train"], "noisy", names, multi_label)
    if noisy is None:
        raise DataError(f"{table}: no training row has a noisy label: fill the column 'noisy'.")
    train = Split(inputs(parts["train"]), noisy, true["train"])
    test = Split(inputs(parts["test"]), None, true["test"]) if parts["test"] else None
    return Dataset(name or root.resolve().name, names, train, test)


def _read_rows(table: Path) -> list[TableRow]:
    if not table.is_file():
        raise DataError(f"{table}: no such file: write one with the columns path,noisy[,label][,split].")
    rows = []
    seen: dict[str, int] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin UTF-8 files with a mark
            lines = csv.reader(file)
            header = [column.strip() for column in next(lines, [])]
            _check_header(table, header)
            for number, cells in enumerate(lines, start=2):
                if not cells:
                    continue
                row = _row(table, header, number, cells)
                if row.path in seen:
                    raise DataError(
                        f"{table}: row {number} repeats the path of row {seen[row.path]}, {row.path!r}: list every "
                        f"picture once."
                    )
                seen[row.path] = number
                rows.append(row)
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not UTF-8 text: save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(
            f"{table}: row {len(rows) + 2} or one near it is not CSV ({error}): save the table again."
        ) from error
    if not rows:
        raise DataError(f"{table}: there are no rows under the header: list the pictures, one a row.")
    return rows


def _check_header(table: Path, header: list[str]) -> None:
    for column in REQUIRED:
        if column not in header:
            raise DataError(
                f"{table}: column {column!r} is missing from row 1, which is {','.join(header)!r}: write the header "
                f"path,noisy[,label][,split]."
            )
    for column in (*REQUIRED, *OPTIONAL):
        if header.count(column) > 1:
            raise DataError(f"{table}: column {column!r} stands twice in row 1: remove one.")


def _row(table: Path, header: list[str], number: int, cells: list[str]) -> TableRow:
    if len(cells) != len(header):
        raise DataError(
            f"{table}: row {number} has {len(cells)} fields but the header {len(header)}: put fields that contain a "
            f"comma in quotes, and separate labels by ';'."
        )
    field = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
    if not field["path"]:
        raise DataError(f"{table}: row {number} has an empty path: name its picture, or remove the row.")
    split = field.get("split") or "train"
    if split not in SPLITS:
        raise DataError(f"{table}: row {number} has split {split!r}: write train or test.")
    noisy, label = (
        tuple(dict.fromkeys(part.strip() for part in field.get(column, "").split(";") if part.strip()))
        for column in ("noisy", "label")
    )
    return TableRow(number, field["path"], noisy, label, split)


def _check_files(root: Path, table: Path, rows: list[TableRow]) -> None:
    if missing := missing_files(root, [row.path for row in rows]):
        row = rows[missing[0]]
        raise DataError(
            f"{table}: row {row.number} names {row.path!r}, which is not in {root}: correct the path, relative to "
            f"that folder, or remove the row."
        )


def _class_names(root: Path, table: Path, rows: list[TableRow]) -> tuple[str, ...]:
    listed = root / CLASSES
    if not listed.is_file():
        names = sorted({label for row in rows for label in (*row.noisy, *row.label)})
        if not names:
            raise DataError(f"{table}: no row has a label: fill the column 'noisy'.")
        return tuple(names)
    try:
        lines = [line.strip() for line in listed.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{listed}: not UTF-8 text: save it in UTF-8.") from error
    names = [line for line in lines if line]
    for number, line in enumerate(lines, start=1):
        if line and line in lines[: number - 1]:
            raise DataError(f"{listed}: line {number} repeats the class {line!r}: list every class once.")
    known = set(names)
    for row in rows:
        for label in (*row.noisy, *row.label):
            if label not in known:
                close = difflib.get_close_matches(label, names, n=1)
                fix = f"write {close[0]!r}" if close else "correct it"
                raise DataError(f"{table}: row {row.number} has the label {label!r}: {fix}, or add it to {CLASSES}.")
    return tuple(names)


def _encode(
    table: Path, rows: list[TableRow], column: str, names: tuple[str, ...], multi_label: bool
) -> np.ndarray | None:
    """Labels of one column as the library stores them, None if every row leaves it empty."""
    labels = [row.noisy if column == "noisy" else row.label for row in rows]
    if not any(labels):
        return None
    index = {name: c for c, name in enumerate(names)}
    if multi_label:
        vectors = np.zeros((len(rows), len(names)), np.uint8)
        for vector, some in zip(vectors, labels, strict=True):
            vector[[index[name] for name in some]] = 1
        return vectors
    for row, some in zip(rows, labels, strict=True):
        if len(some) != 1:
            raise DataError(
                f"{table}: row {row.number} has {len(some)} labels in column {column!r}, but the data is single-label: "
                f"give it one label like the other rows, or give none of them any."
            )
    return np.array([index[some[0]] for some in labels], np.int32)
