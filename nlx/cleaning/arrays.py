"""What a user gives to have cleaned, in the form that is trained on: prepared features and class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.data.checks import as_text
from nlx.data.dataset import Split
from nlx.data.names import numbered

_SAID_OF_NONE = {"", "None", "nan", "<NA>", "NaT"}
_NORM = 16.0  # of an example's prepared features, about
_LARGEST = 1e100  # whose square is finite
_MOST_VALUES = 2**14  # of an input that a linear model can look at


def given_split(
    inputs: ArrayLike, labels: ArrayLike, trusted: Mapping[int, Any], class_names: Sequence[str] | None
) -> tuple[Split, tuple[str, ...]]:
    """Prepared features with their labels, and the names of the classes; see :func:`nlx.clean`.

    Raises:
      ArgumentError: one sentence that says what to change.
    """
    features, given = features_of(inputs), array_of("labels", labels)
    n, rows = len(features), np.array(list(trusted))
    if given.shape[:1] != (n,):
        raise ArgumentError(
            f"`inputs` and `labels` must be of the same examples, got {n} and {len(np.atleast_1d(given))}"
        )
    standard = standard_form(features).apply(features)
    if not rows.size:
        noisy, names = classes_of(given, class_names)
        return Split(standard, noisy, None), names
    known = array_of("trusted", list(trusted.values()))
    if rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n or known.shape[1:] != given.shape[1:]:
        raise ArgumentError(f"`trusted` must map rows from 0 to {n - 1} to true labels in the form of `labels`")
    both, names = classes_of(np.concatenate([given, known]), class_names)  # a true label may be of a class never given
    true, certain = both[:n].copy(), np.zeros(n, bool)
    true[rows], certain[rows] = both[n:], True
    return Split(standard, both[:n], true, certain), names


class Standard(NamedTuple):
    """How features get mean 0, spread 1 per dimension and one norm: ``(x - mean) * scale``, ``[F]`` each."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Prepared features, float32 ``[n, F]``."""
        return ((features - self.mean) * self.scale).astype(np.float32)


def standard_form(features: np.ndarray) -> Standard:
    """The preparation that suits features, float ``[n, F]``."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    varies = spread > 1e-9 * np.abs(mean)  # not by rounding alone
    return Standard(mean, _NORM / np.sqrt(features.shape[1]) / np.where(varies, spread, np.inf))


def array_of(name: str, values: ArrayLike) -> np.ndarray:
    """What a user gave, as an array; ArgumentError where its rows differ in length."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ArgumentError(f"`{name}` must be an array: its rows differ in length") from error


def features_of(inputs: ArrayLike) -> np.ndarray:
    """Inputs as vectors, float64 ``[n, F]``.

    Raises:
      ArgumentError: a form that is not known, or values that are not finite.
    """
    x = array_of("inputs", inputs)
    images = x.dtype == np.uint8 and x.ndim in (3, 4)
    if not images and not (jnp.issubdtype(x.dtype, jnp.number) and x.dtype.kind != "c" and x.ndim == 2):
        raise ArgumentError(
            f"`inputs` must be features, float [n, F], or images, uint8 [n, H, W, C], got {x.dtype} {list(x.shape)}"
        )
    if x.size == 0:
        raise ArgumentError("`inputs` are empty: give at least two examples")
    flat = x.reshape(len(x), -1).astype(np.float64)
    if images and flat.shape[1] > _MOST_VALUES:
        raise ArgumentError(
            f"`inputs` are images of {flat.shape[1]} values, too many for a linear model: give embeddings of them"
        )
    fits = np.abs(flat) < _LARGEST
    if not fits.all():
        row, column = np.argwhere(~fits)[0]
        raise ArgumentError(f"`inputs`[{row}, {column}] is {flat[row, column]}: repair or remove that example")
    return flat


def check_missing(labels: np.ndarray) -> None:
    """Refuse labels of which some are missing: None, NaN, pandas' NA, or the empty string.

    Raises:
      ArgumentError: names the first such row.
    """
    if labels.dtype.kind == "f":
        missing = ~np.isfinite(labels)
    elif labels.dtype.kind in "OU":
        said = _SAID_OF_NONE if labels.dtype.kind == "O" else {"", "nan"}  # as NumPy writes NaN among strings
        missing = np.array([str(label).strip() in said for label in labels.flat]).reshape(labels.shape)
    else:
        return
    rows = np.flatnonzero(missing.reshape(len(labels), -1).any(axis=1))
    if len(rows):
        raise ArgumentError(
            f"`labels`[{rows[0]}] is missing ({len(rows)} such): remove these examples, or name their class"
        )


def classes_of(labels: ArrayLike, class_names: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as int32 ``[n]`` or {0, 1} uint8 ``[n, K]``, and the names of the classes.

    Raises:
      ArgumentError: labels of a form that is not known, fewer than two classes, or names that do not fit.
    """
    y = array_of("labels", labels)
    y = as_text("`labels`", y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
    if y.ndim not in (1, 2) or len(y) == 0:
        raise ArgumentError(f"`labels` must be classes [n] or a {{0, 1}} matrix [n, K], got shape {list(y.shape)}")
    check_missing(y)
    if y.ndim == 2:
        if not np.isin(y, (0, 1)).all():
            raise ArgumentError("`labels` [n, K] must hold only 0 and 1; give class numbers or strings as [n]")
        names = tuple(class_names) if class_names is not None else tuple(map(str, range(y.shape[1])))
        noisy, k = y.astype(np.uint8), y.shape[1]
    else:
        try:
            values, codes = np.unique(y, return_inverse=True)
        except TypeError as error:
            raise ArgumentError("`labels` are of several types: give strings for all, or class numbers") from error
        if all(isinstance(value, str) for value in values.tolist()):
            (numbers,), spelled = numbered([values], None)
            values, codes = np.array(spelled), numbers[codes]
            check_missing(np.where(codes < 0, np.nan, 0.0))
        elif y.dtype.kind == "f" and (values == np.round(values)).all():
            values = values.astype(np.int64)
        whole = y.dtype.kind in "iu" and values[0] >= 0
        if class_names is not None and not (whole and values[-1] < len(class_names)):
            raise ArgumentError(f"`class_names` name classes 0 to {len(class_names) - 1}, which `labels` are not")
        names = tuple(map(str, values)) if class_names is None else tuple(class_names)
        noisy, k = (codes if class_names is None else y).astype(np.int32), len(names)
    if len(names) != k or k < 2:
        raise ArgumentError(f"there must be at least two classes, each with a name, got {k} and {len(names)} names")
    return noisy, names
