"""``npz:PATH``: a user's own arrays, checked on the way in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import cast
from zipfile import ZipFile

import numpy as np

from nlx.data.checks import (
    UNKNOWN,
    as_text,
    check_class_range,
    check_length,
    checked_inputs,
    checked_labels,
    checked_names,
    memory,
    partly_known,
)
from nlx.data.dataset import DataError, Dataset, Split
from nlx.data.names import alike, check_unused, clean_name, meant_as_none, numbered

Arrays = dict[str, np.ndarray]
MARKERS = (99, 255, 999, 9999, 65535, 99999)  # that stand for no label, where nothing else comes near
KEYS = ("image", "features", "label", "trusted", "test_image", "test_features", "test_label", "class_names")


def npz(path: str | Path, labels: str | None = None, *, clean: bool = False) -> Dataset:
    """A data set from one ``.npz`` file.

    Keys: ``image`` (uint8 NHWC) or ``features`` (float ``[n, F]``); ``noisy_label`` or several ``noisy_NAME``;
    optionally ``label`` (true; -1, NaN or among names '' or ``nan`` where unknown, the known ones then being trusted),
    ``trusted`` (bool ``[n]``, which true labels may be learnt from), ``test_image`` or ``test_features`` with
    ``test_label``, and ``class_names``. Labels are class numbers ``[n]``, class names ``[n]`` or {0, 1} matrices
    ``[n, K]``, all in the same form. Other keys are noted.

    Args:
      path: the file.
      labels: which labelling to learn from, NAME of ``noisy_NAME``; may be left out if there is only one.
      clean: learn from the true labels, ``label``, and leave all noisy ones aside; there may be none.

    Returns:
      The data set, named after the file and the labelling, if clean after the file alone. Features become float32,
      class numbers int32, label vectors uint8.

    Raises:
      DataError: anything the user has to change, in one sentence that names the file, the key and the first bad row.
    """
    path = Path(path).expanduser()
    arrays, notes = _read(path)
    noisy_key = _true_labelling(path, arrays) if clean else _labelling(path, arrays, labels)
    input_key, test_key = _input_keys(path, arrays)

    inputs = checked_inputs(f"{path}: '{input_key}'", arrays[input_key], images=input_key == "image")
    keys = [key for key in (noisy_key, "label", "test_label") if key in arrays]
    if any(arrays[key].dtype.kind in "US" for key in keys):
        arrays |= _numbered(path, arrays, keys, noisy_key)
    given = {key: _labels(path, arrays, key, noisy_key) for key in keys}
    names, names_from = _classes(path, arrays, given)
    notes += tuple(alike(names)) if "class_names" in arrays else ()
    for key, array in given.items():
        check_class_range(f"{path}: '{key}'", array, len(names), names_from)
        if key != "test_label":
            check_length(f"{path}: '{key}'", len(array), f"'{input_key}'", len(inputs))

    test = None
    if test_key is not None:
        test_inputs = checked_inputs(f"{path}: '{test_key}'", arrays[test_key], images=test_key == "test_image")
        check_length(f"{path}: 'test_label'", len(given["test_label"]), f"'{test_key}'", len(test_inputs))
        if test_inputs.shape[1:] != inputs.shape[1:]:
            raise DataError(
                f"{path}: an example of '{test_key}' has shape {test_inputs.shape[1:]}, but one of '{input_key}' "
                f"{inputs.shape[1:]}: make them the same."
            )
        test = Split(test_inputs, None, given["test_label"])
    name = path.stem if noisy_key in ("noisy_label", "label") else f"{path.stem}/{noisy_key.removeprefix('noisy_')}"
    train = Split(inputs, given[noisy_key], given.get("label"))
    train = train if clean else _trusted(path, arrays, train)
    return Dataset(name, names, train, test, notes=notes)


def _read(path: Path) -> tuple[Arrays, tuple[str, ...]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file: give the path of an .npz file, as npz:PATH.")
    # Opened here, as np.load leaves a file that it opened itself dangling if its end is missing.
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
        except Exception as error:  # a broken file can raise anything
            raise DataError(
                f"{path}: not an .npz file: write one with np.savez(path, image=..., noisy_label=...)."
            ) from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(
                f"{path}: a single array, not an .npz file: write np.savez(path, image=..., noisy_label=...)."
            )
        wanted = [key for key in file.files if key in KEYS or key.startswith("noisy_")]
        notes = check_unused(f"{path}: key", file.files, {*KEYS, "noisy_label", *wanted})
        check_members(path, file, wanted)
        arrays = {}
        for key in wanted:
            try:
                arrays[key] = np.asarray(file[key])
            except Exception as error:  # likewise
                raise DataError(
                    f"{path}: '{key}' cannot be read ({str(error).rstrip('.')}): save it again as a plain array "
                    f"of numbers or strings."
                ) from error
    return arrays, notes


def check_members(path: Path, file: np.lib.npyio.NpzFile, keys: list[str]) -> None:
    """Refuse, before anything is read, arrays that are not as large as their headers say, or than memory.

    Raises:
      DataError: names the array.
    """
    archive, total = cast(ZipFile, file.zip), 0  # an open one has its archive
    free = memory()
    for key in keys:
        info = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
        if info.flag_bits & 1:
            raise DataError(f"{path}: '{key}' is encrypted: save it again without a password.")
        try:
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
                held = info.file_size - member.tell()
        except Exception as error:  # a broken file can raise anything
            raise DataError(
                f"{path}: '{key}' cannot be read ({str(error).rstrip('.')}): save it again as a plain array of numbers "
                f"or strings."
            ) from error
        if dtype.hasobject:
            raise DataError(
                f"{path}: '{key}' holds Python objects, which may run code: save numbers, or strings by "
                f"np.array(values, dtype=str), '' where one is unknown."
            )
        size = math.prod(shape) * dtype.itemsize
        if size != held:
            raise DataError(
                f"{path}: '{key}' is broken, its header says {size:,} bytes and the file holds {held:,}: save it again."
            )
        total += size
        if total > free:
            raise DataError(
                f"{path}: '{key}' of shape {shape} does not fit into memory, {total:,} of {free:,} bytes: give fewer "
                f"examples."
            )


def _labelling(path: Path, arrays: Arrays, labels: str | None) -> str:
    """The key of the labels to learn from."""
    noisy = [key for key in arrays if key.startswith("noisy_")]
    if not noisy:
        raise DataError(f"{path}: there are no noisy labels: save them under 'noisy_label' or 'noisy_NAME'.")
    choices = ", ".join(sorted(key.removeprefix("noisy_") for key in noisy))
    if labels is None:
        if len(noisy) > 1:
            raise DataError(
                f"{path}: there are several labellings: choose one with `labels`={choices.replace(', ', ' | ')}."
            )
        return noisy[0]
    if f"noisy_{labels}" not in arrays:
        raise DataError(f"{path}: there is no 'noisy_{labels}': choose `labels` from {choices}.")
    return f"noisy_{labels}"


def _trusted(path: Path, arrays: Arrays, train: Split) -> Split:
    """The split with the true labels that the file trusts: those of 'trusted', else all if only some are known.

    Where 'label' repeats the noisy label in every other row, it was not looked at there, and is unknown.
    """
    if "trusted" not in arrays:
        return train if train.label is None or train.known.all() else replace(train, trusted=train.known)
    trusted, label = arrays["trusted"], train.label
    if label is None or trusted.dtype != bool or trusted.shape != (len(train),):
        raise DataError(f"{path}: 'trusted' must be bool [{len(train)}], and go with true labels under 'label'.")
    rows = np.flatnonzero(trusted & ~train.known)
    if len(rows) or not trusted.any():
        trouble = f"trusts row {rows[0]}, whose 'label' is unknown" if len(rows) else "trusts no row"
        raise DataError(f"{path}: 'trusted' {trouble}: correct it, or leave it out.")
    if (label[~trusted] == train.observed[~trusted]).all():
        label = label.astype(np.int32 if label.ndim == 1 else np.int8)
        label[~trusted] = -1
    return replace(train, label=label, trusted=trusted)


def _true_labelling(path: Path, arrays: Arrays) -> str:
    if "label" not in arrays:
        raise DataError(
            f"{path}: there are no true labels, which synthetic noise starts from: save them under 'label'."
        )
    return "label"


def _input_keys(path: Path, arrays: Arrays) -> tuple[str, str | None]:
    """The keys of the training inputs and of the test inputs, if there is a test set."""
    keys = [key for key in ("image", "features") if key in arrays]
    if len(keys) != 1:
        trouble = "there are both 'image' and 'features'" if keys else "there is no 'image' and no 'features'"
        raise DataError(f"{path}: {trouble}: save the inputs under exactly one of these keys.")
    test_keys = [key for key in ("test_image", "test_features") if key in arrays]
    if not test_keys and "test_label" not in arrays:
        return keys[0], None
    wanted = f"test_{keys[0]}"
    if test_keys != [wanted]:
        raise DataError(
            f"{path}: '{[*test_keys, 'test_label'][0]}' does not go with '{keys[0]}': a test set needs '{wanted}' and "
            f"'test_label' and no other inputs; rename or add them, or remove the test keys."
        )
    if "test_label" not in arrays:
        raise DataError(f"{path}: '{wanted}' comes without 'test_label': add the true labels, or remove '{wanted}'.")
    return keys[0], wanted


def _labels(path: Path, arrays: Arrays, key: str, noisy_key: str) -> np.ndarray:
    where, optional = f"{path}: '{key}'", key == "label" != noisy_key
    noisy, labels = arrays[noisy_key], (partly_known if optional else checked_labels)(where, arrays[key])
    if not (labels >= 0).any():
        raise DataError(f"{where} is unknown in every row: leave it out.")
    if labels.ndim != (1 if noisy.shape[1:] == (1,) else noisy.ndim):
        raise DataError(
            f"{path}: '{key}' has shape {labels.shape} but '{noisy_key}' {noisy.shape}: give both as class numbers [n] "
            f"or both as matrices [n, K]."
        )
    return labels


def _numbered(path: Path, arrays: Arrays, keys: list[str], noisy_key: str) -> Arrays:
    """Labels that are names as class numbers, and the names of the classes."""
    for key in keys:
        if arrays[key].dtype.kind not in "US" or arrays[key].shape[1:] not in ((), (1,)):
            other = next(k for k in keys if arrays[k].dtype.kind in "US")
            raise DataError(
                f"{path}: '{key}' is {arrays[key].dtype} {list(arrays[key].shape)}, and '{other}' holds names: give "
                f"names [n] in both, or class numbers in both."
            )
    texts = [list(map(clean_name, as_text(f"{path}: '{key}'", arrays[key]).ravel().tolist())) for key in keys]
    names = checked_names(f"{path}: 'class_names'", arrays["class_names"]) if "class_names" in arrays else None
    none = meant_as_none((name for text in texts for name in text), {*texts[keys.index(noisy_key)], *(names or ())})
    columns, names = numbered([np.array(["" if name in none else name for name in text]) for text in texts], names)
    for key, column, text in zip(keys, columns, texts, strict=True):
        optional = key == "label" != noisy_key
        rows = np.flatnonzero(column < (-1 if optional else 0))
        if len(rows):
            empty = column[rows[0]] == -1
            fix = "no name: remove the rows without one" if empty else "which 'class_names' lacks: add it there"
            raise DataError(f"{path}: '{key}' row {rows[0]} is {text[rows[0]]!r} ({len(rows)} such rows), {fix}.")
    return {**dict(zip(keys, columns, strict=True)), "class_names": np.array(names)}


def _classes(path: Path, arrays: Arrays, given: Arrays) -> tuple[tuple[str, ...], str]:
    """Class names, and the words for where their number comes from."""
    if "class_names" in arrays:
        return checked_names(f"{path}: 'class_names'", arrays["class_names"]), "'class_names'"
    key, k = max(
        ((key, array.shape[1] if array.ndim == 2 else int(array.max()) + 1) for key, array in given.items()),
        key=lambda pair: pair[1],
    )
    if given[key].ndim == 1 and k - 1 in MARKERS:
        rows, others = np.flatnonzero(given[key] == k - 1), given[key][given[key] < k - 1]
        if len(others) == 0 or others.max() < (k - 1) // 2:
            fix = UNKNOWN if key == "label" else "remove these rows"
            raise DataError(
                f"{path}: '{key}' row {rows[0]} is {k - 1} ({len(rows)} such rows), far above the others: {fix} "
                f"if it means no label, or name {k} classes in 'class_names' if it is one."
            )
    return tuple(str(c) for c in range(k)), f"'{key}'"
