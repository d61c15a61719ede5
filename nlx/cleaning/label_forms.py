"""Labels as people have them, as class numbers or vectors: names, numbers, lists, one-hot, soft, and none at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.data.checks import as_text
from nlx.data.names import as_listed, clean_name, numbered

_SAID_OF_NONE = {"", "None", "nan", "<NA>", "NaT"}
_TRUE, _FALSE = {"true", "yes", "1", "1.0", "t", "y"}, {"false", "no", "0", "0.0", "f", "n", "", "none", "nan", "<na>"}
_SUM = 1e-3  # that a soft label may miss 1 by


class Labels(NamedTuple):
    """Labels in the form that is worked with.

    Attributes:
      noisy: classes, int32 ``[n]``, -1 where there is no label; or {0, 1} int8 ``[n, K]``, rows of -1 likewise.
      names: of the classes.
      soft: probabilities, float32 ``[n, K]``, of which ``noisy`` is the largest; None where labels are not soft.
    """

    noisy: np.ndarray
    names: tuple[str, ...]
    soft: np.ndarray | None = None

    @property
    def given(self) -> np.ndarray:
        """Which rows have a label, bool ``[n]``."""
        return np.asarray((self.noisy.reshape(len(self.noisy), -1) >= 0).all(axis=1))


def label_array(labels: ArrayLike | Any) -> np.ndarray:
    """Labels as an array: one-dimensional, of tuples where each example has a list of names, or a matrix of numbers."""
    if isinstance(labels, (list, tuple)) and any(isinstance(label, (list, tuple)) for label in labels):
        kinds = {type(name) for label in labels if isinstance(label, (list, tuple)) for name in label}
        if kinds <= {str}:
            return _of_tuples([None if label is None else tuple(label) for label in labels])
    try:
        y = np.asarray(labels)
    except ValueError as error:
        raise ArgumentError("`labels` must be an array: its rows differ in length") from error
    y = as_text("`labels`", y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
    if y.ndim == 2 and y.dtype.kind in "UO" and all(isinstance(name, str) for name in y.flat):
        return _of_tuples([tuple(row) for row in y.tolist()])
    if y.ndim == 1 and y.dtype.kind == "O" and any(isinstance(label, (list, np.ndarray)) for label in y):
        first = next(label for label in y if isinstance(label, (list, np.ndarray)))
        if len(first) and not isinstance(first[0], str):
            rows = [np.full(len(first), np.nan) if label is None else label for label in y]
            return label_array(rows)
        return _of_tuples([None if label is None else tuple(label) for label in y])
    return y


def split_labels(labels: np.ndarray, separator: str) -> np.ndarray:
    """Names ``[n]``, or tuples of them where a separator stands in one of the names."""
    if labels.dtype.kind != "U" or not any(separator in label for label in labels.tolist()):
        return labels
    parts = ([part.strip() for part in label.split(separator)] for label in labels.tolist())
    return _of_tuples([tuple(filter(None, part)) or None for part in parts])


def classes_of(labels: ArrayLike, class_names: Sequence[str] | None) -> Labels:
    """Class numbers, or vectors where an example can have several classes, and the names of the classes.

    A {0, 1} matrix of which each row has one 1, and a matrix of rows that sum to 1, are of one class per example. There
    is no label where one is None, NaN, pandas' NA, empty, or -1 among class numbers, or a row of such.

    Raises:
      ArgumentError: labels of a form that is not known, fewer than two classes, or names that do not fit.
    """
    found = read_classes(labels, class_names)
    k = len(found.names) if found.noisy.ndim == 1 else found.noisy.shape[1]
    k = k if found.soft is None else found.soft.shape[1]
    if len(found.names) != k or k < 2:
        raise ArgumentError(
            f"there must be at least two classes, each with a name, got {k} and {len(found.names)} names"
        )
    return found


def read_classes(labels: ArrayLike, class_names: Sequence[str] | None) -> Labels:
    """The same of any number of classes."""
    y = label_array(labels)
    if y.ndim not in (1, 2) or len(y) == 0:
        raise ArgumentError(f"`labels` must be classes [n] or a {{0, 1}} matrix [n, K], got shape {list(y.shape)}")
    several = y.ndim == 1 and y.dtype.kind == "O" and any(isinstance(label, tuple) for label in y)
    return _of_matrix(y, class_names) if y.ndim == 2 else (_of_lists if several else _of_classes)(y, class_names)


def _of_tuples(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _of_matrix(y: np.ndarray, class_names: Sequence[str] | None) -> Labels:
    try:
        values = y.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError("`labels` [n, K] must hold only 0 and 1; give class numbers or strings as [n]") from error
    if class_names is not None and len(class_names) != y.shape[1]:
        raise ArgumentError(f"`labels` have {y.shape[1]} columns for {len(class_names)} `class_names`: name each")
    missing = np.isnan(values).any(axis=1) | (values == -1).all(axis=1)
    there = values[~missing]
    names = tuple(map(str, range(y.shape[1]) if class_names is None else class_names))
    sums_to_one = bool(len(there)) and bool((np.abs(there.sum(axis=1) - 1) <= _SUM).all())
    binary = np.isin(there, (0, 1)).all()
    if not binary and not (sums_to_one and there.min() >= 0):
        raise ArgumentError("`labels` [n, K] must hold only 0 and 1, or rows that sum to 1; give class numbers as [n]")
    if sums_to_one:
        noisy = np.where(missing, -1, np.where(missing[:, None], 0, values).argmax(axis=1)).astype(np.int32)
        return Labels(noisy, names, None if binary else np.where(missing[:, None], 0, values).astype(np.float32))
    return Labels(np.where(missing[:, None], -1, np.nan_to_num(values)).astype(np.int8), names)


def _of_lists(y: np.ndarray, class_names: Sequence[str] | None) -> Labels:
    rows = [None if isinstance(label, float) or not label else label for label in y.tolist()]
    rows = [(label,) if isinstance(label, str) else label for label in rows]
    flat = np.array([name for row in rows if row for name in row])
    (codes,), names = numbered([flat], class_names)
    if (codes < 0).any():
        raise ArgumentError(f"`labels` have {flat[codes < 0][0]!r}, which is none of `class_names`")
    noisy = np.zeros((len(rows), len(names)), np.int8)
    lengths = np.array([len(row or ()) for row in rows])
    noisy[np.repeat(np.arange(len(rows)), lengths), codes] = 1
    noisy[lengths == 0] = -1
    return Labels(noisy, names)


def _of_classes(y: np.ndarray, class_names: Sequence[str] | None) -> Labels:
    missing = _missing(y)
    values = np.asarray(y[~missing].tolist()) if y.dtype.kind == "O" else y[~missing]
    if y.dtype.kind == "O" and len({isinstance(label, str) for label in y[~missing].tolist()}) > 1:
        raise ArgumentError("`labels` are of several types: give strings for all, or class numbers")
    noisy = np.full(len(y), -1, np.int32)
    if values.dtype.kind == "U":
        (codes,), spelled = numbered([values], None)
        if "-1" in spelled and all(name.isdigit() for name in spelled if name != "-1"):
            codes, spelled = codes - 1, spelled[1:]  # in order, it is the first
        noisy[~missing] = codes
        if class_names is None:
            return Labels(noisy, spelled)
        order = {clean_name(name): c for c, name in enumerate(class_names)}
        own = as_listed(spelled, order)
        absent = [name for name in spelled if own[name] not in order]
        if absent:
            raise ArgumentError(f"`labels` have {absent[0]!r}, which is none of `class_names`")
        noisy[noisy >= 0] = np.array([order[own[name]] for name in spelled])[noisy[noisy >= 0]]
        return Labels(noisy, tuple(class_names))
    unique, codes = np.unique(values, return_inverse=True)
    if unique.dtype.kind == "f" and (unique == np.round(unique)).all():
        unique, values = unique.astype(np.int64), values.astype(np.int64)
    if class_names is None:
        noisy[~missing] = codes
        return Labels(noisy, tuple(map(str, unique.tolist())))
    if not (unique.dtype.kind in "iu" and len(unique) and unique[0] >= 0 and unique[-1] < len(class_names)):
        raise ArgumentError(f"`class_names` name classes 0 to {len(class_names) - 1}, which `labels` are not")
    noisy[~missing] = values
    return Labels(noisy, tuple(class_names))


def _missing(y: np.ndarray) -> np.ndarray:
    """Which labels ``[n]`` are none."""
    missing = np.zeros(len(y), bool)
    if y.dtype.kind in "OU":
        said = _SAID_OF_NONE if y.dtype.kind == "O" else {"", "nan"}  # as NumPy writes NaN among strings
        missing = np.array([clean_name(str(label)) in said for label in y.tolist()])
    if y.dtype.kind == "f":
        missing = ~np.isfinite(y)
    numbers = y[~missing]
    if y.dtype.kind == "O" and all(isinstance(v, (int, float, np.integer, np.floating)) for v in numbers):
        numbers = numbers.astype(np.float64)
    if numbers.dtype.kind in "if" and len(numbers) and numbers.min() == -1 and (numbers == np.round(numbers)).all():
        missing[np.flatnonzero(~missing)[numbers == -1]] = True
    return missing


def as_mask(values: np.ndarray, classes: Collection[str]) -> np.ndarray | None:
    """A mask ``[n]`` from Booleans, or from words and cells that say yes or no; None where values are something else.

    Raises:
      ArgumentError: the words are classes as well.
    """
    if values.dtype.kind == "b":
        return values
    if values.ndim != 1 or values.dtype.kind not in "OU":
        return None
    said = [str(value).strip().lower() for value in values.tolist()]
    if not set(said) <= _TRUE | _FALSE:
        return None
    if set(said) & {name.lower() for name in classes} - {""}:
        raise ArgumentError("`trusted` can be a mask or labels, the classes being such words too: give Booleans")
    return np.array([word in _TRUE for word in said])


def trusted_rows(
    trusted: Mapping[int, Any] | ArrayLike, given: np.ndarray, classes: Collection[str]
) -> tuple[np.ndarray, list[Any]]:
    """Rows whose true label is known, int ``[m]``, and these labels.

    Args:
      trusted: true labels by row; or of all rows, none where they are not known; or a mask of the rows whose given
        label is true.
      given: the given labels, ``[n]`` or ``[n, K]``.
      classes: their names.

    Raises:
      ArgumentError: it is of other rows, or could mean either.
    """
    n = len(given)
    if isinstance(trusted, Mapping):
        rows = np.array(list(trusted))
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n):
            raise ArgumentError(f"`trusted` must map rows from 0 to {n - 1} to true labels in the form of `labels`")
        return rows.astype(np.int64), list(trusted.values())
    values = label_array(trusted)
    mask = as_mask(values, classes)
    if len(values) != n:
        raise ArgumentError(f"`trusted` must be a mask or labels of the {n} examples, or map rows to labels")
    if mask is None:
        mask = ~_missing(values) if values.ndim == 1 else _of_matrix(values, None).given
    else:
        values = given
    return np.flatnonzero(mask), [values[row] for row in np.flatnonzero(mask)]
