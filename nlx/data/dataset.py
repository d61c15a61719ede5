"""What every data source returns: a training split with noisy labels, a test split with true ones, class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from nlx.arguments import KNOWN_OUTLIER, KNOWN_WRONG, UNKNOWN
from nlx.data.origin import Origin
from nlx.data.words import said_of_classes


class DataError(ValueError):
    """Input that a user has to change; the message is one sentence that names the fix."""


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay on disk and are decoded when a batch asks for them.

    Attributes:
      paths: one file per example.
      size: height and width that every image is decoded to (short side resized, centre cropped), pixels.
      top: what is white in pictures of more than 8 bits, see :func:`nlx.data.decode.decode`.
    """

    paths: tuple[str, ...]
    size: int
    top: float | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that all decoded images would fill, NHWC."""
        return (len(self.paths), self.size, self.size, 3)

    @property
    def dtype(self) -> np.dtype:
        """Of that array."""
        return np.dtype(np.uint8)


Inputs = np.ndarray | ImageFiles


@dataclass(frozen=True)
class Split:
    """Examples and what is known of their labels.

    Attributes:
      inputs: images, uint8 ``[n, H, W, C]`` or files of such, or feature vectors, float32 ``[n, F]``.
      noisy_label: observed labels, int32 ``[n]`` (single-label) or {0, 1} uint8 ``[n, K]`` (multi-label); None for a
        test split.
      label: true labels in the same form, None where all are unknown; -1 in a row that is unknown, label vectors then
        being int8. For evaluation only: no loss ever sees them, but for the
        trusted ones. Multi-label data may have another vocabulary for them, {0, 1} uint8 ``[n, C]``.
      trusted: training examples whose true label methods may learn from, bool ``[n]``; None for none.
      outlier: examples that are of no class, bool ``[n]``, where that is known; for evaluation only. Their ``label`` is
        a placeholder.
      origin: which of the user's own examples these are; None for all in order.
      filled: trusted examples that came without a noisy label, bool ``[n]``: theirs repeats the true one, and no
        estimate of the noise counts it; None for none.
      wrong: examples whose noisy label was checked and is wrong while the true one is unknown, bool ``[n]``, of one
        label each; None for none.
    """

    inputs: Inputs
    noisy_label: np.ndarray | None
    label: np.ndarray | None
    trusted: np.ndarray | None = None
    outlier: np.ndarray | None = None
    origin: Origin | None = None
    filled: np.ndarray | None = None
    wrong: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.wrong is not None and (self.label is None or self.label.ndim > 1):
            raise ValueError("`wrong` needs `label`, one for each example, which may be -1 for all")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def observed(self) -> np.ndarray:
        """The noisy labels of a split that has to have some."""
        if self.noisy_label is None:
            raise DataError("there are no noisy labels: give a training split.")
        return self.noisy_label

    def take(self, rows: np.ndarray) -> Split:
        """The given rows, int ``[m]``, as a split of their own."""
        if isinstance(self.inputs, ImageFiles):
            inputs: Inputs = replace(self.inputs, paths=tuple(self.inputs.paths[i] for i in rows))
        else:
            inputs = self.inputs[rows]
        origin = Origin(np.asarray(rows, np.int64)) if self.origin is None else self.origin.take(rows)
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("inputs", "origin")}
        return Split(
            inputs, **{name: None if array is None else array[rows] for name, array in known.items()}, origin=origin
        )

    def partly_trusted(self) -> Split:
        """The split with its true labels trusted where only some are known."""
        return self if self.label is None or self.known.all() else replace(self, trusted=self.known)

    @property
    def paired(self) -> np.ndarray:
        """Examples whose noisy and true labels methods may compare, of classes, bool ``[n]``."""
        trusted = self.trusted_label
        if trusted is None:
            return np.zeros(len(self), bool)
        known = np.asarray((trusted.reshape(len(self), -1) >= 0).all(axis=1))
        return known if self.filled is None else known & ~self.filled

    @property
    def trusted_share(self) -> float | None:
        """Share of the examples whose true label may be learnt from; None where there are no such labels."""
        return None if self.trusted is None or self.label is None else float(self.trusted.mean())

    @cached_property
    def trusted_label(self) -> np.ndarray | None:
        """What methods may learn of the true labels, int32 ``[n]`` or ``[n, C]``; None for nothing.

        ``UNKNOWN`` where they may not, ``KNOWN_OUTLIER``, and ``KNOWN_WRONG`` (:mod:`nlx.arguments`).
        """
        if self.label is None or (self.trusted is None and self.wrong is None):
            return None
        trusted = np.zeros(len(self), bool) if self.trusted is None else self.trusted
        shape, known = (-1,) + (1,) * (self.label.ndim - 1), self.label.astype(np.int32)  # unsigned ones have no -1
        if self.outlier is not None:
            known = np.where(self.outlier.reshape(shape), np.int32(KNOWN_OUTLIER), known)
        wrong = np.zeros(len(self), bool) if self.wrong is None else self.wrong
        unknown = np.where(wrong.reshape(shape), np.int32(KNOWN_WRONG), np.int32(UNKNOWN))
        return np.where(trusted.reshape(shape), known, unknown)

    @property
    def known(self) -> np.ndarray:
        """Examples whose true label is known, bool ``[n]``."""
        if self.label is None:
            return np.zeros(len(self), bool)
        return np.asarray((self.label.reshape(len(self), -1) >= 0).all(axis=1))

    @property
    def scored(self) -> np.ndarray:
        """Examples on which cleaned labels are compared with true ones: neither trusted nor outliers, bool ``[n]``."""
        out = ~self.known if self.label is not None else np.zeros(len(self), bool)
        masks = [out, *(mask for mask in (self.trusted, self.outlier) if mask is not None)]
        return np.asarray(~np.any(masks, axis=0))


@dataclass(frozen=True)
class Dataset:
    """A named data set.

    Attributes:
      name: what every output calls it, e.g. ``web/sample`` or ``cifar10n/worst``.
      class_names: one name per class; their number is K.
      train: noisy labels, and true ones where known.
      test: true labels only, None where there is no test set.
      noisy_names: names of the noisy labels where they are another vocabulary than the classes, such as tags.
      validation: examples with noisy labels that are held out of ``train``, to tune on.
      notes: what reading them has found and a user should know.
      words: of ``noisy_names``, those that speak of a class; of classes that are not in it, their own names.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split | None
    noisy_names: tuple[str, ...] | None = None
    validation: Split | None = None
    notes: tuple[str, ...] = ()
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.train.inputs.shape[1:]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether labels are {0, 1} vectors rather than class numbers."""
        return self.train.observed.ndim == 2

    def given(self, split: Split) -> np.ndarray:
        """What the noisy labels of a split say of the classes, in the form of the true labels.

        Where they are another vocabulary, see :func:`nlx.data.words.said_of_classes`.
        """
        if self.noisy_names is None:
            return split.observed
        return said_of_classes(split.observed, self.noisy_names, self.class_names, self.words)

    def in_classes(self) -> Dataset:
        """The data set with noisy labels that speak of the classes, for methods that know one vocabulary."""
        if self.noisy_names is None:
            return self

        def translated(split: Split) -> Split:
            return replace(split, noisy_label=self.given(split))

        validation = None if self.validation is None else translated(self.validation)
        return replace(self, train=translated(self.train), validation=validation, noisy_names=None)

    def keep(self, fraction: float, seed: int) -> Dataset:
        """A random part of the training split, to see what less data do.

        Args:
          fraction: share of the training examples to keep, in (0, 1].
          seed: which examples; a smaller share is part of a larger one.

        Returns:
          The data set with them alone.
        """
        n = len(self.train)
        rows = np.random.default_rng([seed, n, 0x6B656570]).permutation(n)[: max(1, round(fraction * n))]
        return replace(self, train=self.train.take(np.sort(rows)))

    def trust(self, fraction: float, seed: int) -> Dataset:
        """Trust the true labels of a random part of the training split.

        Where only some are known, or the data say which are trusted, it is these, whatever the fraction below 1.

        Args:
          fraction: share of the training examples, in (0, 1].
          seed: which examples.

        Returns:
          The data set with ``train.trusted``.

        Raises:
          DataError: there are no true labels.
        """
        if self.train.label is None:
            raise DataError(f"{self.name} has no true training labels to trust: leave out `clean_fraction`.")
        known, n = self.train.known, len(self.train)
        if self.train.trusted is not None and (fraction < 1 or not known.all()):
            return self
        if not known.all():
            return replace(self, train=self.train.partly_trusted())
        trusted = np.zeros(n, bool)
        trusted[np.random.default_rng([seed, n, 0x74727573]).permutation(n)[: max(1, round(fraction * n))]] = True
        return replace(self, train=replace(self.train, trusted=trusted))

    def know_outliers(self, fraction: float, seed: int) -> Dataset:
        """Let methods know of some of the training split's outliers that they are outliers.

        Args:
          fraction: share of the outliers, in (0, 1].
          seed: which of them.

        Returns:
          The data set, with ``train.trusted`` on these as well.

        Raises:
          DataError: no outliers are known to the data set.
        """
        if self.train.outlier is None or not self.train.outlier.any():
            raise DataError(f"{self.name} has no known outliers: take `noise`=outlier:0.5, say.")
        rows = np.flatnonzero(self.train.outlier)
        trusted = np.zeros(len(self.train), bool) if self.train.trusted is None else self.train.trusted.copy()
        known = np.random.default_rng([seed, len(rows), 0x6F7574]).permutation(rows)
        trusted[known[: max(1, round(fraction * len(rows)))]] = True
        return replace(self, train=replace(self.train, trusted=trusted))

    def hold_out(self, fraction: float, seed: int) -> Dataset:
        """Set aside a part of the training split, with its noisy labels, to tune on.

        Args:
          fraction: share of the training examples to hold out, in (0, 1).
          seed: which examples; the same seed holds out the same ones.

        Returns:
          The data set with them as ``validation``.
        """
        rows = np.random.default_rng([seed, n := len(self.train)]).permutation(n)
        held = max(1, round(fraction * n))
        kept, held_out = (self.train.take(np.sort(part)) for part in (rows[held:], rows[:held]))
        return replace(self, train=kept, validation=held_out)
