"""What a user gives to have cleaned, in the form that is trained on: prepared features and class numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.cleaning.blocks import row_blocks
from nlx.cleaning.label_forms import Labels, classes_of, label_array, read_classes, trusted_rows
from nlx.cleaning.pictures import SIDE, patch_features
from nlx.data.checks import memory
from nlx.data.dataset import Split
from nlx.data.examples import checked_ids
from nlx.data.origin import Origin
from nlx.data.tables import as_table, is_frame

_NORM = 16.0  # of an example's prepared features, about
_LARGEST = 1e100  # whose square is finite
_MOST_VALUES = 2**14  # of an input that a linear model can look at


class Columns(NamedTuple):
    """What was given, no longer by name."""

    inputs: Any
    labels: Any
    trusted: Any
    origin: Origin | None


def columns_of(inputs: Any, labels: Any, trusted: Any, ids: Any) -> Columns:
    """What is told by the names of columns of a frame, as arrays; see :func:`nlx.clean`.

    Raises:
      ArgumentError, DataError: there is no such column, or ids that repeat.
    """
    names = {"labels": labels, "trusted": trusted, "ids": ids}
    said = {role: name for role, name in names.items() if isinstance(name, str)}
    if is_frame(inputs):
        table = as_table(inputs)
        found = {"labels": table.find("label", said["labels"])} if "labels" in said else {}
        found |= {role: table.find(role.rstrip("s"), name) for role, name in said.items() if role != "labels"}
        names |= {role: table.columns[name] for role, name in found.items() if name is not None}
        inputs = table.features([name for name in found.values() if name is not None])
    elif said:
        role, name = next(iter(said.items()))
        raise ArgumentError(f"`{role}`={name!r} names a column, which `inputs` do not have: give an array")
    origin = None if ids is None else Origin(np.arange(len(names["ids"])), "id", checked_ids("`ids`", names["ids"]))
    return Columns(inputs, names["labels"], names["trusted"], origin)


class Given(NamedTuple):
    """What there is to clean.

    Attributes:
      split: prepared features with labels, -1 where there is none, and which true ones are trusted.
      labels: of the same rows, with the names of the classes.
    """

    split: Split
    labels: Labels

    @property
    def usable(self) -> np.ndarray:
        """Rows that can be learnt from, having a label or a trusted one, bool ``[n]``."""
        return self.labels.given if self.split.trusted is None else self.labels.given | self.split.trusted


def given_split(
    inputs: ArrayLike,
    labels: ArrayLike,
    trusted: Mapping[int, Any] | ArrayLike | None,
    class_names: Sequence[str] | None,
) -> Given:
    """Prepared features with their labels, and the names of the classes; see :func:`nlx.clean`.

    Raises:
      ArgumentError: one sentence that says what to change.
    """
    features, given = features_of(inputs), label_array(labels)
    n = len(features)
    if given.shape[:1] != (n,):
        raise ArgumentError(
            f"`inputs` and `labels` must be of the same examples, got {n} and {len(np.atleast_1d(given))}"
        )
    standard = standard_form(features).apply(features)
    if trusted is None or (isinstance(trusted, Mapping) and not trusted):
        found = classes_of(given, class_names)
        return Given(Split(standard, found.noisy, None), found)
    found = read_classes(given, class_names)
    rows, values = trusted_rows(trusted, given, found.names)
    if not len(rows):
        raise ArgumentError("`trusted` names no row: leave it out, or say which labels are known")
    both = _together(given, values, found, class_names)
    noisy, known = both.noisy[:n], both.noisy[n:]
    unknown = np.flatnonzero((known.reshape(len(known), -1) < 0).any(axis=1))
    if len(unknown):
        raise ArgumentError(f"`trusted` names row {rows[unknown[0]]}, which has no label: fill it in")
    true, certain = noisy.copy(), np.zeros(n, bool)
    true[rows], certain[rows] = known, True
    found = Labels(noisy, both.names, None if both.soft is None else both.soft[:n])
    return Given(Split(standard, noisy, true, certain), found)


def _together(given: np.ndarray, values: list[Any], found: Labels, class_names: Sequence[str] | None) -> Labels:
    """Given and trusted labels in one form; a true label may be of a class that was never given."""
    form = ArgumentError("`trusted` must hold true labels in the form of `labels`, or names of classes")
    if given.ndim == 2 and all(np.ndim(value) == 0 or isinstance(value, tuple) for value in values):
        index = {name: c for c, name in enumerate(found.names)}
        tuples = [value if isinstance(value, tuple) else (value,) for value in values]
        if any(str(name) not in index for value in tuples for name in value):
            raise form
        values = [np.isin(np.arange(len(index)), [index[str(name)] for name in value]).astype(int) for value in tuples]
    known = label_array(values)
    if known.shape[1:] != given.shape[1:]:
        raise form
    if given.dtype.kind == "O" or known.dtype.kind == "O":
        known, given = (part if part.dtype.kind == "O" else part.astype(object) for part in (known, given))
    elif given.dtype.kind == "U" and known.dtype.kind != "U":
        known = known.astype(str)
    return classes_of(np.concatenate([given, known]), class_names)


class Standard(NamedTuple):
    """How features get mean 0, spread 1 per dimension and one norm: ``(x - mean) * scale``, ``[F]`` each."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Prepared features, float32 ``[n, F]``."""
        prepared = np.empty(features.shape, np.float32)
        for rows in row_blocks(*features.shape):
            prepared[rows] = (features[rows] - self.mean) * self.scale
        return prepared


