"""Several people's answers, as they have them: a long table, a matrix with gaps, a column for each annotator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlx.arguments import ArgumentError
from nlx.data.columns import Columns, column_of, joined, read_table
from nlx.data.dataset import DataError
from nlx.data.names import alike, check_unused, clean_name, numbered

Repeats = Literal["last", "all"]

ROLES = {
    "item": ("item", "task", "example", "index", "path", "image"),
    "annotator": ("annotator", "worker", "rater", "user", "labeler", "performer"),
    "label": ("label", "answer", "response", "class"),
}
"""Names of a long table's columns, the first the library's own."""
WEB = "web"
"""The annotator whom labels from the web are of."""


@dataclass(frozen=True)
class Answers:
    """Answers by number, and what the numbers stand for.

    Attributes:
      item: which item, in ``[0, N)``, int32 ``[M]``.
      annotator: who, in ``[0, A)``, int32 ``[M]``.
      label: the answer, in ``[0, K)``, int32 ``[M]``; abstentions are left out.
      items: N names, as they were given.
      annotators: A names likewise.
      class_names: K names.
      trusted: true class where it is known, -1 elsewhere, int32 ``[N]``; None for nowhere.
      notes: what reading them has found and a user should know.
    """

    item: np.ndarray
    annotator: np.ndarray
    label: np.ndarray
    items: np.ndarray
    annotators: np.ndarray
    class_names: tuple[str, ...]
    trusted: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.item)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of items, annotators and classes, as :mod:`nlx.crowd` wants them."""
        n, a, k = len(self.items), len(self.annotators), len(self.class_names)
        return {"num_items": n, "num_annotators": a, "num_classes": k}

    def by_item(self) -> tuple[np.ndarray, np.ndarray]:
        """Annotators and labels by item, int32 ``[N, P]`` each with P the most answers to one; -1 for no more."""
        order = np.argsort(self.item, kind="stable")
        item, n = self.item[order], len(self.items)
        size = np.bincount(item, minlength=n)
        place = np.arange(len(item)) - (np.cumsum(size) - size)[item]
        annotators, labels = np.full((2, n, max(int(np.max(size)), 1)), -1, np.int32)
        annotators[item, place], labels[item, place] = self.annotator[order], self.label[order]
        return annotators, labels

    @property
    def groups(self) -> np.ndarray:
        """People are one group, what comes from the web is another, int32 ``[A]``."""
        web = self.annotators.astype(str) == WEB
        return (web & ~web.all()).astype(np.int32)


