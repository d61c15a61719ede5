"""A person's decisions, such as a filled-in issues.csv, as labels that are known in the next round."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlx.data.dataset import DataError
from nlx.data.names import clean_name
from nlx.data.origin import Origin
from nlx.data.tables import read_table

_DECISION = "label"


def read_decisions(
    path: Path, origin: Origin, classes: Sequence[str], separator: str | None = None, label_separator: str = ";"
) -> dict[int, Any]:
    """True labels by row, from a table with ``label`` beside ``id``, ``path`` or ``row``.

    Args:
      path: ``.csv`` or ``.parquet``; rows whose ``label`` is empty are undecided, other columns are not read.
      origin: of the examples that are cleaned; ids or paths are what they are joined by where both have them.
      classes: names that are known; a decision may name another, but none that is nearly one of these.
      separator: between columns.
      label_separator: between the classes of one example; its label is then a tuple.

    Raises:
      DataError: a row that is not among the examples, two decisions on one, or a slip in a class's name.
      OSError: the file cannot be read.
    """
    table = read_table(path, separator, (_DECISION, "row"))
    lower = {clean_name(name).lower(): name for name in table.columns}
    by = origin.name if origin.name in lower else "row" if "row" in lower else None
    if _DECISION not in lower or by is None:
        kinds = f"{origin.name} or row" if origin.name else "row"
        raise DataError(f"{path}: decisions need the columns {kinds}, and label, empty where undecided.")
    keys = origin.row.tolist() if by == "row" or origin.key is None else origin.key.tolist()
    place, known = {_as_text(key): row for row, key in enumerate(keys)}, set(classes)
    decided: dict[int, Any] = {}
    for number, (key, cell) in enumerate(
        zip(table.columns[lower[by]].tolist(), table.columns[lower[_DECISION]].tolist(), strict=True), 1
    ):
        label = "" if cell is None or cell != cell else clean_name(_as_text(cell))
        if not label:
            continue
        row = place.get(_as_text(key))
        if row is None:
            raise DataError(f"{path}: row {number} decides on {by} {key!r}, which is not among the examples.")
        parts = tuple(clean_name(part) for part in label.split(label_separator))
        for part in parts:
            near = [] if part in known else difflib.get_close_matches(part, classes, n=1, cutoff=0.75)
            if near:
                raise DataError(f"{path}: row {number} has the label {part!r}: write {near[0]!r} if that is meant.")
        value = parts if len(parts) > 1 else parts[0]
        if decided.setdefault(row, value) != value:
            raise DataError(f"{path}: row {number} decides on {by} {key!r} again, and otherwise: leave one of them.")
    return decided


def _as_text(value: Any) -> str:
    """A key as both files write it: 7, 7.0 and '7' are one."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value).strip()
