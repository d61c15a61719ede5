"""The cleaned labels of a data set, made from a posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from nlx.data.dataset import Split
from nlx.data.origin import Origin
from nlx.methods.top import Top, likeliest

COLUMNS = ("index", "noisy_label", "posterior", "cleaned_label", "probability", "label_score", "issue_rank")
OF_PEOPLE = ("row", "id", "path", "given", "proposed", "changed", "is_issue", "reason", "split")
BELIEFS = ("out_of_fold", "evidence")
"""Columns of class probabilities that examples without a label have as well."""
Belief = Any
"""Class probabilities, float ``[n, K]``, or the likeliest classes of them, :class:`nlx.methods.top.Top`."""
_TOLERANCE = 1e-3  # of float32 probabilities that went through a softmax


@dataclass(frozen=True)
class LabelTable:
    """What is known about every label of a training set; made by :func:`label_table`.

    Attributes:
      index: position in the training set, int32 ``[n]``.
      noisy_label: the given labels, int32 ``[n]`` (single-label) or {0, 1} uint8 ``[n, K]`` (multi-label); -1 where
        there is none, label vectors then being int8.
      posterior: p(true label given input and noisy label), float32 ``[n, K]``; of very many examples the likeliest
        classes of it, see :class:`nlx.methods.top.Top`.
      cleaned_label: the posterior's argmax, or its entries from 0.5 on, in the form of ``noisy_label``.
      probability: that the cleaned label is right, float32 ``[n]``, or of each of its entries, ``[n, K]``.
      label_score: probability that the given label is right, float32 ``[n]``, all of it where there are several classes
        to a label; NaN where there is no label.
      issue_rank: int32 ``[n]``, 0 for the lowest score, that is, the most suspicious label.
      true_label: the true labels in the form of ``noisy_label`` where they are known, for evaluation, else None.
      extras: a method's own columns by name, ``[n, ...]``.
      chosen: which of a method's posteriors this is.
      class_names: K names.
      dataset: name of the data set.
      method: name of the method.
      guard: how cleaned labels look beside the given ones, see :meth:`nlx.cleaning.guard.Guard.summary`.
      origin: which of the user's own examples these are.
    """

    index: np.ndarray
    noisy_label: np.ndarray
    posterior: Belief
    cleaned_label: np.ndarray
    probability: np.ndarray
    label_score: np.ndarray
    issue_rank: np.ndarray
    true_label: np.ndarray | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    chosen: str = "posterior"
    class_names: tuple[str, ...] = ()
    dataset: str = ""
    method: str = ""
    guard: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def multi_label(self) -> bool:
        """Whether labels are {0, 1} vectors rather than class numbers."""
        return self.noisy_label.ndim == 2

    @property
    def changed(self) -> np.ndarray:
        """Where the cleaned label is not the given one, bool in the shape of the labels."""
        changed: np.ndarray = (self.cleaned_label != self.noisy_label) & (self.noisy_label >= 0)
        return changed

    @property
    def changes(self) -> np.ndarray:
        """Which rows have a cleaned label that is not the given one, bool ``[n]``."""
        changed = self.changed
        return np.asarray(changed.any(axis=tuple(range(1, changed.ndim))))

    @property
    def labelled(self) -> np.ndarray:
        """Which rows have a label, bool ``[n]``."""
        return _has_label(self.noisy_label)

    def marked(self, name: str) -> np.ndarray:
        """Which rows a column of ``extras`` marks, bool ``[n]``; none where there is no such column."""
        return np.asarray(self.extras.get(name, np.zeros(len(self), bool)), bool)

    @property
    def is_issue(self) -> np.ndarray:
        """Which labels are decided to be wrong, bool ``[n]``: ``decided`` where there is a precision, else changed."""
        changed = self.changes
        return np.asarray(self.extras.get("decided", changed), bool)

    def take(self, rows: np.ndarray) -> LabelTable:
        """Some rows of it, int or bool; ranks stay as they are."""
        parts = {name: getattr(self, name)[rows] for name in COLUMNS}
        parts |= {} if self.true_label is None else {"true_label": self.true_label[rows]}
        parts |= {} if self.origin is None else {"origin": self.origin.take(rows)}
        return replace(self, **parts, extras={name: values[rows] for name, values in self.extras.items()})

    def most_suspicious(self, top: int) -> np.ndarray:
        """The rows of the ``top`` most suspicious labels, worst first, int ``[min(top, n)]``."""
        return np.argsort(self.issue_rank, kind="stable")[:top]


def label_table(
    posterior: Belief,
    noisy_label: np.ndarray,
    *,
    index: np.ndarray | None = None,
    true_label: np.ndarray | None = None,
    extras: Mapping[str, Belief] | None = None,
    chosen: str = "posterior",
    class_names: Sequence[str] | None = None,
    dataset: str = "",
    method: str = "",
    origin: Origin | None = None,
) -> LabelTable:
    """Clean labels with a posterior and rank the given ones by how likely they are wrong.

    Args:
      posterior: p(true label given input and noisy label), float ``[n, K]``: rows that sum to 1 where a label is one
        class, one probability per class where it is a {0, 1} vector; or the likeliest classes of it.
      noisy_label: the given labels, int ``[n]`` in ``[0, K)`` or {0, 1} ``[n, K]``; -1 where there is none.
      index: position of each row in the training set, int ``[n]``; 0 to n - 1 by default.
      true_label: true labels in the form of ``noisy_label``, where they are known; carried along for evaluation.
      extras: further columns, ``[n, ...]``.
      chosen: which of a method's posteriors this is.
      class_names: K names; the class numbers by default.
      dataset: name of the data set.
      method: name of the method.
      origin: which of the user's own examples these are.

    Returns:
      The table.

    Raises:
      ValueError: shapes disagree, a value is no probability, or a label is out of range.

    Examples:
      >>> table = label_table(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, 0]))
      >>> table.cleaned_label, table.issue_rank
      (array([0, 0, 1], dtype=int32), array([2, 0, 1], dtype=int32))
    """
    posterior = posterior if isinstance(posterior, Top) else _checked_posterior(np.asarray(posterior))
    n, k = posterior.shape
    noisy_label = _checked_labels("noisy_label", np.asarray(noisy_label), n, k)
    if true_label is not None:
        true_label = _checked_labels("true_label", np.asarray(true_label), n, k)
        if true_label.ndim != noisy_label.ndim:
            raise ValueError(
                f"true_label {true_label.shape} and noisy_label {noisy_label.shape} must both be classes or both "
                "{0, 1} vectors"
            )
    names = tuple(map(str, range(k)) if class_names is None else class_names)
    if len(names) != k:
        raise ValueError(f"class_names has {len(names)} names for a posterior over {k} classes: give one per class")
    index = np.asarray(range(n) if index is None else index)
    if index.shape != (n,):
        raise ValueError(f"index must have shape ({n},) as the posterior has {n} rows, got {index.shape}")
    columns = {name: v if isinstance(v, Top) else np.asarray(v) for name, v in (extras or {}).items()}
    for name, values in columns.items():
        if name in (*COLUMNS, *OF_PEOPLE, "true_label"):
            raise ValueError(f"extras has a column {name!r}, which the table has already: rename it")
        if values.shape[:1] != (n,):
            raise ValueError(f"extras[{name!r}] must have {n} rows like the posterior, got shape {values.shape}")
    order = np.zeros(n)
    if isinstance(posterior, Top):
        cleaned, probability, score = posterior.argmax(), posterior.best, posterior.given
    elif noisy_label.ndim == 1:
        _check_sums(posterior)
        cleaned = np.argmax(posterior, axis=1).astype(np.int32)
        probability = np.take_along_axis(posterior, cleaned[:, None], axis=1)[:, 0]
        score = np.take_along_axis(posterior, np.maximum(noisy_label, 0)[:, None], axis=1)[:, 0]
    else:
        cleaned = (posterior >= 0.5).astype(np.uint8)
        probability = np.maximum(posterior, 1 - posterior)
        with np.errstate(divide="ignore"):  # where an entry is wrong for certain
            logs = np.log(np.where(noisy_label == 1, posterior, 1 - posterior))
        # Of many classes the product may be 0 in float32, and have no order.
        order = np.asarray(np.sum(logs, axis=1, dtype=np.float64))
        score = np.asarray(np.exp(order), np.float32)
    score = np.where(_has_label(noisy_label), score, np.float32(np.nan))
    rank = np.empty(n, np.int32)
    rank[np.lexsort((index, order, score))] = np.arange(n, dtype=np.int32)
    judged = (cleaned, probability, score, rank)
    about: dict[str, Any] = {"chosen": chosen, "class_names": names, "dataset": dataset, "method": method}
    table = (index.astype(np.int32), noisy_label, posterior, *judged, true_label, columns)
    return LabelTable(*table, **about, origin=origin)


def _has_label(labels: np.ndarray) -> np.ndarray:
    return np.asarray((labels >= 0).all(axis=tuple(range(1, labels.ndim))))


def of_all_rows(table: LabelTable, posterior: np.ndarray, rows: np.ndarray, noisy_label: np.ndarray) -> LabelTable:
    """A table that also has the examples that were not learnt from, having no label.

    Args:
      table: of those that were learnt from.
      posterior: class probabilities of the others, float ``[n - m, K]``, in order.
      rows: where the rows of the table belong, int ``[m]``.
      noisy_label: the given labels of all, ``[n]`` or ``[n, K]``, -1 where there is none.

    Returns:
      The table, ``[n]``. Of columns that the others have none of, they have NaN, 0 or False.
    """
    n = len(noisy_label)
    rest = np.setdiff1d(np.arange(n), rows)

    def spread(values: Any, others: Any) -> Any:
        if isinstance(values, Top):
            return jax.tree.map(spread, values, jax.tree.map(np.asarray, likeliest(others, noisy_label[rest])))
        whole = np.empty((n, *values.shape[1:]), values.dtype)
        whole[rows], whole[rest] = values, others
        return whole

    extras = {
        name: spread(values, posterior if name in BELIEFS else np.nan if values.dtype.kind == "f" else 0)
        for name, values in table.extras.items()
    }
    about: dict[str, Any] = {"chosen": table.chosen, "class_names": table.class_names, "method": table.method}
    whole = label_table(spread(table.posterior, posterior), noisy_label, extras=extras, **about)
    cleaned = spread(table.cleaned_label, whole.cleaned_label[rest])
    probability = spread(table.probability, whole.probability[rest])
    return replace(whole, guard=table.guard, cleaned_label=cleaned, probability=probability)


def with_trusted(probs: Belief, split: Split) -> Belief:
    """A posterior ``[n, K]`` that is sure of trusted true labels and excludes given ones that are known to be wrong."""
    trusted = split.trusted_label
    if trusted is None:
        return probs
    if split.wrong is not None:
        probs = _without(probs, split.observed, split.wrong)
    if isinstance(probs, Top):
        return probs.certain(trusted, trusted >= 0, split.observed)
    known = np.all(trusted.reshape(len(probs), -1) >= 0, axis=1, keepdims=True)
    certain = trusted if trusted.ndim == 2 else np.arange(probs.shape[1]) == trusted[:, None]
    return np.where(known, certain, probs).astype(probs.dtype)


def _without(probs: Belief, given: np.ndarray, where: np.ndarray) -> Belief:
    """A posterior that excludes the given class, int ``[n]``, in some rows, bool ``[n]``; -1 is no class."""
    where = where & (given >= 0)
    if isinstance(probs, Top):
        return probs.without(given, where)
    rows, left = np.flatnonzero(where), np.array(probs)
    others = left[rows]
    others[np.arange(len(rows)), given[rows]] = 0
    none = others.sum(axis=1) == 0
    others[none] = np.arange(probs.shape[1]) != given[rows][none, None]
    left[rows] = others / others.sum(axis=1, keepdims=True)
    return left


def _checked_posterior(posterior: np.ndarray) -> np.ndarray:
    if posterior.ndim != 2 or posterior.shape[1] == 0:
        raise ValueError(f"posterior must have shape [n, K], one row per example, got {posterior.shape}")
    bad = ~((posterior >= -_TOLERANCE) & (posterior <= 1 + _TOLERANCE))  # True for NaN, too
    if bad.any():
        row, column = np.argwhere(bad)[0]
        value = posterior[row, column]
        raise ValueError(f"posterior[{row}, {column}] is {value}: give probabilities in [0, 1], not logits or NaN")
    return np.clip(posterior, 0, 1).astype(np.float32)


def _check_sums(posterior: np.ndarray) -> None:
    sums = posterior.sum(axis=1)
    bad = np.abs(sums - 1) > _TOLERANCE
    if bad.any():
        row = np.argmax(bad)
        raise ValueError(
            f"posterior[{row}] sums to {sums[row]:.4g}: divide by the sum, or give {{0, 1}} labels for one probability "
            "per class"
        )


def _checked_labels(name: str, labels: np.ndarray, n: int, k: int) -> np.ndarray:
    if labels.shape not in ((n,), (n, k)):
        raise ValueError(f"{name} must have shape ({n},) or ({n}, {k}) for a posterior ({n}, {k}), got {labels.shape}")
    size = k if labels.ndim == 1 else 2
    whole = labels.astype(np.int32)
    missing = (whole == -1) if labels.ndim == 1 else (whole == -1).all(axis=1, keepdims=True)
    bad = ((whole != labels) | (whole < 0) | (whole >= size)) & ~missing
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(place)} is {labels[place]}: labels must be whole numbers in [0, {size})")
    return whole if labels.ndim == 1 else whole.astype(np.int8 if missing.any() else np.uint8)