def answers_of(
    answers: Any,
    *,
    web: Any = None,
    trusted: Any = None,
    class_names: tuple[str, ...] | None = None,
    num_items: int | None = None,
    repeats: Repeats = "last",
) -> Answers:
    """Read answers in any of their forms.

    Args:
      answers: a long table with the columns item, annotator and label (or task, worker, answer and the like), or a wide
        one with a column for each annotator, maybe after one of items: a path (.csv, .tsv, .parquet, Label Studio's
        .json, or .npy), a frame, or columns by name; or three arrays; or a matrix ``[N, A]``. An empty cell, None, NaN
        or the number -1 is no answer.
      web: one further label of items: by item, a table with the columns item and label, or ``[N]`` in their order.
      trusted: true labels where they are known, likewise.
      class_names: the classes, which labels name or number; by default all labels that occur, in order.
      num_items: items are the numbers from 0 below it; None for the items that occur, as they come.
      repeats: what counts of several answers by one annotator to one item: the last one, or all.

    Returns:
      The answers.

    Raises:
      DataError, ArgumentError: one sentence that names the row, column or argument, and the fix.
    """
    if isinstance(answers, Answers):
        return answers
    where = str(answers) if isinstance(answers, (str, Path)) else "`answers`"
    table, notes = _long(answers, where)
    order = pc.unique(table["item"]) if num_items is None else pa.array(np.arange(num_items))
    extra = {name: _by_item(values, f"`{name}`", order) for name, values in (("web", web), ("trusted", trusted))}
    if extra["web"] is not None:
        if WEB in set(map(str, pc.unique(table["annotator"]).to_pylist())):
            raise ArgumentError(f"an annotator is called {WEB!r} already: rename that one, or leave `web` out")
        more = dict(extra["web"], annotator=pa.array([WEB] * len(extra["web"]["item"])))
        table = {role: joined([table[role], more[role]]) for role in ROLES}
    said = [table["label"]] + ([extra["trusted"]["label"]] if extra["trusted"] is not None else [])
    if len(pc.drop_null(table["label"])) == 0:
        raise DataError(f"{where} holds no answer: give at least one label that is not missing.")
    numbers, names = _classes(said, class_names, where)
    item, items = _numbers(table["item"], num_items, where)
    annotator, annotators = _numbers(table["annotator"], None, where)
    counts = (numbers[0] >= 0) & (annotator >= 0)
    if (nobody := np.flatnonzero(counts & (item < 0))).size:
        raise DataError(f"{where} row {nobody[0]} has no item ({len(nobody)} such): name it, or remove the row.")
    kept = np.flatnonzero(counts)
    if repeats == "last":
        kept = _last(kept, item, annotator)
        if (again := int(counts.sum()) - len(kept)) > 0:
            notes += (f"of several answers by one annotator to one item the last one counts: {again:,} left out",)
    certain = None
    if extra["trusted"] is not None:
        certain = np.full(len(items), -1, np.int32)
        places = pc.index_in(joined([extra["trusted"]["item"]]), pa.array(items)).to_numpy(zero_copy_only=False)
        if (gone := np.flatnonzero(np.isnan(places.astype(float)))).size:
            raise DataError(
                f"`trusted` names {extra['trusted']['item'][gone[0]]}, which no answer is about: remove it."
            )
        certain[places.astype(int)] = numbers[1]
    item, annotator, label = (x[kept].astype(np.int32) for x in (item, annotator, numbers[0]))
    return Answers(item, annotator, label, items, annotators, names, certain, (*notes, *alike(names)))


def _long(answers: Any, where: str) -> tuple[Columns, tuple[str, ...]]:
    """Any form as columns item, annotator and label, and what is not used of it."""
    if isinstance(answers, (str, Path)):
        answers = read_table(Path(answers).expanduser())
    if isinstance(answers, (tuple, list)) and len(answers) == 3 and np.ndim(answers[0]) == 1:
        columns = {role: column_of(x, f"{where}: {role}") for role, x in zip(ROLES, answers, strict=True)}
        if len({len(x) for x in columns.values()}) > 1:
            raise ArgumentError(f"{where} must be three arrays of one length, got {[len(x) for x in answers]}")
        return columns, ()
    if not hasattr(answers, "keys") and not hasattr(answers, "column_names"):
        return _melted(*_matrix(answers, where)), ()
    names = getattr(answers, "column_names", None) or list(answers.keys())
    columns = {str(name): column_of(answers[name], f"{where}: column {str(name)!r}") for name in names}
    if len({len(x) for x in columns.values()}) > 1:
        raise DataError(f"{where} has columns of different lengths: give one row an answer.")
    spelled = {clean_name(name).lower(): name for name in columns}
    found = {role: next((spelled[n] for n in aliases if n in spelled), None) for role, aliases in ROLES.items()}
    if found["annotator"] is None and found["label"] is None:
        ids = found["item"]
        people = {name: x for name, x in columns.items() if name != ids}
        if len(people) < 2:
            raise DataError(
                f"{where} has no columns of annotators: give item, annotator and label, or a column for each."
            )
        return _melted(columns[ids] if ids else None, people), ()
    if absent := [role for role, name in found.items() if name is None]:
        raise DataError(
            f"{where} has no column '{absent[0]}', only {', '.join(map(repr, columns))}: name it so, or give a column "
            f"for each annotator and no other."
        )
    used = {role: name for role, name in found.items() if name is not None}
    notes = check_unused(f"{where}: column", list(columns), set(used.values()) | set(ROLES))
    return {role: columns[name] for role, name in used.items()}, notes


