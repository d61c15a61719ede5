"""The rows of a folder of pictures: from its ``labels.csv``, or from folders that are the classes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from nlx.data.csv_text import read_text, with_columns
from nlx.data.dataset import DataError
from nlx.data.names import check_unused, clean_name
from nlx.data.pictures import class_folders

TABLE = "labels.csv"
REQUIRED = ("path", "noisy")
OPTIONAL = ("label", "split")
SPLITS = ("train", "test")


class TableRow(NamedTuple):
    """A row of the table.

    Attributes:
      number: as an editor or a spreadsheet counts, the header being row 1.
      row: among those that are not blank, from 0 on.
      name: of the picture, as the table has it.
      path: of the picture, as it is to be opened.
      noisy: observed labels.
      label: true labels.
      split: ``train`` or ``test``.
    """

    number: int
    row: int
    name: str
    path: str
    noisy: tuple[str, ...]
    label: tuple[str, ...]
    split: str


def in_folders(root: Path, clean: bool) -> tuple[list[TableRow], list[str]]:
    """Rows of pictures in folders of classes, or in such folders of ``train`` and of what is tested on; no notes.

    Raises:
      DataError: there are no pictures.
    """
    test = next((name for name in ("test", "val") if (root / name).is_dir() and (root / "train").is_dir()), None)
    parts = {"train": ""} if test is None else {"train": "train", "test": test}
    found = [(split, Path(below) / name) for split, below in parts.items() for name in class_folders(root / below)]
    if not found:
        columns = "path,noisy[,label][,split]"
        raise DataError(f"{root / TABLE}: no such file: write one with the columns {columns}, or make class folders.")

    def row(number: int, split: str, path: Path) -> TableRow:
        label, is_test = (clean_name(path.parts[test is not None]),), split == "test"
        noisy, true = () if is_test else label, label if is_test or clean else ()
        return TableRow(number + 1, number, str(path), str(path), noisy, true, split)

    return [row(number, *of) for number, of in enumerate(found)], []


def read_rows(table: Path, label_separator: str) -> tuple[list[TableRow], list[str]]:
    """The rows of a table, see :func:`nlx.data.sources.image_folder.folder`, and notes on its columns.

    Raises:
      DataError: anything the user has to change, with the number of the row.
    """
    text = read_text(table)
    rows: list[TableRow] = []
    try:
        header, lines = with_columns(text, REQUIRED)
        notes = list(_check_header(table, header))
        for number, cells in enumerate(lines, start=2):
            if any(cell.strip() for cell in cells):
                rows.append(_row(table, header, number, len(rows), cells, label_separator))
    except csv.Error as error:
        raise DataError(
            f"{table}: row {len(rows) + 2} or one near it is not CSV ({error}): save the table again."
        ) from error
    if not rows:
        raise DataError(f"{table}: there are no rows under the header: list the pictures, one a row.")
    return rows, notes


def _check_header(table: Path, header: list[str]) -> tuple[str, ...]:
    if absent := [column for column in REQUIRED if column not in header]:
        raise DataError(
            f"{table}: column {absent[0]!r} is missing from row 1, which is {','.join(header)!r}: write the header "
            f"path,noisy[,label][,split]."
        )
    for column in (*REQUIRED, *OPTIONAL):
        if header.count(column) > 1:
            raise DataError(f"{table}: column {column!r} stands twice in row 1: remove one.")
    if "trusted" in header:
        raise DataError(
            f"{table}: column 'trusted' is not read: leave 'label' empty in rows that nobody has checked, which makes "
            f"the others trusted, and remove the column."
        )
    return check_unused(f"{table}: column", [c for c in header if c], (*REQUIRED, *OPTIONAL))


def _row(table: Path, header: list[str], number: int, row: int, cells: list[str], label_separator: str) -> TableRow:
    if len(cells) != len(header):
        raise DataError(
            f"{table}: row {number} has {len(cells)} fields but the header {len(header)}: put fields that contain a "
            f"comma in quotes, and separate labels by ';'."
        )
    if any("\n" in cell for column, cell in zip(header, cells, strict=True) if column in (*REQUIRED, *OPTIONAL)):
        raise DataError(f"{table}: row {number} has a line break within a field: close the quotes before it.")
    field = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
    if not field["path"]:
        raise DataError(f"{table}: row {number} has an empty path: name its picture, or remove the row.")
    split = field.get("split", "").lower() or "train"
    if split not in SPLITS:
        raise DataError(f"{table}: row {number} has split {split!r}: write train or test.")
    noisy, label = (
        tuple(dict.fromkeys(filter(None, map(clean_name, field.get(column, "").split(label_separator)))))
        for column in ("noisy", "label")
    )
    return TableRow(number, row, field["path"], field["path"], noisy if split == "train" else (), label, split)
