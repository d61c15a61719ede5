"""Names that people type: of classes and of columns, brought to one form, and told apart where they are nearly one."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from nlx.data.dataset import DataError, Dataset
from nlx.data.words import parts_of

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))  # joiners stay, which some scripts need
_MISSING = {"nan", "none", "null", "na", "n/a", "<na>"}

ROLES = {
    "item": ("item", "task", "example", "index", "path", "image"),
    "annotator": ("annotator", "worker", "rater", "user", "labeler", "performer"),
    "label": ("label", "answer", "response", "class"),
}
"""Names of the columns of people's answers, the first the library's own."""


def clean_name(name: str) -> str:
    """A name as it is compared: composed (NFC), without invisible marks, and without spaces around it."""
    return unicodedata.normalize("NFC", name.translate(_INVISIBLE)).strip().strip("\u200c\u200d")


def numbers_as_one(names: Iterable[str]) -> dict[str, str]:
    """One spelling for each name: where all that are numbers are whole, ``1.0`` is ``1``, and the others stay.

    Where all names are numbers, those that stand for a missing one, such as ``nan``, become the empty name.

    Examples:
      >>> numbers_as_one(["1.0", "1", "nan"])
      {'1.0': '1', '1': '1', 'nan': ''}
      >>> numbers_as_one(["v1.0", "1.5", "1.0"])
      {'v1.0': 'v1.0', '1.5': '1.5', '1.0': '1.0'}
    """
    names = list(dict.fromkeys(names))
    numeric = [name for name in names if _NUMBER.fullmatch(name)]
    all_numbers = bool(numeric) and all(name in numeric or name.lower() in {"", *_MISSING} for name in names)
    whole = all(_WHOLE.fullmatch(name) for name in numeric)

    def spelled(name: str) -> str:
        if all_numbers and name not in numeric:
            return ""
        match = _WHOLE.fullmatch(name) if whole else None
        return match[1] if match else name

    return {name: spelled(name) for name in names}


def as_listed(names: Iterable[str], listed: Collection[str]) -> dict[str, str]:
    """One spelling for each name: that of a listed one, as it stands or as the same number, else the common one.

    Examples:
      >>> as_listed(["1", "2.0", "3.0"], ["1.0", "2.0"])
      {'1': '1.0', '2.0': '2.0', '3.0': '3'}
    """
    names = list(names)
    one = numbers_as_one([*names, *listed])
    own = {one[name]: name for name in listed if one[name]} | {name: name for name in listed}
    return {name: own.get(name, own.get(one[name], one[name])) for name in names}


def meant_as_none(true: Iterable[str], noisy: Collection[str]) -> set[str]:
    """Names such as ``nan`` and ``-1`` that true labels alone have: there, nobody knew better."""
    return {name for name in true if name not in noisy and name.casefold() in {"-1", *_MISSING}}


def numbered(arrays: Sequence[np.ndarray], names: Sequence[str] | None) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Class numbers of names.

    Args:
      arrays: names, strings ``[n]`` each.
      names: the classes, of which every name is one; by default all names, in order.

    Returns:
      Class numbers, int64 ``[n]`` each, -1 for an empty name and -2 for one that is no class; and the classes.

    Examples:
      >>> numbered([np.array(["cat", " ant"]), np.array(["", "cat"])], None)
      ([array([1, 0]), array([-1,  1])], ('ant', 'cat'))
    """
    cleaned = [list(map(clean_name, array.tolist())) for array in arrays]
    listed = list(map(clean_name, names or ()))
    one = as_listed((name for column in cleaned for name in column), listed)
    classes = in_order({name for name in one.values() if name}) if names is None else tuple(names)
    index = {"": -1, **{name: number for number, name in enumerate(listed or classes)}}
    return [np.array([index.get(one[name], -2) for name in column]) for column in cleaned], classes


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted, as numbers where all of them are.

    Examples:
      >>> in_order(["10", "9"]), in_order(["b", "10", "9"])
      (('9', '10'), ('10', '9', 'b'))
    """
    names = list(names)
    numeric = all(_NUMBER.fullmatch(name) for name in names)
    return tuple(sorted(names, key=(lambda name: (Decimal(name), name)) if numeric else None))


def alike(names: Sequence[str]) -> list[str]:
    """Sentences on names that differ by case, spaces, joiners or how a number is written, or that may mean none."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        key: Any = re.sub(r"[\s_\-\u200c\u200d]+", "", unicodedata.normalize("NFKC", name).casefold())
        if re.fullmatch(r"[+-]?\d+([.,]\d+)?(e[+-]?\d{1,3})?", name):
            key = Decimal(name.replace(",", "."))
        groups.setdefault(key, []).append(name)
    told = [
        f"classes {' and '.join(map(repr, group))} differ by case, spaces or zeros alone: are they one?"
        for group in groups.values()
        if len(group) > 1
    ]
    none = [name for name in names if name.casefold() in _MISSING or name == "-1"]
    return told + [f"class {name!r} may mean that there is no label: leave it empty, or such rows out" for name in none]


