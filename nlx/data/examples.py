"""What ``nlx clean`` is given: features or pictures with their labels, from files of any make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse

from nlx.data.dataset import DataError, ImageFiles
from nlx.data.decode import broken_files, decode_all, survey
from nlx.data.origin import Origin
from nlx.data.pictures import class_folders, find_files
from nlx.data.sources.npz import check_members
from nlx.data.tables import TABLES, Table, read_table

SIZE, _LARGE = 32, 224  # pixels that pictures are decoded to, and for a pretrained network
_INPUTS = ("features", "image", "embeddings", "x", "X")
_TABLE = "labels.csv"


class Names(NamedTuple):
    """How columns are called, None for the usual names, and what stands between columns and between labels."""

    label: str | None = None
    id: str | None = None
    path: str | None = None
    trusted: str | None = None
    separator: str | None = None


class Examples(NamedTuple):
    """What there is to clean.

    Attributes:
      inputs: features ``[n, F]``, dense or sparse, or images, uint8 ``[n, H, W]`` or ``[n, H, W, C]``.
      labels: as they are, ``[n]`` or ``[n, K]``.
      trusted: a mask or true labels ``[n]``, None where there is nothing of the kind.
      origin: rows, and ids or paths.
      notes: what was decided on the way, in words.
      files: of pictures, to be decoded larger; None where there are none.
    """

    inputs: Any
    labels: np.ndarray
    trusted: np.ndarray | None
    origin: Origin
    notes: tuple[str, ...]
    files: ImageFiles | None = None


def read_examples(inputs: Path, labels: Path | None, names: Names, skip_broken: bool = False) -> Examples:
    """Examples from files.

    Args:
      inputs: ``.npy``, ``.npz`` (also scipy's), ``.parquet`` or ``.csv`` of features, or a folder of pictures.
      labels: ``.npy``, ``.npz``, ``.parquet``, ``.csv`` or ``.txt``; None where they stand beside the features, in
        ``labels.csv`` of the folder, or are the names of its folders. Features and labels are joined by id, or by path,
        where both have one, and else by their order.
      names: of columns.
      skip_broken: leave out pictures that cannot be read.

    Raises:
      DataError: what the user has to change, in one sentence.
      OSError: a file cannot be read.
    """
    if inputs.is_dir():
        return _of_pictures(inputs, labels, names, skip_broken)
    features, beside = read_features(inputs, names)
    table = beside if labels is None else _labels(labels, names)
    if table is None:
        raise DataError(f"{inputs}: holds features alone: give a file of labels as well.")
    column = table.labels(names.label)
    given, notes = table.columns[column], [f"labels: {column} of {table.where}" if table.heading else ""]
    place, n = np.arange(features.shape[0]), features.shape[0]
    key, joined = _key(beside, names), _key(table, names)
    if key is None and joined is None:
        for role, wanted in (("id", names.id), ("path", names.path)):
            table.find(role, wanted)
    if table is not beside and key is not None and joined is not None and key[0] == joined[0]:
        place, said = _matched(key[1], joined[1], inputs, table)
        notes.append(said)
    elif table is not beside:
        if len(given) > n and all(label == "" for label in given[n:].tolist()):  # blank lines at the end
            given = given[:n]
        if len(given) != n:
            hint = f"; if {str(given[0])!r} is a heading, name it by `label`" if len(given) == n + 1 else ""
            raise DataError(
                f"{table.where}: {len(given)} labels for the {n} examples of {inputs}: give one each{hint}."
            )
    trusted = table.find("trusted", names.trusted)
    values = None if trusted is None else _picked(table.columns[trusted], place)
    known = key or (joined if joined is not None and len(joined[1]) == n else None)
    origin = Origin(np.arange(n)) if known is None else Origin(np.arange(n), *known)
    return Examples(features, _picked(given, place), values, origin, tuple(filter(None, notes)))


def _picked(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values of rows, none where the row is -1."""
    if (place >= 0).all():
        return values[place] if len(place) else values
    picked = values[place].astype(object if values.dtype.kind in "OUb" else np.float64)
    picked[place < 0] = None if picked.dtype.kind == "O" else np.nan
    return picked


def _key(table: Table | None, names: Names) -> tuple[Literal["id", "path"], np.ndarray] | None:
    """The ids of a table or, where it has none, its paths."""
    roles: tuple[tuple[Literal["id", "path"], str | None], ...] = (("id", names.id), ("path", names.path))
    for role, wanted in roles:
        column = None if table is None else table.find(role, wanted, required=False)
        if table is not None and column is not None:
            return role, checked_ids(f"{table.where}: column {column!r}", table.columns[column])
    return None


def checked_ids(where: str, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Ids as an array of objects, none of them twice.

    Raises:
      DataError: some are missing or repeat.
    """
    values = np.empty(len(ids), object)
    values[:] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    first: dict[Any, int] = {}
    for row, value in enumerate(values.tolist()):
        if value is None or value == "" or value != value:
            raise DataError(f"{where}: row {row} has no id: give every example one, or leave ids out.")
        if first.setdefault(value, row) != row:
            raise DataError(f"{where}: rows {first[value]} and {row} have the same id, {value!r}: give each its own.")
    return values


def _matched(ours: np.ndarray, theirs: np.ndarray, inputs: Path, table: Table) -> tuple[np.ndarray, str]:
    """Where the id of each example stands among those of the labels, -1 for nowhere, and what to say of it."""
    as_text = any(isinstance(value, str) for value in (*ours[:1], *theirs[:1]))
    index = {str(value) if as_text else value: row for row, value in enumerate(theirs.tolist())}
    place = np.array([index.get(str(value) if as_text else value, -1) for value in ours.tolist()])
    found = int((place >= 0).sum())
    if not found:
        raise DataError(
            f"{table.where}: none of its ids, such as {theirs[0]!r}, is in {inputs}, which has {ours[0]!r}."
        )
    more = [f"{len(ours) - found:,} have no label"] if found < len(ours) else []
    more += [f"{len(theirs) - found:,} labels have no features and are left out"] if found < len(theirs) else []
    return place, "; ".join([f"joined by id: {found:,} of {len(ours):,} examples", *more])


def read_features(path: Path, names: Names) -> tuple[Any, Table | None]:
    """Features of a file, and the columns beside them, if any; errors as :func:`read_examples`."""
    if path.suffix.lower() in TABLES:
        table = read_table(path, names.separator, names[:4])
        roles = ((role, getattr(names, role)) for role in ("label", "id", "path", "trusted"))
        found = [table.find(role, name, required=False) for role, name in roles]
        beside = [name for name in found if name is not None]
        return table.features(beside), table if beside else None
    with open(path, "rb") as file:  # numpy leaves a broken one open
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            if {"format", "shape", "data"} <= set(loaded.files):
                file.seek(0)
                return sparse.load_npz(file), None
            key = next((key for key in _INPUTS if key in loaded.files), None)
            if key is not None:
                check_members(path, loaded, [key])
                features = loaded[key]
                others = [name for name in loaded.files if name not in _INPUTS]
                check_members(path, loaded, others)
                columns = {name: loaded[name] for name in others}
                columns = {name: values for name, values in columns.items() if values.shape[:1] == features.shape[:1]}
                return features, Table(str(path), columns) if columns else None
        except DataError:
            raise
        except Exception as error:  # a broken file can raise anything
            raise DataError(
                f"{path} is no array of numbers or text that numpy.save or numpy.savez wrote, no .parquet and no .csv"
            ) from error
    raise DataError(f"{path} has no {' or '.join(_INPUTS[:2])}: save the array under one of these names")


def _labels(path: Path, names: Names) -> Table:
    """A table with the column of labels."""
    if path.suffix.lower() in TABLES:
        return read_table(path, names.separator, names[:4])
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return Table(str(path), {"labels": loaded}, heading=False)
            wanted = [name for name in loaded.files if name not in _INPUTS]
            check_members(path, loaded, wanted)
            columns = {name: loaded[name] for name in wanted}
        except DataError:
            raise
        except Exception as error:  # likewise
            raise DataError(f"{path} is no text and no array: give .npy, .npz, .parquet, .csv or .txt") from error
    if not columns:
        raise DataError(f"{path} has no noisy_label: save the labels under that name")
    return Table(str(path), columns)


def _of_pictures(root: Path, labels: Path | None, names: Names, skip_broken: bool) -> Examples:
    """Pictures in a folder, with a table, or in folders that are the classes."""
    listed = root / _TABLE if labels is None else labels
    if labels is not None or listed.is_file():
        table = read_table(listed, names.separator, names[:4])
        column, path_column = table.labels(names.label), table.find("path", names.path)
        if path_column is None:
            raise DataError(
                f"{listed}: which column names the pictures? Name one by `path`: {', '.join(table.columns)}."
            )
        paths = checked_ids(f"{listed}: column {path_column!r}", table.columns[path_column])
        given, trusted = table.columns[column], table.find("trusted", names.trusted)
        known = None if trusted is None else table.columns[trusted]
        notes = [f"labels: {column} of {listed}"]
    else:
        paths = np.array(class_folders(root), object)
        if not len(paths):
            raise DataError(
                f"{root}: has neither {_TABLE} nor folders of pictures: name the labels' file, or make folders."
            )
        given, known = np.array([Path(path).parts[0] for path in paths]), None
        notes = ["labels: names of the folders"]
    files = _found(root, listed, paths)
    broken, top = survey(files)
    if broken and not (skip_broken and len(broken) < len(files)):
        raise DataError(broken_files(broken))
    kept = np.array([row for row in range(len(files)) if row not in broken], np.int64)
    if broken:
        notes.append(f"{len(broken):,} pictures cannot be read and are left out")
    large = ImageFiles(tuple(files[row] for row in kept), _LARGE, top)
    origin = Origin(np.arange(len(paths)), "path", paths).take(kept)
    checked = None if known is None else known[kept]
    return Examples(decode_all(large.paths, SIZE, top), given[kept], checked, origin, tuple(notes), large)


def _found(root: Path, table: Path, paths: np.ndarray) -> list[str]:
    """Files of paths relative to the folder or, where not one is there, to the table's."""
    names = [str(path) for path in paths]
    found = find_files(root, names)
    if all(file.path is None for file in found):
        found = find_files(table.parent, names)
    for row, file in enumerate(found):
        if file.path is None:
            near = f", {file.near!r} being there" if file.near else ""
            raise DataError(f"{table}: row {row} names {names[row]!r}, which is not in {root}{near}: correct the path.")
    return [str(file.path) for file in found]
