"""Several people's answers, as they have them: a long table, a matrix with gaps, a column for each annotator."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlx.arguments import ArgumentError
from nlx.data.answer_forms import by_item, long_table
from nlx.data.columns import Columns, joined, places_of
from nlx.data.dataset import DataError, Split
from nlx.data.label_studio import TRUSTED, WEB
from nlx.data.names import alike, numbered

Repeats = Literal["last", "all"]
_NUMBER = re.compile(r"-?\d+(\.0*)?")


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
      groups: the group of each annotator, int32 ``[A]``; what comes from the web is one of its own, the last.
      group_names: of each group, an empty one where people are told apart by none.
      trusted: true class where it is known, -1 elsewhere, int32 ``[N]``; None for nowhere.
      notes: what reading them has found and a user should know.
    """

    item: np.ndarray
    annotator: np.ndarray
    label: np.ndarray
    items: np.ndarray
    annotators: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray
    group_names: tuple[str, ...]
    trusted: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.item)

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of items, annotators and classes, as :mod:`nlx.crowd` wants them."""
        n, a, k = len(self.items), len(self.annotators), len(self.class_names)
        return {"num_items": n, "num_annotators": a, "num_classes": k}

    def by_item(self, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Annotators and labels by item, int32 ``[N, P]`` each with P the most answers to one; -1 for no more.

        Args:
          counts: which answers there are, bool ``[M]``; None for all.
        """
        order = np.argsort(self.item, kind="stable")
        order = order if counts is None else order[counts[order]]
        item, n = self.item[order], len(self.items)
        size = np.bincount(item, minlength=n)
        place = np.arange(len(item)) - (np.cumsum(size) - size)[item]
        annotators, labels = np.full((2, n, max(int(np.max(size)), 1)), -1, np.int32)
        annotators[item, place], labels[item, place] = self.annotator[order], self.label[order]
        return annotators, labels

    @property
    def of_web(self) -> np.ndarray:
        """Which annotator stands for labels from the web, bool ``[A]``; nobody where there is no other."""
        web = self.annotators.astype(str) == WEB
        return np.asarray(web & ~web.all())

    @property
    def of_people(self) -> np.ndarray:
        """The answers, -1 where they are labels from the web, int32 ``[M]``."""
        return np.where(self.of_web[self.annotator], np.int32(-1), self.label)

    def trusted_in(self, split: Split) -> Split:
        """The split with the true labels that are known here as such that may be learnt from, of one item a row."""
        if self.trusted is None:
            return split
        known = self.trusted >= 0
        others = np.full(len(split), -1, np.int32) if split.label is None else split.label
        trusted = known if split.trusted is None else known | split.trusted
        return replace(split, label=np.where(known, self.trusted, others).astype(np.int32), trusted=trusted)

    @property
    def mostly_single(self) -> bool:
        """Whether more items have one answer than have several."""
        size = np.bincount(self.item, minlength=len(self.items))
        return bool((size == 1).sum() > (size > 1).sum())


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
      answers: a long table with the columns item, annotator and label (or task, worker, answer and the like), maybe
        with the group of each annotator, or a wide one with a column for each annotator, maybe after one of items: a
        path (.csv, .tsv, .parquet, Label Studio's .json, or .npy), a frame, or columns by name; or rows ``(item,
        annotator, label)``, or a tuple of three arrays; or a matrix ``[N, A]``. An empty cell, None, NaN or the number
        -1 is no answer. Ids in text files are text.
      web: one further label of items: by item, a table with the columns item and label, a Series with items as its
        index, or ``[N]`` in their order.
      trusted: true labels where they are known, likewise. Label Studio's ground truth is such, too.
      class_names: the classes, which labels name or number; by default all labels that occur, in order.
      num_items: items are the numbers from 0 below it; None for the items that occur, as they come.
      repeats: what counts of several answers by one annotator to one item: the last one, or all.

    Returns:
      The answers.

    Raises:
      DataError, ArgumentError: one sentence that names the row, column or argument, and the fix.
    """
    if repeats not in get_args(Repeats):
        raise ArgumentError(f"`repeats` must be one of {', '.join(get_args(Repeats))}, got {repeats!r}")
    if class_names is not None and len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if class_names.count(name) > 1)
        raise ArgumentError(f"`class_names` has {twice!r} twice: give each class once")
    if isinstance(answers, Answers):
        return answers
    where = str(answers) if isinstance(answers, (str, Path)) else "`answers`"
    table, notes = long_table(answers, where)
    order = pc.unique(table["item"]) if num_items is None else pa.array(np.arange(num_items))
    of_web, truth = (by_item(values, f"`{name}`", order) for name, values in (("web", web), (TRUSTED, trusted)))
    if (told := table.pop(TRUSTED, None)) is not None:
        own = {"item": table["item"].filter(pc.is_valid(told)), "label": pc.drop_null(told)}
        truth = own if truth is None else {name: joined([column, truth[name]]) for name, column in own.items()}
    if of_web is not None:
        if WEB in set(map(str, pc.unique(table["annotator"]).to_pylist())):
            raise ArgumentError(f"an annotator is called {WEB!r} already: rename that one, or leave `web` out")
        size = len(of_web["item"])
        more = {**of_web, "annotator": pa.array([WEB] * size), "group": pa.nulls(size)}
        table = {role: joined([column, more[role]]) for role, column in table.items()}
    said = [table["label"]] + ([truth["label"]] if truth is not None else [])
    if len(pc.drop_null(table["label"])) == 0:
        raise DataError(f"{where} holds no answer: give at least one label that is not missing.")
    numbers, names = _classes(said, class_names, where)
    item, items = _numbers(table["item"], num_items, where)
    annotator, annotators = _numbers(table["annotator"], None, where)
    for role, missing in (("item", item < 0), ("annotator", annotator < 0)):
        if (nobody := np.flatnonzero((numbers[0] >= 0) & missing)).size:
            raise DataError(f"{where} row {nobody[0]} has no {role} ({len(nobody)} such): name it, or remove the row.")
    kept = np.flatnonzero(numbers[0] >= 0)
    if repeats == "last":
        kept, everyone = _last(kept, item, annotator), len(kept)
        if (again := everyone - len(kept)) > 0:
            notes += (f"of several answers by one annotator to one item the last one counts: {again:,} left out",)
    certain = None
    if truth is not None:
        certain = _certain(truth, numbers[1], items, names)
        if (new := sorted(set(certain.tolist()) - set(numbers[0].tolist()) - {-1})) and class_names is None:
            notes += (f"`trusted` alone has labels {', '.join(repr(names[c]) for c in new)}, which nobody answered",)
    groups = _groups(table.get("group"), annotator, annotators, where)
    item, annotator, label = (x[kept].astype(np.int32) for x in (item, annotator, numbers[0]))
    notes = (*notes, *alike(names))
    return Answers(item, annotator, label, items, annotators, names, *groups, certain, notes)


def _certain(trusted: Columns, labels: np.ndarray, items: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """The true class of each item, int32 ``[N]``, -1 where it is not known."""
    places = places_of(trusted["item"], pa.array(items))
    if (gone := np.flatnonzero(places < 0)).size:
        raise DataError(f"`trusted` names {trusted['item'][gone[0]]}, which no answer is about: remove it.")
    certain = np.full(len(items), -1, np.int32)
    certain[places] = labels
    if (other := np.flatnonzero(certain[places] != labels)).size:
        row = other[0]
        two = sorted((names[labels[row]], names[certain[places[row]]]))
        raise DataError(f"`trusted` has two labels for {trusted['item'][row]}, {two[0]!r} and {two[1]!r}: keep one.")
    return certain


def _groups(
    column: pa.Array | None, annotator: np.ndarray, annotators: np.ndarray, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The group of each annotator, and the groups' names; the web's is the last one."""
    groups, names = np.zeros(len(annotators), np.int64), [""]
    if column is not None:
        coded = column.cast(pa.string()).fill_null("").dictionary_encode()
        numbers, names = coded.indices.to_numpy(), coded.dictionary.to_pylist()
        there = annotator >= 0
        groups[annotator[there]] = numbers[there]
        if (other := np.flatnonzero(there & (groups[annotator] != numbers))).size:
            who = annotator[other[0]]
            two = sorted((names[numbers[other[0]]], names[groups[who]]))
            raise DataError(f"{where}: {annotators[who]} is of the groups {two[0]!r} and {two[1]!r}: name one.")
    web = annotators.astype(str) == WEB
    if web.any() and not web.all():
        groups[web] = len(names)
        names = [*names, WEB]
        used, groups = np.unique(groups, return_inverse=True)
        names = [names[g] for g in used]
    return groups.astype(np.int32), tuple(names)