def check_unused(where: str, given: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """Refuse a column or key that is nearly one of the known ones; return a note on those that are not used.

    Args:
      where: beginning of the sentence if it fails.
      given: names that are there.
      known: names that are understood.

    Raises:
      DataError: a name is one slip away from a known one that is not there.
    """
    unused = [name for name in given if name not in known]
    absent = {name for name in known if name not in given}
    for name in unused:
        near = difflib.get_close_matches(clean_name(name).lower().replace(" ", "_"), sorted(absent), n=1, cutoff=0.75)
        if near:
            raise DataError(
                f"{where}: {name!r} is not read: rename it to {near[0]!r} if that is meant, or to something unlike it."
            )
    return (f"not used: {', '.join(unused)}",) if unused else ()


def listed_classes(path: Path) -> tuple[str, ...]:
    """The classes that a text file lists, one a line; none where there is no such file.

    Raises:
      DataError: no UTF-8, or a class that stands there twice.
    """
    if not path.is_file():
        return ()
    try:
        lines = [clean_name(line) for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: save it in UTF-8.") from error
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line and first.setdefault(line, number) != number:
            raise DataError(f"{path}: line {number} repeats the class {line!r}: list every class once.")
    return tuple(first)


def with_words(data: Dataset, path: Path) -> Dataset:
    """A data set with a table of words for its classes: CSV with the heading ``class,word`` and a row for each word.

    Args:
      data: with noisy labels of another vocabulary.
      path: of the file; a class may have several rows.

    Returns:
      The data set with ``words``; classes that are not in the file are not in it. A note tells of words that its
      vocabulary lacks.

    Raises:
      DataError: it cannot be read, or names a class that there is not, or no word of the vocabulary, or the labels are
        of the classes themselves.
    """
    if data.noisy_names is None:
        raise DataError(f"`words` does nothing for {data.name}, whose labels name its classes: leave it out.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[clean_name(cell) for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table of words: {error}.") from error
    if not rows or [name.lower() for name in rows[0]] != ["class", "word"]:
        raise DataError(f"{path}: the first line must be class,word.")
    words: dict[str, list[str]] = {}
    vocabulary, unsaid = set(data.noisy_names), []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) != 2 or not all(row):
            raise DataError(f"{path}, line {number}: write a class and one word, such as dog,puppy.")
        if row[0] not in data.class_names:
            raise DataError(f"{path}, line {number}: {row[0]!r} is no class; they are {', '.join(data.class_names)}.")
        words.setdefault(row[0], []).append(row[1])
        if not parts_of(row[1], vocabulary):
            unsaid.append((number, row[1]))
    if unsaid and len(unsaid) == sum(map(len, words.values())):
        raise DataError(f"{path}: no word of it is in the vocabulary of {data.name}, such as {data.noisy_names[0]!r}.")
    notes = data.notes
    if unsaid:
        mute = [name for name, some in words.items() if not any(parts_of(word, vocabulary) for word in some)]
        silent = f"; {', '.join(mute)} can never be said" if mute else ""
        number, word = unsaid[0]
        notes += (f"{path}: {len(unsaid)} words are not in the vocabulary, line {number} ({word!r}) first{silent}",)
    return replace(data, words={name: tuple(some) for name, some in words.items()}, notes=notes)
