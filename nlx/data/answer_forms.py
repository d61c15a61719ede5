"""Any form that answers come in as one long table: a row an answer, with who says what of which item."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlx.arguments import ArgumentError
from nlx.data.columns import Columns, column_of, joined, read_table, refuse_twice
from nlx.data.dataset import DataError
from nlx.data.label_studio import TRUSTED
from nlx.data.names import ROLES, check_unused, clean_name

GROUP = ("group", "team")
"""Names of the column that says which group an annotator is of."""
_MANY = 3  # columns of annotators, from which on one that shares nothing is told from them


def long_table(answers: Any, where: str) -> tuple[Columns, tuple[str, ...]]:
    """Any form as columns item, annotator, label, maybe group and trusted, and what is not used of it."""
    if isinstance(answers, (str, Path)):
        answers = read_table(Path(answers).expanduser())
    if isinstance(answers, list) and answers and all(isinstance(row, Mapping) for row in answers):
        answers = {
            name: [row.get(name) for row in answers] for name in dict.fromkeys(n for row in answers for n in row)
        }
    if isinstance(answers, list) and answers and all(isinstance(row, tuple) for row in answers):
        if any(len(row) != len(ROLES) for row in answers):
            raise ArgumentError(f"{where} must be rows (item, annotator, label): one has another number of values")
        answers = tuple(zip(*answers, strict=True))
    if _are_three_arrays(answers):
        columns = {role: column_of(x, f"{where}: {role}") for role, x in zip(ROLES, answers, strict=True)}
        if len({len(x) for x in columns.values()}) > 1:
            raise ArgumentError(f"{where} must be three arrays of one length, got {[len(x) for x in answers]}")
        return columns, ()
    if not hasattr(answers, "keys") and not hasattr(answers, "column_names"):
        return _melted(None, _matrix(answers, where)), ()
    answers = _with_index(answers)
    names = list(getattr(answers, "column_names", None) or answers.keys())
    refuse_twice(list(map(str, names)), where)
    columns = {str(name): column_of(answers[name], f"{where}: column {str(name)!r}") for name in names}
    if len({len(x) for x in columns.values()}) > 1:
        raise DataError(f"{where} has columns of different lengths: give one row an answer.")
    found = _roles(columns)
    if found["annotator"] is None and found["label"] is None:
        return _wide(columns, found["item"], where), ()
    if absent := [role for role, name in found.items() if name is None]:
        raise DataError(
            f"{where} has no column '{absent[0]}', only {', '.join(map(repr, columns))}: name it so, or give a column "
            f"for each annotator and no other."
        )
    used = {role: name for role, name in found.items() if name is not None}
    used |= {} if (group := _spelled(columns, GROUP)) is None else {"group": group}
    used |= {TRUSTED: TRUSTED} if TRUSTED in columns else {}
    notes = check_unused(f"{where}: column", list(columns), set(used.values()) | set(ROLES))
    return {role: columns[name] for role, name in used.items()}, notes


def by_item(values: Any, where: str, order: pa.Array) -> Columns | None:
    """Labels of items, one each, as columns item and label.

    Args:
      values: by item, a table with the columns item and label, or ``[N]`` in the order of items; None for none.
      where: what messages call it.
      order: N items.
    """
    if values is None:
        return None
    if isinstance(values, (str, Path)):
        where, values = str(values), read_table(Path(values).expanduser())
    if hasattr(values, "index") and hasattr(values, "to_dict") and not hasattr(values, "columns"):  # a Series
        values = values.to_numpy() if _counts_rows(values.index) else {"item": values.index, "label": values}
    names = getattr(values, "column_names", None) or (list(values.keys()) if hasattr(values, "keys") else None)
    if isinstance(values, Mapping) and not any(np.ndim(x) for x in values.values()):
        columns = {"item": column_of(list(values), where), "label": column_of(list(values.values()), where)}
    elif names is not None:
        refuse_twice(list(map(str, names)), where)
        found = _roles(names)
        for role in ("item", "label"):
            if found[role] is None:
                raise DataError(f"{where} has no column {role!r}, only {', '.join(map(repr, names))}: name it so.")
        columns = {role: column_of(values[found[role]], f"{where}: column {role!r}") for role in ("item", "label")}
    else:
        labels = column_of(values, where)
        if len(labels) != len(order):
            raise ArgumentError(
                f"{where} must be labels by item, or one for each of {len(order)} items, got {len(labels)}"
            )
        columns = {"item": order, "label": labels}
    if len(columns["item"]) != len(columns["label"]):
        raise DataError(f"{where} has {len(columns['item'])} items and {len(columns['label'])} labels: give one each.")
    known = pc.is_valid(columns["label"])
    return {name: column.filter(known) for name, column in columns.items()}


def _are_three_arrays(answers: Any) -> bool:
    """A tuple, or a list of arrays; lists in a list are rows of a matrix."""
    if not isinstance(answers, (tuple, list)) or len(answers) != len(ROLES):
        return False
    return isinstance(answers, tuple) or not any(isinstance(row, (list, tuple)) for row in answers)


def _counts_rows(index: Any) -> bool:
    """Whether a pandas index only counts rows from 0."""
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1


def _with_index(frame: Any) -> Any:
    """A pandas frame whose index has become a column, of items unless it is called otherwise."""
    if not (hasattr(frame, "columns") and hasattr(frame, "reset_index")) or _counts_rows(frame.index):
        return frame
    named = frame.index.name is not None and _roles([str(frame.index.name)])["item"] is not None
    if not named and _roles(frame.columns)["item"] is not None:
        return frame
    return (frame if named else frame.rename_axis(index="item")).reset_index()


def _roles(names: Collection[Any]) -> dict[str, str | None]:
    return {role: _spelled(names, aliases) for role, aliases in ROLES.items()}


def _spelled(names: Collection[Any], aliases: tuple[str, ...]) -> str | None:
    """The name among these that is one of the aliases, as it is spelled."""
    spelled = {clean_name(str(name)).lower(): str(name) for name in names}
    return next((spelled[alias] for alias in aliases if alias in spelled), None)


def _matrix(answers: Any, where: str) -> Columns:
    try:
        matrix = np.ma.asarray(answers) if isinstance(answers, np.ma.MaskedArray) else np.asarray(answers)
    except ValueError as error:
        raise ArgumentError(f"{where} must be a matrix [N, A]: its rows differ in length") from error
    if matrix.ndim != 2 or matrix.size == 0:
        raise ArgumentError(
            f"{where} must be three arrays item, annotator, label, a matrix [N, A] with gaps, or a table, got an array "
            f"of shape {list(matrix.shape)}"
        )
    return {str(i): column_of(matrix[:, i], f"{where} column {i}") for i in range(matrix.shape[1])}


def _wide(columns: Columns, ids: str | None, where: str) -> Columns:
    """A table with a column for each annotator."""
    people = {name: x for name, x in columns.items() if name != ids}
    if len(people) < 2:
        raise DataError(f"{where} has no columns of annotators: give item, annotator and label, or a column for each.")
    said = {name: {str(x) for x in pc.unique(x).to_pylist() if x is not None} for name, x in people.items()}
    how_often: dict[str, int] = {}
    for labels in said.values():
        for label in labels:
            how_often[label] = how_often.get(label, 0) + 1
    strange = [name for name, labels in said.items() if len(labels) > 1 and all(how_often[x] == 1 for x in labels)]
    if len(people) >= _MANY and len(strange) == 1:
        raise DataError(
            f"{where}: column {strange[0]!r} has no label in common with the others: leave it out, or give a long "
            "table of item, annotator and label."
        )
    return _melted(columns[ids] if ids else None, people)


def _melted(items: pa.Array | None, people: Columns) -> Columns:
    """A column for each annotator as a long table, item after item."""
    n, a = len(next(iter(people.values()))), len(people)
    rows = np.repeat(np.arange(n), a)
    stacked = joined(list(people.values()))
    order = (np.arange(a)[None, :] * n + np.arange(n)[:, None]).ravel()
    item = pa.array(rows) if items is None else items.take(pa.array(rows))
    return {"item": item, "annotator": pa.array(list(people) * n), "label": stacked.take(pa.array(order))}
