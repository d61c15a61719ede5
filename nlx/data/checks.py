"""Checks on arrays and files that a user brings; each failure is one sentence with file, key, row and fix.

``where`` always reads like ``path: 'key'`` and begins the sentence.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from nlx.data.dataset import DataError, Split

CHANNELS = (1, 3)
_ROUNDED = 0.01  # of a column's range is more than float32 may take away from a number
UNKNOWN = "write -1 there, in an array of int32,"
MAX_CLASSES = 1_000_000  # a larger class number is a marker or an accident, and would ask for that many outputs


def checked_labels(where: str, labels: np.ndarray, without: str = "remove these rows") -> np.ndarray:
    """Labels in the form the library uses, their range still unchecked.

    Args:
      where: beginning of the sentence if it fails.
      labels: class numbers, any integer ``[n]``, or {0, 1} vectors, any integer or bool ``[n, K]``.
      without: what to do with examples that have no label.

    Returns:
      int32 ``[n]`` or uint8 ``[n, K]``.
    """
    if labels.ndim not in (1, 2):
        raise DataError(
            f"{where} has shape {labels.shape}: give class numbers [n] or a matrix of zeros and ones [n, K]."
        )
    if len(labels) == 0:
        raise DataError(f"{where} is empty: give at least one example.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # a column of class numbers; a single tag is two classes
    if labels.dtype.kind not in ("iu" if labels.ndim == 1 else "iub"):
        raise DataError(f"{where} has dtype {labels.dtype}: labels must be integers, {_cure(labels)}.")
    if labels.ndim == 1:
        bad = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
        if len(bad):
            raise DataError(
                f"{where} row {bad[0]} is {labels[bad[0]]}, no class number ({len(bad)} such rows): {without} "
                f"if it means no label, or number the classes from 0 on, by np.unique(labels, return_inverse=True)."
            )
        return labels.astype(np.int32)
    bad = np.flatnonzero(((labels != 0) & (labels != 1)).any(axis=1))
    if len(bad):
        value = next(v for v in labels[bad[0]] if v not in (0, 1))
        raise DataError(
            f"{where} row {bad[0]} holds {value}: a label matrix [n, K] holds only 0 and 1; "
            f"class numbers go in one dimension [n]."
        )
    return labels.astype(np.uint8)


def partly_known(where: str, labels: np.ndarray) -> np.ndarray:
    """True labels, of which some may be unknown.

    Args:
      where: beginning of the sentence if it fails.
      labels: as for :func:`checked_labels`, or with rows of -1 or NaN, which are unknown.

    Returns:
      int32 ``[n]`` or uint8 ``[n, K]``; where some are unknown, -1 in their rows, int32 ``[n]`` or int8 ``[n, K]``.
    """
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "if" or len(labels) == 0:
        return checked_labels(where, labels)
    flat = labels.reshape(len(labels), -1)
    unknown = (np.isnan(flat) | (flat == -1)).all(axis=1)
    if not unknown.any():
        return checked_labels(where, labels, UNKNOWN)
    filled = np.where(unknown[:, None], 0, flat).reshape(labels.shape)
    whole = filled.dtype.kind == "f" and (filled == np.round(filled)).all()
    checked = checked_labels(where, filled.astype(np.int64) if whole else filled, UNKNOWN)
    checked = checked.astype(np.int32 if checked.ndim == 1 else np.int8)
    checked[unknown] = -1
    return checked


def _cure(labels: np.ndarray) -> str:
    """What to do with labels that are no integers."""
    if labels.dtype.kind == "f":
        missing = np.flatnonzero(~np.isfinite(labels.reshape(len(labels), -1)).all(axis=1))
        if len(missing):
            return f"row {missing[0]} is missing ({len(missing)} such): remove these rows first"
        whole = (labels == np.round(labels)).all() and np.abs(labels).max() < 2**31
        return (
            "convert it with .astype('int32')" if whole else "not fractions: take the most probable class of each row"
        )
    if labels.dtype.kind == "b":
        return "convert it with .astype('int32')"
    return "number the classes with np.unique(labels, return_inverse=True)"


def check_class_range(where: str, labels: np.ndarray, num_classes: int, classes_from: str) -> None:
    """Refuse labels that name a class outside [0, K), or label vectors that are not K long.

    Args:
      where: beginning of the sentence if it fails.
      labels: what ``checked_labels`` returned, so never negative.
      num_classes: K.
      classes_from: where K comes from, to say so.
    """
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise DataError(
                f"{where} has {labels.shape[1]} columns, but {classes_from} gives {num_classes} classes: use one K."
            )
        return
    bad = np.flatnonzero(labels >= num_classes)
    if len(bad):
        raise DataError(
            f"{where} row {bad[0]} is {labels[bad[0]]}, out of range: {classes_from} gives {num_classes} classes, "
            f"so labels must lie in 0 to {num_classes - 1}."
        )


def checked_inputs(where: str, inputs: np.ndarray, images: bool) -> np.ndarray:
    """Inputs in the form the library uses.

    Args:
      where: beginning of the sentence if it fails.
      inputs: images, uint8 ``[n, H, W, C]``, or features, any float ``[n, F]``.
      images: which of the two it should be.

    Returns:
      The images as they are, or the features as float32.
    """
    if images:
        if inputs.dtype != np.uint8:
            raise DataError(
                f"{where} has dtype {inputs.dtype}: images must be uint8 from 0 to 255; {_image_cure(inputs)}."
            )
        if inputs.ndim != 4:
            fix = "add a channel axis with [..., None]" if inputs.ndim == 3 else "reshape it"
            raise DataError(f"{where} has shape {inputs.shape}: images must be [n, height, width, channels]; {fix}.")
        if inputs.shape[3] not in CHANNELS:
            fix = "transpose it with .transpose(0, 2, 3, 1)" if inputs.shape[1] in CHANNELS else "convert them"
            raise DataError(f"{where} has shape {inputs.shape}: the last axis must be 1 or 3 channels; {fix}.")
    else:
        if inputs.dtype.kind != "f":
            fix = "convert with .astype('float64')"
            if inputs.dtype.kind not in "iub":
                fix = "give each example a row of numbers"
            if inputs.dtype.kind == "V" and inputs.dtype.names is None:  # of a type that NumPy does not know
                fix = "convert them with np.asarray(features, 'float32') before saving, also from bfloat16"
            raise DataError(f"{where} has dtype {inputs.dtype}: features must be floating point; {fix}.")
        if inputs.ndim != 2:
            raise DataError(
                f"{where} has shape {inputs.shape}: features must be [n, F]; flatten them with .reshape(n, -1)."
            )
    check_not_empty(where, inputs)
    return inputs if images else finite(where, inputs)


def _image_cure(images: np.ndarray) -> str:
    """How pixels of another type become bytes."""
    if images.dtype.kind not in "iufb" or images.size == 0:
        return "save pixels as numbers"
    low, high = images.min(), images.max()
    if not np.isfinite(low + high):
        return "repair or remove those that are not finite first"
    if images.dtype.kind in "fb" and low >= 0 and high <= 1:
        return "multiply by 255 first, as in np.round(255 * images).astype('uint8')"
    if low >= 0 and high <= 255:
        return "convert with np.round(images).astype('uint8')"
    return f"scale them from the range {low:g} to {high:g} first"


def memory() -> int:
    """Bytes of main memory that this process may fill, by the machine and by its control group."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # no such group, or one without a limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes)


