"""CIFAR-10 and CIFAR-100 from their official files, with their own labels or with those of CIFAR-10N and CIFAR-100N."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlx.data.checks import check_class_range, check_length, checked_labels
from nlx.data.dataset import DataError, Dataset, Split
from nlx.data.names import clean_name
from nlx.data.unpickle import unpickle

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
HUMAN_SOURCE = "the data folder of https://github.com/UCSC-REAL/cifar-10-100n"
_PIXELS = 3 * 32 * 32


class _Form(NamedTuple):
    """How one of the two is stored, by Python's pickles or in binary.

    Attributes:
      title: its name.
      folders: of the two archives, pickles first.
      train: names of the training files, without the binary ones' ending.
      test: name of the test file.
      label: key of the labels in a pickle.
      label_bytes: before each picture in a binary file, of which the last counts.
      names: files of the class names of the two, with the pickle's key; None where they are known.
      human: labels of people by what they are called here, with their key.
    """

    title: str
    folders: tuple[str, str]
    train: tuple[str, ...]
    test: str
    label: bytes
    label_bytes: int
    names: tuple[str, bytes, str] | None
    human: dict[str, str]


_PEOPLE = {"worst": "worse", "aggregate": "aggre", "random1": "random", "random2": "random", "random3": "random"}
FORMS = {
    "cifar10": _Form(
        "CIFAR-10",
        ("cifar-10-batches-py", "cifar-10-batches-bin"),
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        b"labels",
        1,
        None,
        {name: f"{key}_label{name[6:] if key == 'random' else ''}" for name, key in _PEOPLE.items()},
    ),
    "cifar100": _Form(
        "CIFAR-100",
        ("cifar-100-python", "cifar-100-binary"),
        ("train",),
        "test",
        b"fine_labels",
        2,
        ("meta", b"fine_label_names", "fine_label_names.txt"),
        {"noisy": "noisy_label"},
    ),
}


def cifar(name: str, data_dir: str | Path | None) -> Dataset:
    """CIFAR-10 or CIFAR-100 with their own labels (Krizhevsky, 2009).

    Args:
      name: ``cifar10`` or ``cifar100``.
      data_dir: folder with ``cifar-10-batches-py/`` or ``cifar-10-batches-bin/``, of CIFAR-100 ``cifar-100-python/`` or
        ``cifar-100-binary/``.

    Returns:
      The data set: images uint8 ``[n, 32, 32, 3]``, the labels of CIFAR-100 being its fine ones.

    Raises:
      DataError: a file that is missing or broken.
    """
    form = FORMS[name]
    if data_dir is None:
        raise DataError(f"{name} needs a `data_dir`: the folder that holds '{form.folders[0]}'.")
    root = Path(data_dir).expanduser()
    pickled, binary = (root / folder for folder in form.folders)
    is_binary = binary.is_dir() and not pickled.is_dir()
    folder, ending = (binary, ".bin") if is_binary else (pickled, "")
    paths = [folder / f"{file}{ending}" for file in (*form.train, form.test)]
    for path in paths:
        if not path.is_file():
            version = "binary" if is_binary else "Python"
            raise DataError(
                f"{path}: no such file: get the {version} version of {form.title}, {CIFAR_SOURCE}, and unpack it there."
            )
    classes = _class_names(form, folder, is_binary)
    *train, test = (_read(form, path, is_binary, len(classes)) for path in paths)
    images, label = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return Dataset(name, classes, Split(images, label, label), Split(test[0], None, test[1]))


def cifar_n(name: str, data_dir: str | Path | None, labels: str | None = None) -> Dataset:
    """CIFAR's images with the human labels of CIFAR-10N or CIFAR-100N (Wei et al., 2022).

    Args:
      name: ``cifar10n`` or ``cifar100n``.
      data_dir: as for :func:`cifar`, with ``CIFAR-10_human.npy`` or ``CIFAR-10_human.pt``, or the same of 100.
      labels: of CIFAR-10N ``worst``, ``aggregate``, ``random1``, ``random2`` or ``random3``; CIFAR-100N has only
        ``noisy``, the default there.

    Returns:
      The data set ``cifar10n/<labels>``, or ``cifar100n``, true training labels included, CIFAR's own test set as the
      test part.

    Raises:
      DataError: a file that is missing, broken or in another order than the images, or labels that do not exist.
    """
    form = FORMS[name.removesuffix("n")]
    chosen = labels or (next(iter(form.human)) if len(form.human) == 1 else None)
    if chosen not in form.human:
        wrong = "has several labellings" if labels is None else f"has no labels {labels!r}"
        raise DataError(f"{name} {wrong}: choose one of {', '.join(form.human)}.")
    clean = cifar(name.removesuffix("n"), data_dir)
    assert data_dir is not None
    assert clean.train.label is not None
    path, human = _read_human(Path(data_dir).expanduser(), f"{form.title}_human")
    given, label = {}, clean.train.label
    for key in ("clean_label", form.human[chosen]):
        where = f"{path}: '{key}'"
        if not isinstance(human.get(key), np.ndarray):
            raise DataError(f"{where} is missing or no array: get the file again, from {HUMAN_SOURCE}.")
        given[key] = checked_labels(where, human[key])
        check_class_range(where, given[key], clean.num_classes, form.title)
        check_length(where, len(given[key]), f"'{form.folders[0]}'", len(label))
    differs = np.flatnonzero(given["clean_label"] != label)
    if len(differs):
        raise DataError(
            f"{path}: 'clean_label' row {differs[0]} is not {form.title}'s own label, so the rows are not in the "
            f"order of the images: take '{form.title}_human.pt', which has the official order, from {HUMAN_SOURCE}."
        )
    train = Split(clean.train.inputs, given[form.human[chosen]], label)
    return Dataset(f"{name}/{chosen}" if len(form.human) > 1 else name, clean.class_names, train, clean.test)


def _class_names(form: _Form, folder: Path, is_binary: bool) -> tuple[str, ...]:
    if form.names is None:
        return CLASS_NAMES
    pickled, key, text = form.names
    path = folder / (text if is_binary else pickled)
    if not path.is_file():
        raise DataError(f"{path}: no such file: unpack {form.title} again, from {CIFAR_SOURCE}.")
    if is_binary:
        listed: Any = path.read_bytes().split()
    else:
        with path.open("rb") as file:
            listed = unpickle(path, file, "bytes", CIFAR_SOURCE).get(key)
    if not isinstance(listed, list) or not all(isinstance(name, bytes) and name.isascii() for name in listed):
        raise DataError(f"{path}: lists no class names: unpack {form.title} again, from {CIFAR_SOURCE}.")
    return tuple(clean_name(name.decode("ascii")) for name in listed)


def _read(form: _Form, path: Path, is_binary: bool, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, 32, 32, 3]`` and labels int32 ``[n]`` of a file."""
    if is_binary:
        content, row = np.fromfile(path, np.uint8), form.label_bytes + _PIXELS
        if len(content) % row or not len(content):
            raise DataError(
                f"{path}: row {len(content) // row} is cut short: get {form.title} again, from {CIFAR_SOURCE}."
            )
        rows = content.reshape(-1, row)
        data: Any
        data, label = rows[:, form.label_bytes :], rows[:, form.label_bytes - 1].astype(np.int32)
    else:
        with path.open("rb") as file:
            batch = unpickle(path, file, "bytes", CIFAR_SOURCE)
        data, label = batch.get(b"data"), np.asarray(batch.get(form.label))
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
            raise DataError(f"{path}: 'data' is not uint8 [n, 3072]: get {form.title} again, from {CIFAR_SOURCE}.")
    where = f"{path}: '{form.label.decode()}'"
    label = checked_labels(where, label)
    check_class_range(where, label, num_classes, form.title)
    check_length(where, len(label), "'data'", len(data))
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), label


def _read_human(root: Path, name: str) -> tuple[Path, dict[str, Any]]:
    path, torch = root / f"{name}.npy", root / f"{name}.pt"
    if path.is_file():
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[
                    version[0]
                ]
                read_header(file)
            except Exception as error:  # a broken header can raise anything
                raise DataError(f"{path}: not a NumPy file: get it again, from {HUMAN_SOURCE}.") from error
            return path, unpickle(path, file, "latin1", HUMAN_SOURCE)
    if torch.is_file():
        # Since torch 1.6 such a file is a zip archive, and what it pickles here are NumPy arrays: torch is not needed.
        try:
            with zipfile.ZipFile(torch) as archive:
                inner = next(n for n in archive.namelist() if n.endswith("data.pkl"))
                return torch, unpickle(torch, io.BytesIO(archive.read(inner)), "latin1", HUMAN_SOURCE)
        except Exception as error:  # a broken or encrypted archive can raise anything
            raise DataError(
                f"{torch}: cannot be read without torch: convert it where torch is installed, with "
                f"np.save('{path.name}', torch.load('{torch.name}', weights_only=False))."
            ) from error
    raise DataError(f"{path}: no such file, nor '{torch.name}': get one of them from {HUMAN_SOURCE}.")
