"""``npz:PATH``: a user's own arrays, checked on the way in."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from nlx.data.checks import check_class_range, check_length, checked_inputs, checked_labels, checked_names
from nlx.data.dataset import DataError, Dataset, Split

Arrays = dict[str, np.ndarray]


def npz(path: str | Path, labels: str | None = None, *, clean: bool = False) -> Dataset:
    """A data set from one ``.npz`` file.

    Keys: ``image`` (uint8 NHWC) or ``features`` (float ``[n, F]``); ``noisy_label`` or several ``noisy_NAME``;
    optionally ``label`` (true), ``test_image`` or ``test_features`` with ``test_label``, and ``class_names``. Labels
    are class numbers ``[n]`` or {0, 1} matrices ``[n, K]``, all in the same form. Other keys are left alone.

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
    arrays = _read(path)
    noisy_key = _true_labelling(path, arrays) if clean else _labelling(path, arrays, labels)
    input_key, test_key = _input_keys(path, arrays)

    inputs = checked_inputs(f"{path}: '{input_key}'", arrays[input_key], images=input_key == "image")
    given = {key: _labels(path, arrays, key, noisy_key) for key in (noisy_key, "label", "test_label") if key in arrays}
    names, names_from = _classes(path, arrays, given)
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
    return Dataset(name, names, Split(inputs, given[noisy_key], given.get("label")), test)


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise DataError(f"{path}: no such file: give the path of an .npz file, as npz:PATH.")
    arrays = {}
    # Opened here, as np.load leaves a file that it opened itself dangling if its end is missing.
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
        except (OSError, ValueError, EOFError, UnpicklingError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: not an .npz file: write one with np.savez(path, image=..., noisy_label=...)."
            ) from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(
                f"{path}: a single array, not an .npz file: write np.savez(path, image=..., noisy_label=...)."
            )
        for key in file.files:
            try:
                arrays[key] = np.asarray(file[key])
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise DataError(
                    f"{path}: '{key}' cannot be read ({str(error).rstrip('.')}): save it again as a plain array "
                    f"of numbers or strings."
                ) from error
    return arrays


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
    labels = checked_labels(f"{path}: '{key}'", arrays[key])
    noisy = arrays[noisy_key]
    if labels.ndim != noisy.ndim:
        raise DataError(
            f"{path}: '{key}' has shape {labels.shape} but '{noisy_key}' {noisy.shape}: give both as class numbers [n] "
            f"or both as matrices [n, K]."
        )
    return labels


def _classes(path: Path, arrays: Arrays, given: Arrays) -> tuple[tuple[str, ...], str]:
    """Class names, and the words for where their number comes from."""
    if "class_names" in arrays:
        return checked_names(f"{path}: 'class_names'", arrays["class_names"]), "'class_names'"
    key, k = max(
        ((key, array.shape[1] if array.ndim == 2 else int(array.max()) + 1) for key, array in given.items()),
        key=lambda pair: pair[1],
    )
    return tuple(str(c) for c in range(k)), f"'{key}'"
