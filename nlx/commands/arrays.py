"""Arrays and labels from the files that a command is given."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from nlx.arguments import ArgumentError
from nlx.data import DataError
from nlx.data.sources.npz import check_members


def read_array(path: Path, keys: tuple[str, ...]) -> np.ndarray:
    """An array from an .npy file, or from an .npz file under the first of some keys."""
    with open(path, "rb") as file:  # numpy leaves a broken one open
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            for key in keys:
                if key in loaded.files:
                    check_members(path, loaded, [key])
                    array: np.ndarray = loaded[key]
                    return array
        except DataError:
            raise
        except Exception as error:  # a broken file can raise anything
            raise ArgumentError(
                f"{path} is no array of numbers or text that numpy.save or numpy.savez wrote"
            ) from error
    raise ArgumentError(f"{path} has no {' or '.join(keys)}: save the array under one of these names")


def read_labels(path: Path) -> np.ndarray:
    """Labels from an array's file, or from text with one label a line."""
    if path.suffix in (".npy", ".npz"):
        return read_array(path, ("noisy_label", "labels", "label"))
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()  # spreadsheets begin with a mark
        cells = list(csv.reader(text)) if path.suffix == ".csv" else [[line] for line in text]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(f"{path} is no text: give .npy, .npz, or one label a line") from error
    for number, row in enumerate(cells, 1):
        if len(row) != 1 or not row[0].strip():
            said = "has several columns" if len(row) > 1 else "is empty"
            raise ArgumentError(f"{path}: line {number} {said}: give one label a line")
    return np.array([row[0].strip() for row in cells])