def _matrix(answers: Any, where: str) -> tuple[None, Columns]:
    try:
        matrix = np.asarray(answers)
    except ValueError as error:
        raise ArgumentError(f"{where} must be a matrix [N, A]: its rows differ in length") from error
    if matrix.ndim != 2 or matrix.size == 0:
        raise ArgumentError(
            f"{where} must be three arrays item, annotator, label, a matrix [N, A] with gaps, or a table, got an array "
            f"of shape {list(matrix.shape)}"
        )
    return None, {str(i): column_of(matrix[:, i], f"{where} column {i}") for i in range(matrix.shape[1])}


def _melted(items: pa.Array | None, people: Columns) -> Columns:
    """A column for each annotator as a long table, item after item."""
    n, a = len(next(iter(people.values()))), len(people)
    rows = np.repeat(np.arange(n), a)
    stacked = joined(list(people.values()))
    order = (np.arange(a)[None, :] * n + np.arange(n)[:, None]).ravel()
    item = pa.array(rows) if items is None else items.take(pa.array(rows))
    return {"item": item, "annotator": pa.array(list(people) * n), "label": stacked.take(pa.array(order))}


def _by_item(values: Any, where: str, order: pa.Array) -> Columns | None:
    """Labels of items, one each, as columns item and label."""
    if values is None:
        return None
    if isinstance(values, (str, Path)):
        where, values = str(values), read_table(Path(values).expanduser())
    names = getattr(values, "column_names", None) or (list(values.keys()) if hasattr(values, "keys") else None)
    if names is not None and {"item", "label"} <= set(map(str, names)):
        return {role: column_of(values[role], f"{where}: column {role!r}") for role in ("item", "label")}
    if isinstance(values, Mapping):
        return {"item": column_of(list(values), where), "label": column_of(list(values.values()), where)}
    labels = column_of(values, where)
    if len(labels) != len(order):
        raise ArgumentError(f"{where} must be labels by item, or one for each of {len(order)} items, got {len(labels)}")
    known = pc.is_valid(labels)
    return {"item": order.filter(known), "label": labels.filter(known)}


def _numbers(column: pa.Array, size: int | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A number for each name, -1 where it is missing, and the names as they come."""
    if size is None:
        coded = column.dictionary_encode()
        return coded.indices.fill_null(-1).to_numpy(), coded.dictionary.to_numpy(zero_copy_only=False)
    numbers = column.fill_null(-1).to_numpy() if pa.types.is_integer(column.type) else np.full(len(column), -1)
    if (bad := np.flatnonzero((numbers < 0) | (numbers >= size))).size:
        raise DataError(
            f"{where} row {bad[0]} is about item {column[bad[0]]} ({len(bad)} such): items must be rows of the "
            f"training set, whole numbers from 0 to {size - 1}."
        )
    return numbers, np.arange(size)


def _classes(
    columns: list[pa.Array], class_names: tuple[str, ...] | None, where: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Class numbers of labels, -1 where there is none, and the classes."""
    whole = joined(columns).dictionary_encode()
    texts = ["" if number and text == "-1" else text for text, number in _texts(whole.dictionary)]
    (numbers,), names = numbered([np.array(texts, dtype=str)], class_names)
    told = [
        int(t) if n == -2 and t.isdigit() and int(t) < len(names) else n for t, n in zip(texts, numbers, strict=True)
    ]
    numbers = np.array(told, np.int64)
    if (bad := np.flatnonzero(numbers == -2)).size:
        raise DataError(f"{where}: label {texts[bad[0]]!r} is none of `class_names`: add it there.")
    if len(names) < 2:
        raise DataError(f"{where} holds labels of {len(names)} class: give answers of at least two, or `class_names`.")
    numbers = np.append(numbers, -1)
    coded = numbers[whole.indices.fill_null(len(numbers) - 1).to_numpy()]
    return np.split(coded, np.cumsum([len(column) for column in columns])[:-1]), names


def _texts(values: pa.Array) -> list[tuple[str, bool]]:
    return [(str(value), not isinstance(value, str)) for value in values.to_pylist()]


def _last(rows: np.ndarray, item: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """Of rows with the same item and annotator the last one, in the order of rows."""
    key = item[rows].astype(np.int64) * (int(annotator.max()) + 1) + annotator[rows]
    _, first = np.unique(key[::-1], return_index=True)
    return rows[np.sort(len(rows) - 1 - first)]