def _numbers(column: pa.Array, size: int | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A number for each name, -1 where it is missing, and the names as they come."""
    if size is None:
        coded = column.dictionary_encode()
        return coded.indices.fill_null(-1).to_numpy(), coded.dictionary.to_numpy(zero_copy_only=False)
    given = column
    if pa.types.is_string(column.type):  # of a CSV file, or of Label Studio
        column = pc.if_else(pc.match_substring_regex(column, r"^\d{1,18}$"), column, None)
        column = column.cast(pa.int64())
    numbers = column.fill_null(-1).to_numpy() if pa.types.is_integer(column.type) else np.full(len(column), -1)
    if (bad := np.flatnonzero((numbers < 0) | (numbers >= size))).size:
        raise DataError(
            f"{where} row {bad[0]} is about item {given[bad[0]]} ({len(bad)} such): items must be rows of the "
            f"training set, whole numbers from 0 to {size - 1}."
        )
    return numbers, np.arange(size)


def _classes(
    columns: list[pa.Array], class_names: tuple[str, ...] | None, where: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Class numbers of labels, -1 where there is none, and the classes."""
    whole = joined(columns).dictionary_encode()
    texts = list(map(str, whole.dictionary.to_pylist()))
    if all(map(_NUMBER.fullmatch, texts)):
        texts = ["" if float(text) == -1 else text for text in texts]
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


def _last(rows: np.ndarray, item: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """Of rows with the same item and annotator the last one, in the order of rows."""
    key = item[rows].astype(np.int64) * (int(annotator.max()) + 1) + annotator[rows]
    _, first = np.unique(key[::-1], return_index=True)
    return rows[np.sort(len(rows) - 1 - first)]
