"""Text in rows and columns, as spreadsheets and people save it."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from nlx.data.dataset import DataError
from nlx.data.names import clean_name


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or, as spreadsheets write as well, UTF-16.

    Raises:
      DataError: it is something else.
      OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        # Spreadsheets begin UTF-8 files with a mark.
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: save it as CSV in UTF-8.") from error
    if "\0" in text:
        raise DataError(f"{path}: holds NUL characters: save it as CSV in UTF-8.")
    return text


def with_columns(text: str, required: Collection[str]) -> tuple[list[str], Iterator[list[str]]]:
    """The header and the other rows, by the separator that makes the required columns appear."""
    first = text.partition("\n")[0].strip()
    for separator in dict.fromkeys((",", *(c for c in first if not (c.isalnum() or c in "_\"'")))):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header = [clean_name(column).lower() for column in next(lines, [])]
        if set(required) <= set(header):
            return header, lines
    lines = csv.reader(io.StringIO(text, newline=""))
    return [clean_name(column).lower() for column in next(lines, [])], lines


def likeliest_separator(text: str) -> str:
    """The one of comma, semicolon, tab and bar that makes most columns of row 1.

    Examples:
      >>> likeliest_separator('item;annotator;"a, b"')
      ';'
    """

    def columns(separator: str) -> int:
        return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), []))

    return max(",;\t|", key=columns)


def cells(path: Path, separator: str | None = None) -> list[list[str]]:
    """The rows of a CSV file, all of the same length; blank lines count where there is one column, as empty cells.

    Args:
      path: the file.
      separator: between columns; by default the one of comma, semicolon, tab and bar that makes most of row 1.

    Raises:
      DataError: no CSV, or rows that differ in length.
    """
    text = read_text(path)

    def parsed(delimiter: str) -> Iterator[list[str]]:
        return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)

    try:
        separator = separator or likeliest_separator(text)
        rows = list(parsed(separator))
    except (csv.Error, TypeError) as error:
        raise DataError(f"{path}: not CSV ({error}): save the table again, or name its `separator`.") from error
    one_column = all(len(row) <= 1 for row in rows)
    rows = [row or [""] for row in rows] if one_column else [row for row in rows if any(map(str.strip, row))]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{path}: row {number} has {len(row)} fields but row 1 has {len(rows[0])}: put fields that contain "
                f"{separator!r} in quotes, or name another `separator`."
            )
    if not rows:
        raise DataError(f"{path}: is empty: give one example a row.")
    return rows
