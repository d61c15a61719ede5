"""``folder:PATH``: pictures with a ``labels.csv``, single-label or multi-label, or in a folder for each class."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from nlx.data.dataset import DataError, Dataset, ImageFiles, Inputs, Split
from nlx.data.decode import broken_files, decode_all, survey
from nlx.data.names import alike, as_listed, in_order, listed_classes, meant_as_none
from nlx.data.origin import Origin
from nlx.data.pictures import find_files
from nlx.data.sources.folder_rows import SPLITS, TABLE, TableRow, in_folders, read_rows

CLASSES = "classes.txt"


def folder(
    path: str | Path,
    image_size: int = 224,
    *,
    in_memory_gib: float = 2.0,
    name: str | None = None,
    multi_label: bool | None = None,
    label_separator: str = ";",
    skip_broken: bool = False,
    allow_outside: bool = False,
    clean: bool = False,
) -> Dataset:
    """A data set from pictures in a folder.

    Without a ``labels.csv``, folders are the classes: those in it, or those in its ``train`` and ``test`` or ``val``.

    ``labels.csv`` has the columns ``path,noisy[,label][,split]``: the picture relative to the folder, its observed
    labels, several of them separated by ``;``, its true labels in the same form (empty where they are unknown; where
    some are known, these are trusted), and ``train`` (also if empty) or ``test``. Any character may separate the
    columns, whose names are compared without case; other columns are noted. Names are compared composed and without
    invisible marks, and where all numbers are whole, ``1.0`` is ``1``; ``nan``, ``NA`` or ``-1`` that true labels alone
    have means unknown. ``classes.txt``, if there is one, has a class a line and fixes their order and spelling;
    otherwise the classes are all labels of the table, sorted, as numbers if all are. Training rows without a label are
    left out where there is one label per example, and are of no class otherwise.

    Args:
      path: the folder.
      image_size: height and width of the pictures, pixels: short side resized, centre cropped.
      in_memory_gib: pictures that fill no more than this are decoded at once, others stay ``ImageFiles``.
      name: of the data set; the folder's name by default.
      multi_label: whether labels are {0, 1} vectors; by default they are if a row has several labels.
      label_separator: between the labels of one example.
      skip_broken: leave out pictures that cannot be read, instead of refusing.
      allow_outside: take pictures from outside the folder.
      clean: whether the folders of classes are right, and so true labels.

    Returns:
      The data set. Test rows need true labels; their noisy ones are not used.

    Raises:
      DataError: anything the user has to change, with the number of the row.
    """
    root = Path(path).expanduser()
    table = root / TABLE
    rows, notes = read_rows(table, label_separator) if table.is_file() else in_folders(root, clean)
    rows = _found(root, table, rows, allow_outside)
    broken, top = survey([r.path for r in rows])
    if broken and not (skip_broken and any(r.split == "train" for i, r in enumerate(rows) if i not in broken)):
        raise DataError(broken_files(broken))
    if broken:
        notes.append(f"{len(broken)} pictures cannot be read and are left out")
        rows = [row for number, row in enumerate(rows) if number not in broken]
    listed = listed_classes(root / CLASSES)
    rows, decided = _one_spelling(rows, listed)
    notes += decided
    several = [r.number for r in rows if len(r.noisy) > 1 or len(r.label) > 1]
    multi_label = bool(several) if multi_label is None else multi_label
    if several:
        notes.append(
            f"{len(several)} rows have several labels separated by {label_separator!r}, row {several[0]} first: each "
            "may have several"
        )
    unlabelled = [r for r in rows if r.split == "train" and not r.noisy]
    if unlabelled and not multi_label:
        notes.append(f"{len(unlabelled)} training rows without a label are left out, row {unlabelled[0].number} first")
        rows = [r for r in rows if r.split == "test" or r.noisy]
    names = _class_names(table, rows, listed)
    notes += alike(names)

    parts = {split: [r for r in rows if r.split == split] for split in SPLITS}
    if not parts["train"]:
        raise DataError(f"{table}: there is no training row with a label: fill 'noisy', and 'split' with train or not.")
    in_memory = len(rows) * image_size**2 * 3 <= in_memory_gib * 2**30

    def inputs(part: list[TableRow]) -> Inputs:
        paths = tuple(r.path for r in part)
        return decode_all(paths, image_size, top) if in_memory else ImageFiles(paths, image_size, top)

    true = {split: _encode(table, part, "label", names, multi_label) for split, part in parts.items()}
    if parts["test"] and (true["test"] is None or (true["test"] < 0).any()):
        row = next(r for r in parts["test"] if not r.label)
        raise DataError(
            f"{table}: row {row.number} is a test row without a true label: fill 'label' in, or set 'split' to train."
        )
    noisy = _encode(table, parts["train"], "noisy", names, multi_label)
    if noisy is None:
        raise DataError(f"{table}: no training row has a noisy label: fill the column 'noisy'.")
    true_names = {name for r in rows for name in r.label}
    if true_names and true_names.isdisjoint(name for r in rows for name in r.noisy):
        raise DataError(f"{table}: columns 'noisy' and 'label' have no class in common: name them alike.")
    origins = {split: _origin(part) for split, part in parts.items()}
    train = Split(inputs(parts["train"]), noisy, true["train"], origin=origins["train"]).partly_trusted()
    test = Split(inputs(parts["test"]), None, true["test"], origin=origins["test"]) if parts["test"] else None
    return Dataset(name or root.resolve().name, names, train, test, notes=tuple(notes))


def _origin(part: list[TableRow]) -> Origin:
    return Origin(np.array([r.row for r in part], np.int64), "path", np.array([r.name for r in part], object))


def _one_spelling(rows: list[TableRow], listed: tuple[str, ...]) -> tuple[list[TableRow], list[str]]:
    """The rows with one spelling of every number, and without true labels that mean none; and what was decided."""
    noisy, true = ({name for row in rows for name in part(row)} for part in (lambda r: r.noisy, lambda r: r.label))
    one = as_listed(noisy | true, listed)
    none = meant_as_none(map(one.__getitem__, true), {one[name] for name in noisy} | set(listed))

    def spelled(labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in map(one.__getitem__, labels) if name and name not in none))

    notes = [f"true labels {', '.join(sorted(none))} mean that they are unknown"] if none else []
    return [row._replace(noisy=spelled(row.noisy), label=spelled(row.label)) for row in rows], notes


def _found(root: Path, table: Path, rows: list[TableRow], allow_outside: bool) -> list[TableRow]:
    """The rows with paths that can be opened, each picture named once."""
    seen: dict[str, int] = {}
    found = []
    for row, file in zip(rows, find_files(root, [row.path for row in rows]), strict=True):
        if file.path is None:
            near = f", {file.near!r} being there" if file.near else ""
            raise DataError(
                f"{table}: row {row.number} names {row.path!r}, which is not in {root}{near}: correct the path, "
                f"relative to that folder, or remove the row."
            )
        if file.outside and not allow_outside:
            raise DataError(
                f"{table}: row {row.number} names {row.path!r}, which lies outside {root}: move the picture there, or "
                f"allow such paths by `allow_outside`."
            )
        if file.real in seen:
            raise DataError(
                f"{table}: row {row.number} repeats the path of row {seen[file.real]}, {row.path!r}: list every "
                f"picture once."
            )
        seen[file.real] = row.number
        found.append(row._replace(path=file.path))
    return found


def _class_names(table: Path, rows: list[TableRow], listed: tuple[str, ...]) -> tuple[str, ...]:
    names = listed or in_order({label for row in rows for label in (*row.noisy, *row.label)})
    if not names:
        raise DataError(f"{table}: no row has a label: fill the column 'noisy'.")
    known = set(names)
    for row in rows:
        for label in (*row.noisy, *row.label):
            if label not in known:
                close = difflib.get_close_matches(label, names, n=1)
                fix = f"write {close[0]!r}" if close else "correct it"
                raise DataError(f"{table}: row {row.number} has the label {label!r}: {fix}, or add it to {CLASSES}.")
    return names


def _encode(
    table: Path, rows: list[TableRow], column: str, names: tuple[str, ...], multi_label: bool
) -> np.ndarray | None:
    """Labels of one column as the library stores them, None if every row leaves it empty."""
    labels = [row.noisy if column == "noisy" else row.label for row in rows]
    if not any(labels):
        return None
    index = {name: c for c, name in enumerate(names)}
    missing = column == "label" and not all(labels)
    if multi_label:
        vectors = np.zeros((len(rows), len(names)), np.int8 if missing else np.uint8)
        for vector, some in zip(vectors, labels, strict=True):
            vector[[index[name] for name in some]] = 1
        vectors[[missing and not some for some in labels]] = -1 if missing else 0
        return vectors
    for row, some in zip(rows, labels, strict=True):
        if len(some) > 1:
            raise DataError(
                f"{table}: row {row.number} has {len(some)} labels in column {column!r}, but the data is single-label: "
                f"give it one label like the other rows."
            )
    return np.array([index[some[0]] if some else -1 for some in labels], np.int32)
