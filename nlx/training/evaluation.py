"""Scores of predictions and posteriors, and the observer that adds them to a training's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike

from nlx import metrics, transitions
from nlx.data.dataset import Dataset, Split
from nlx.methods.method import Posterior, chosen_candidate
from nlx.methods.top import Top
from nlx.training.mesh import on_host
from nlx.training.observers import Observer, Row, Trains
from nlx.training.stages import Stages
from nlx.training.state import TrainState


def against(scores: np.ndarray, labels: np.ndarray) -> Row:
    """Accuracies (single-label) and mean average precision, with all points and with 11, of scores ``[n, K]``.

    The balanced accuracy is the mean of the classes' recalls.
    """
    row = {}
    if labels.ndim == 1:
        balanced = float(np.nanmean(class_recall(np.argmax(scores, axis=1), labels, scores.shape[1])))
        row = {"accuracy": float(metrics.accuracy(scores, labels)), "balanced_accuracy": balanced}
    return row | {
        "map": float(metrics.mean_average_precision(scores, labels)),
        "map_11_point": float(metrics.mean_average_precision(scores, labels, points=11)),
    }


def class_recall(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class's examples that are predicted as such, ``[K]``; NaN for a class without examples.

    Args:
      predicted: int ``[n]`` or {0, 1} ``[n, K]``.
      labels: in the same form.
      num_classes: K.
    """
    if labels.ndim == 2:
        there, found = (labels > 0).sum(axis=0), ((predicted > 0) & (labels > 0)).sum(axis=0)
    else:  # without vectors, which a million examples of a thousand classes would make large
        there, found = (np.bincount(x[x >= 0], minlength=num_classes) for x in (labels, labels[predicted == labels]))
    return np.where(there > 0, found / np.maximum(there, 1), np.nan)