def finite(where: str, inputs: np.ndarray) -> np.ndarray:
    """Numbers ``[n, ...]`` as float32, none of them infinite or none at all, and no column of them rounded to one."""
    check_not_empty(where, inputs)
    with np.errstate(over="ignore"):  # what overflows float32 is reported below
        numbers = inputs.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
    if len(bad):
        row = bad[0]
        entry = tuple(np.argwhere(~np.isfinite(numbers[row]))[0])
        raise DataError(
            f"{where} row {row} is not finite, {inputs[row][entry]} in column {', '.join(map(str, entry))} "
            f"({len(bad)} such rows): repair or remove it."
        )
    if inputs.dtype.itemsize > numbers.dtype.itemsize:
        low, high = inputs.min(axis=0), inputs.max(axis=0)
        error = np.maximum(-low, high) * np.finfo(np.float32).epsneg
        lost = np.argwhere((high > low) & (error > _ROUNDED * (high - low)))
        if len(lost):
            column, entry = ", ".join(map(str, lost[0])), tuple(lost[0])
            raise DataError(
                f"{where} column {column} loses its digits in float32, {high[entry]:.17g} being its largest and "
                f"{low[entry]:.17g} its smallest value ({len(lost)} such columns): subtract the mean first, in float64."
            )
    return numbers


def check_not_empty(where: str, inputs: np.ndarray) -> None:
    """Refuse an array without entries."""
    if inputs.size == 0:
        raise DataError(f"{where} is empty, of shape {inputs.shape}: give at least one example.")


def check_length(where: str, n: int, other: str, other_n: int) -> None:
    """Refuse two arrays over the same examples that differ in length."""
    if n != other_n:
        raise DataError(f"{where} has {n} rows but {other} has {other_n}: give one row an example in both.")


def checked_names(where: str, names: np.ndarray) -> tuple[str, ...]:
    """Class names as strings, all different and none empty."""
    if names.ndim != 1 or names.dtype.kind not in "US" or len(names) == 0:
        raise DataError(
            f"{where} has dtype {names.dtype} and shape {names.shape}: give one string a class, as np.array(names)."
        )
    texts: dict[str, None] = {}
    for row, text in enumerate(as_text(where, names).tolist()):
        if text in texts or not text.strip():
            said = f"repeats {text!r}" if text in texts else "is empty"
            raise DataError(f"{where} row {row} {said}: give every class a name of its own.")
        texts[text] = None
    return tuple(texts)


def as_text(where: str, names: np.ndarray) -> np.ndarray:
    """Strings, or what bytes ``[...]`` say in UTF-8."""
    try:
        return np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text: save it as np.array(names, dtype=str).") from error


def split_of(inputs: ArrayLike, labels: ArrayLike | None = None) -> Split:
    """A split of plain arrays, to train on or to predict.

    Args:
      inputs: images, uint8 ``[n, H, W, C]``, features, any float ``[n, F]``, or other floats ``[n, ...]`` for a model
        of the caller's own.
      labels: noisy ones: class numbers, any integer ``[n]``, or {0, 1} vectors, any integer or bool ``[n, K]``. None
        for none.

    Returns:
      The split; features become float32, class numbers int32, label vectors uint8.

    Raises:
      DataError: anything that the caller has to change.

    Examples:
      >>> split_of(np.ones((2, 3)), [0, 1]).inputs.dtype
      dtype('float32')
    """
    inputs = np.asarray(inputs)
    is_float = inputs.dtype.kind == "f" and inputs.ndim > 1
    checked = finite("`inputs`", inputs) if is_float else checked_inputs("`inputs`", inputs, images=inputs.ndim > 2)
    if labels is None:
        return Split(checked, None, None)
    noisy_label = checked_labels("`labels`", np.asarray(labels))
    check_length("`labels`", len(noisy_label), "`inputs`", len(checked))
    return Split(checked, noisy_label, None)
