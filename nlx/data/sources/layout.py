"""What the readers of official layouts share: lists in text files, pictures that must be there, one data set of both.

A reader says where pictures are and what their labels are; all else is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlx.data.csv_text import read_text
from nlx.data.dataset import DataError, Dataset, ImageFiles, Inputs, Split
from nlx.data.decode import decode_all
from nlx.data.origin import Origin
from nlx.data.pictures import SUFFIXES, find_files


class Listed(NamedTuple):
    """Pictures of one part, and what is said of their labels.

    Attributes:
      where: the file or folder that lists them; begins sentences.
      folder: what their names are relative to.
      names: n of them.
      label: given ones, int ``[n]`` or {0, 1} ``[n, K]``.
      true: true ones in the same form; None where they are unknown.
      filled: see :class:`nlx.data.Split`.
      wrong: likewise.
      row: their numbers in ``where``, int ``[n]``; None for from 1 on.
    """

    where: Path
    folder: Path
    names: Sequence[str]
    label: np.ndarray
    true: np.ndarray | None = None
    filled: np.ndarray | None = None
    wrong: np.ndarray | None = None
    row: np.ndarray | None = None


class Rows(NamedTuple):
    """Rows of a text file, each with the same number of columns.

    Attributes:
      where: the file.
      first: number of the first of them, as an editor counts.
      cells: n rows.
    """

    where: Path
    first: int
    cells: list[list[str]]

    def column(self, number: int) -> list[str]:
        """One column."""
        return [row[number] for row in self.cells]

    def listed(self, folder: Path, label: np.ndarray, **more: np.ndarray | None) -> Listed:
        """The pictures that the first column names."""
        rows = np.arange(self.first, self.first + len(self.cells))
        return Listed(self.where, folder, self.column(0), label, **more, row=rows)


@dataclass(frozen=True)
class Layout:
    """An unpacked data set.

    Attributes:
      name: of the data set.
      root: the folder.
      page: where it comes from.
      image_size: height and width of its pictures when decoded, pixels.
      in_memory_gib: pictures that fill no more than this are decoded at once.
    """

    name: str
    root: Path
    page: str
    image_size: int
    in_memory_gib: float

    def wrong(self, where: Path, what: str) -> DataError:
        """What to raise where a file is not as its layout has it."""
        return DataError(f"{where}: {what}: get {self.name} as its page has it, {self.page}.")

    def rows(self, file: str, columns: int, *, heading: bool = False, separator: str | None = None) -> Rows:
        """The rows of a text file, blank lines at its end aside.

        Args:
          file: below the folder.
          columns: how many each row has; the last one takes what is left.
          heading: whether the first row names them; a picture there is refused.
          separator: between columns; white space by default.

        Raises:
          DataError: there is no such file, or a row has another number of columns.
        """
        path = self.root / file
        if not path.is_file():
            raise self.wrong(path, "no such file")
        first, lines = 1 + heading, read_text(path).rstrip().splitlines()
        if heading and any(word.lower().endswith(SUFFIXES) for word in lines[:1] and lines[0].split()):
            raise self.wrong(path, "row 1 names a picture in place of the columns")
        cells = [line.strip().split(separator, columns - 1) for line in lines[heading:]]
        for number, row in enumerate(cells, start=first):
            if len(row) != columns or not all(row):
                raise self.wrong(path, f"row {number} has {len(row)} columns in place of {columns}")
        if not cells:
            raise self.wrong(path, "has no rows")
        return Rows(path, first, cells)

    def once(self, rows: Rows) -> list[str]:
        """The first column.

        Raises:
          DataError: names the first row that repeats another.
        """
        seen: dict[str, int] = {}
        for number, name in enumerate(rows.column(0), rows.first):
            if seen.setdefault(name, number) != number:
                raise self.wrong(rows.where, f"row {number} repeats {name!r} of row {seen[name]}")
        return list(seen)

    def table(self, rows: Rows, below: int) -> dict[str, int]:
        """The numbers of the second column, below a limit, by the names in the first.

        Raises:
          DataError: names the first row that has another number, or one that contradicts an earlier row.
        """
        found: dict[str, int] = {}
        values = self.numbers(rows, 1, below).tolist()
        for number, (name, value) in enumerate(zip(rows.column(0), values, strict=True), rows.first):
            if found.setdefault(name, value) != value:
                raise self.wrong(rows.where, f"row {number} gives {name!r} {value}, an earlier row {found[name]}")
        return found

    def numbers(self, rows: Rows, column: int, below: int, least: int = 0) -> np.ndarray:
        """A column of whole numbers from ``least`` on and below a limit, int32 ``[n]``.

        Raises:
          DataError: names the first row that has another.
        """
        allowed = {str(value): value for value in range(least, below)}
        try:
            return np.array([allowed[cell.strip()] for cell in rows.column(column)], np.int32)
        except KeyError as error:
            number = next(i for i, cell in enumerate(rows.column(column), rows.first) if cell.strip() not in allowed)
            raise self.wrong(
                rows.where, f"row {number} has {error.args[0]!r} in place of a number from {least} to {below - 1}"
            ) from None

    def of_class(self, rows: Rows, classes: Sequence[str]) -> np.ndarray:
        """Class numbers of pictures whose names begin with their class and a slash, int32 ``[n]``.

        Raises:
          DataError: names the first row that has another.
        """
        index = {name: number for number, name in enumerate(classes)}
        names = [name.partition("/")[0] for name in rows.column(0)]
        for number, name in enumerate(names, rows.first):
            if name not in index:
                raise self.wrong(rows.where, f"row {number} names {name!r}, which is no class")
        return np.array([index[name] for name in names], np.int32)

    def folder(self, *names: str) -> Path:
        """The first of several folders that is there.

        Raises:
          DataError: none is.
        """
        for name in names:
            if (self.root / name).is_dir():
                return self.root / name
        raise self.wrong(self.root / names[0], "no such folder")

    def dataset(self, classes: Sequence[str], train: Sequence[Listed], test: Listed, *, trust: bool = True) -> Dataset:
        """The data set, its pictures checked to be there.

        Args:
          classes: their names.
          train: parts of the training split.
          test: the test split, its labels being true ones.
          trust: whether true labels may be learnt from where only some are known.

        Raises:
          DataError: there are no pictures, or one is missing, in a sentence that names its row.
        """
        for parts in (train, [test]):
            if not any(len(part.names) for part in parts):
                raise self.wrong(parts[0].where, "has no pictures")
        paths = [tuple(path for part in parts for path in self._paths(part)) for parts in (train, [test])]
        in_memory = sum(map(len, paths)) * self.image_size**2 * 3 <= self.in_memory_gib * 2**30

        def inputs(paths: tuple[str, ...]) -> Inputs:
            return decode_all(paths, self.image_size) if in_memory else ImageFiles(paths, self.image_size)

        def joined(parts: Sequence[Listed], name: str, missing: int) -> np.ndarray | None:
            if all(getattr(part, name) is None for part in parts):
                return None
            arrays = [(getattr(part, name), part.label) for part in parts]
            return np.concatenate([np.full_like(like, missing) if a is None else a for a, like in arrays])

        def marked(name: str) -> np.ndarray | None:
            marks = joined(train, name, 0)
            return None if marks is None else marks.astype(bool)

        origins = [
            Origin(np.arange(len(some)), "path", np.array([name for part in parts for name in part.names], object))
            for some, parts in zip(paths, (train, [test]), strict=True)
        ]
        split = Split(
            inputs(paths[0]),
            joined(train, "label", -1),
            joined(train, "true", -1),
            filled=marked("filled"),
            wrong=marked("wrong"),
            origin=origins[0],
        )
        tested = Split(inputs(paths[1]), None, test.label, origin=origins[1])
        return Dataset(self.name, tuple(classes), split.partly_trusted() if trust else split, tested)

    def _paths(self, part: Listed) -> list[str]:
        found = find_files(part.folder, part.names)
        missing = [row for row, file in enumerate(found) if file.path is None or file.outside]
        if missing:
            first = missing[0]
            row = first + 1 if part.row is None else part.row[first]
            others = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise self.wrong(
                part.where, f"row {row} names {part.names[first]!r}, which is not in {part.folder}{others}"
            )
        return [str(file.path) for file in found]