def noisy_score(scores: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy (single-label) or mean average precision against held-out noisy labels: what to tune on."""
    return float(
        metrics.accuracy(scores, labels) if labels.ndim == 1 else metrics.mean_average_precision(scores, labels)
    )


def recovery(posterior: Posterior, split: Split, chosen: ArrayLike | Top | None = None) -> Row:
    """How well true training labels are recovered, where they are known and a method could not just look them up.

    ``recovery`` by the chosen probabilities, those of the candidate of lowest cost where none are given, and
    ``recovery_NAME`` by each belief and by labels of the method's own. ``issue_auc``: on single-label data, the area
    under the ROC curve of telling wrong labels from right ones by the probability of the given label. ``outlier_ap``:
    average precision of the method's ranking of outliers.
    """
    labels, where = split.label, split.scored
    if labels is None or not where.any():
        return {}
    probs = posterior.candidates[chosen_candidate(posterior)].probs if chosen is None else chosen
    row = {"recovery": _recovered(probs, labels, where)}
    kinds = {name: column.kind for name, column in posterior.columns.items()}
    beliefs = {name: candidate.probs for name, candidate in posterior.candidates.items()}
    beliefs |= {name: posterior.columns[name].values for name, kind in kinds.items() if kind == "belief"}
    if len(beliefs) > 1 or chosen is not None:
        row |= {f"recovery_{n}": _recovered(b, labels, where) for n, b in beliefs.items()}
    for name in (name for name, kind in kinds.items() if kind == "label"):
        own = np.asarray(posterior.columns[name].values)
        if np.any(own >= 0):  # there are some already
            row[f"recovery_{name}"] = float(np.mean(own[where] == labels[where]))
    if labels.ndim == 2:
        row |= {
            f"posterior_map_{n}": float(metrics.mean_average_precision(b, labels, where=where))
            for n, b in beliefs.items()
        }
    elif split.noisy_label is not None:
        wrong = (split.noisy_label != labels)[where]
        if 0 < wrong.sum() < len(wrong):
            from sklearn.metrics import roc_auc_score  # takes a second to import

            each = np.arange(len(split))
            score = probs.given if isinstance(probs, Top) else np.asarray(probs)[each, split.noisy_label]
            row["issue_auc"] = float(roc_auc_score(wrong, -score[where]))
    if split.outlier is not None:
        for name in (name for name, kind in kinds.items() if kind == "outlier_score"):
            row["outlier_ap"] = float(metrics.average_precision(posterior.columns[name].values, split.outlier))
    return row


def _recovered(belief: ArrayLike | Top, labels: np.ndarray, where: np.ndarray) -> float:
    if isinstance(belief, Top):
        return float(np.mean(belief.argmax()[where] == labels[where], dtype=np.float32))
    return float(metrics.recovery(belief, labels, where=where))


def scorable(split: Split) -> np.ndarray:
    """Rows of a split by which :func:`recovery` scores, int; empty without true labels."""
    if split.label is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(split.scored if split.outlier is None else split.scored | split.outlier)


def given_recovery(data: Dataset) -> float | None:
    """Share of the given training labels that are right, where true ones are known."""
    train = data.train
    if train.label is None or train.noisy_label is None or not train.scored.any():
        return None
    given, where = data.given(train), train.scored
    if given.ndim == 1:
        return float(np.mean(given[where] == train.label[where], dtype=np.float32))
    return float(metrics.recovery(given.astype(np.int32), train.label, where=where))


def true_transition(data: Dataset) -> np.ndarray | None:
    """How the training set's true labels came out as noisy ones.

    Returns:
      T, float32 ``[K, K]``, or ``[K, 2, 2]`` for several labels; None where it cannot be known.
    """
    train = data.train
    if train.label is None or train.noisy_label is None or data.noisy_names is not None or not train.known.all():
        return None
    inside = np.ones(len(train), bool) if train.outlier is None else ~train.outlier
    true, noisy = train.label[inside].astype(np.int32), train.noisy_label[inside].astype(np.int32)
    if data.multi_label:
        return np.stack([np.asarray(transitions.from_pairs(true[:, k], noisy[:, k], 2)) for k in range(true.shape[1])])
    return np.asarray(transitions.from_pairs(true, noisy, data.num_classes))


class Evaluate(Observer):
    """Adds scores to the rows of some epochs: of the test set, of held-out noisy labels, of recovered labels.

    Args:
      data: what is trained on, with what is known of it.
      every: after how many epochs; always after the last.
      whole: whether posteriors have the probabilities of all classes, or of the likeliest.
      most: training examples of which the labels' recovery is scored, drawn at random from those of which it can be,
        before the last epoch; None for all.
    """

    def __init__(self, data: Dataset, every: int = 1, whole: bool = True, most: int | None = None):
        self._data, self._every, self._whole, self._epochs = data, every, whole, 0
        self._truth, self._some = true_transition(data), None
        rows = scorable(data.train)
        self._scored = len(rows) > 0
        if most is not None and most < len(rows):
            self._some = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))

    def on_start(self, trainer: Trains, stages: Stages, state: TrainState) -> None:
        """See :class:`Observer`."""
        self._trainer, self._epochs = trainer, stages.epochs

    def score(self, state: TrainState, row: Row) -> None:
        """See :class:`Observer`."""
        ends = row["epoch"] == self._epochs
        if row["epoch"] % self._every and not ends:
            return
        trainer, data = self._trainer, self._data
        if data.test is not None:
            row |= {f"test_{name}": value for name, value in trainer.evaluate(state, data.test).items()}
        if data.validation is not None:
            row["validation_score"] = noisy_score(trainer.scores(state, data.validation), data.given(data.validation))
        if self._scored:
            some = None if ends else self._some
            part = data.train if some is None else data.train.take(some)
            row |= recovery(trainer.posterior(state, data.train, whole=self._whole, rows=some), part)
        if trainer.method.transition is not None and self._truth is not None:
            learned = on_host(trainer.method.transition(state.params["method"]))
            row["transition_mae"] = float(np.abs(learned - self._truth).mean())


def last(rows: Sequence[Row]) -> Row:
    """The scores of the last epoch: the result."""
    return {name: value for name, value in rows[-1].items() if name not in ("epoch", "step", "stage")}


def best(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Best value of each score and the epoch it was seen; chosen with hindsight, so never a result on its own."""
    starts = ("test_", "recovery", "posterior_map", "validation_", "outlier_", "issue_")
    peaks = {}
    for name in (name for name in rows[-1] if name.startswith(starts)):
        row = max((row for row in rows if name in row), key=lambda row: row[name])
        peaks[name] = {"value": row[name], "epoch": row["epoch"]}
    return peaks