def standard_form(features: np.ndarray) -> Standard:
    """The preparation that suits features, of any numbers ``[n, F]``; computed in float64."""
    (n, width), blocks = features.shape, row_blocks(*features.shape)
    mean = np.sum([features[rows].sum(axis=0, dtype=np.float64) for rows in blocks], axis=0) / n
    squares = [np.square(features[rows] - mean).sum(axis=0) for rows in blocks]
    spread = np.sqrt(np.sum(squares, axis=0) / n)
    varies = spread > 1e-9 * np.abs(mean)  # not by rounding alone
    return Standard(mean, _NORM / np.sqrt(width) / np.where(varies, spread, np.inf))


def array_of(name: str, values: ArrayLike) -> np.ndarray:
    """What a user gave, as an array; ArgumentError where its rows differ in length."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ArgumentError(f"`{name}` must be an array: its rows differ in length") from error


def _dense(inputs: Any) -> np.ndarray:
    """A sparse matrix with its zeros, where memory has room for a few copies of it."""
    n, width = inputs.shape
    if 4 * 8 * n * width > memory():
        raise ArgumentError(
            f"`inputs` [{n}, {width}] fill {8 * n * width / 2**30:.1f} GiB with their zeros, too much for this memory: "
            "give fewer numbers of each, as by sklearn.decomposition.TruncatedSVD(256).fit_transform(inputs)"
        )
    return np.asarray(inputs.toarray())


def is_pictures(x: Any) -> bool:
    """Whether inputs are images that are large enough for :func:`nlx.cleaning.pictures.patch_features`."""
    pixels = isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (3, 4)
    return pixels and min(x.shape[1:3]) >= SIDE and math.prod(x.shape[1:]) <= _MOST_VALUES


def features_of(inputs: ArrayLike) -> np.ndarray:
    """Inputs as vectors, of numbers of any kind ``[n, F]``.

    Raises:
      ArgumentError: a form that is not known, or values that are not finite.
    """
    x = _dense(inputs) if hasattr(inputs, "toarray") else array_of("inputs", inputs)
    images = x.dtype == np.uint8 and x.ndim in (3, 4)
    if not images and not (jnp.issubdtype(x.dtype, jnp.number) and x.dtype.kind != "c" and x.ndim == 2):
        raise ArgumentError(
            f"`inputs` must be features, float [n, F], or images, uint8 [n, H, W, C], got {x.dtype} {list(x.shape)}"
        )
    if x.size == 0:
        raise ArgumentError("`inputs` are empty: give at least two examples")
    if is_pictures(x):
        return patch_features(x)
    flat = x.reshape(len(x), -1)
    if images and flat.shape[1] > _MOST_VALUES:
        raise ArgumentError(
            f"`inputs` are images of {flat.shape[1]} values, too many for a linear model: give embeddings of them"
        )
    for rows in row_blocks(*flat.shape):
        fits = np.abs(flat[rows].astype(np.float64)) < _LARGEST
        if not fits.all():
            row, column = np.argwhere(~fits)[0] + [rows.start, 0]
            raise ArgumentError(f"`inputs`[{row}, {column}] is {flat[row, column]}: repair or remove that example")
    return flat
