"""How a data set was understood: one line for its user, and what in it may not be meant."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib

import numpy as np

from nlx.data.dataset import Dataset, ImageFiles
from nlx.data.decode import decode_all

_DARK = 15  # of 255
_LOOKED_AT = 100  # pictures that stay on disk
_MOST_FILES = 200_000  # whose lengths are asked for


def understood(data: Dataset) -> str:
    """One line on examples, classes and labels.

    Examples:
      >>> from nlx.data.dataset import Split
      >>> labels = np.array([0, 1, 1])
      >>> understood(Dataset("x", ("a", "b"), Split(np.ones((3, 2), np.float32), labels, None), None))
      '3 examples, 2 classes, one label each, 1 to 2 a class'
    """
    counts, several = _counts(data), data.multi_label
    parts = [f"{len(data.train):,} examples", f"{len(counts):,} classes"]
    if several:
        none = int((~data.train.observed.any(axis=1)).sum())
        parts += [
            f"any number of labels each, {data.train.observed.sum(axis=1).mean():.1f} on average, {none:,} of none"
        ]
    else:
        parts.append("one label each")
    parts.append(f"{counts.min():,} to {counts.max():,} a class")
    if data.train.label is not None and not data.train.known.all():
        trusted = " and trusted" if data.train.trusted is not None else ""
        parts.append(f"true labels of {data.train.known.sum():,} are known{trusted}")
    return ", ".join(parts)


def doubts(data: Dataset) -> list[str]:
    """Sentences on what may not be meant, none where there is nothing."""
    told, noisy, counts = [], data.train.observed, _counts(data)
    absent = np.flatnonzero(counts == 0)
    if data.multi_label and data.noisy_names is None and noisy.shape[1] > 1:
        labels = noisy.sum(axis=1)
        which = "every example has exactly one label" if labels.all() else "no example has more than one label"
        if labels.max() == 1:
            told.append(f"{which}: if there is one class to each, give class numbers, labels.argmax(axis=1)")
    if (noisy == noisy[:1]).all():
        told.append("all examples are labelled alike, so there is nothing to tell apart")
    elif len(absent):
        told.append(f"{len(absent):,} of {len(counts):,} classes have no example, as {data.class_names[absent[0]]!r}")
    if data.test is not None and data.test.label is not None and data.noisy_names is None:
        tested = data.test.label if data.test.label.ndim == 1 else np.flatnonzero(data.test.label.any(axis=0))
        unseen = np.intersect1d(tested, absent)
        if len(unseen):
            told.append(f"the test set has {len(unseen):,} classes that no training label has")
    return told + _of_inputs(data)


def _counts(data: Dataset) -> np.ndarray:
    noisy = data.train.observed
    if noisy.ndim == 2:
        return noisy.sum(axis=0, dtype=np.int64)
    return np.bincount(noisy, minlength=data.num_classes)


def _of_inputs(data: Dataset) -> list[str]:
    inputs, test = data.train.inputs, None if data.test is None else data.test.inputs
    files = inputs.paths if isinstance(inputs, ImageFiles) else ()
    if isinstance(inputs, ImageFiles):  # some of them, small
        inputs = decode_all(files[:: -(-len(files) // _LOOKED_AT)], 32, inputs.top)
    low, high = inputs.min(), inputs.max()
    if low == high:
        return [f"every {'pixel' if inputs.dtype == np.uint8 else 'feature'} is {low:g}, so nothing can be learnt"]
    if inputs.dtype == np.uint8 and high <= _DARK:
        return [f"no pixel is above {high} of 255: multiply images that go from 0 to 1 by 255"]
    if len(inputs) > 1 and (inputs == inputs[:1]).all():
        return ["all inputs are the same, so nothing can be learnt"]
    if isinstance(test, ImageFiles):
        return _in_both(_same_files(files, test.paths), len(test))
    if test is None or files:
        return []
    seen = {zlib.crc32(row.tobytes()) for row in inputs}
    both = [row for row in test if zlib.crc32(row.tobytes()) in seen]
    sure = any((inputs == row).reshape(len(inputs), -1).all(axis=1).any() for row in both[:20])
    return _in_both(len(both) if sure else 0, len(test))


def _in_both(number: int, num_test: int) -> list[str]:
    return [f"up to {number:,} of {num_test:,} test inputs are training inputs as well"] if number else []


def _same_files(train: tuple[str, ...], test: tuple[str, ...]) -> int:
    """How many pictures of the second list are files of the first once more, under whatever name.

    Files are read whose length occurs in both; nothing is looked at where there are more than 200,000.
    """
    if len(train) + len(test) > _MOST_FILES:
        return 0

    def by_length(paths: tuple[str, ...]) -> dict[int, list[str]]:
        lengths: dict[int, list[str]] = {}
        for path in paths:
            with contextlib.suppress(OSError):  # a picture within a file has no length of its own
                lengths.setdefault(os.path.getsize(path), []).append(path)
        return lengths

    trained, number = by_length(train), 0
    for length, paths in by_length(test).items():
        seen = {_content(path) for path in trained.get(length, ())}
        number += sum(_content(path) in seen for path in paths) if seen else 0
    return number


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
