"""Scores of a run as they go into metrics.jsonl and summary.json."""

from __future__ import annotations

import statistics
from typing import Any

import jax
import numpy as np

from nlx import metrics
from nlx.data import Dataset, Split
from nlx.methods.method import Posterior
from nlx.training.loop import Row

# Compiled once for all epochs.
_accuracy = jax.jit(metrics.accuracy)
_map = jax.jit(metrics.mean_average_precision, static_argnames="points")
_recovered = jax.jit(metrics.recovery)
_ap = jax.jit(metrics.average_precision)


def cheapest(posterior: Posterior) -> str:
    """The candidate of lowest mean cost: the one to clean labels with."""
    return min(posterior.cost, key=lambda name: float(np.mean(posterior.cost[name])))


def clean_scores(scores: np.ndarray, labels: np.ndarray) -> Row:
    """Accuracy (single-label) and mAP, with all points and with 11, against true test labels."""
    row = {"test_accuracy": float(_accuracy(scores, labels))} if labels.ndim == 1 else {}
    return row | {
        "test_map": float(_map(scores, labels)),
        "test_map_11_point": float(_map(scores, labels, points=11)),
    }


def noisy_score(scores: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy (single-label) or mAP against held-out noisy labels: what to tune on."""
    measure = _accuracy if labels.ndim == 1 else _map
    return float(measure(scores, labels))


def recovery_scores(posterior: Posterior, split: Split) -> Row:
    """How well the true training labels are recovered, where they are known and a method could not just look them up.

    Recovery by the chosen posterior and, where there are several, by each belief, and by extras that are labels
    themselves (their names end with ``_label``). On single-label data, the area under the ROC curve of telling wrong
    labels from right ones by the posterior's probability of the given label. Where outliers are known and the
    method scores them, the average precision of that ranking.
    """
    labels, where = split.label, split.scored
    assert labels is not None
    if not where.any():
        return {}
    chosen = cheapest(posterior)
    row = {"recovery": float(_recovered(posterior.candidates[chosen], labels, where=where))}
    views = {**posterior.candidates, **{n: x for n, x in posterior.extras.items() if n == "classifier"}}
    if len(views) > 1:
        row |= {f"recovery_{name}": float(_recovered(probs, labels, where=where)) for name, probs in views.items()}
    for name, values in posterior.extras.items():
        if name.endswith("_label") and np.any(np.asarray(values) >= 0):  # labels of the method's own, -1 where none
            row[f"recovery_{name}"] = float(np.mean(values[where] == labels[where]))
    if labels.ndim == 2:
        row |= {f"posterior_map_{name}": float(_map(p, labels, where=where)) for name, p in views.items()}
    if labels.ndim == 1 and split.noisy_label is not None:
        wrong = (split.noisy_label != labels)[where]
        if 0 < wrong.sum() < len(wrong):
            from sklearn.metrics import roc_auc_score  # takes a second to import

            given = np.take_along_axis(np.asarray(posterior.candidates[chosen]), split.noisy_label[:, None], axis=1)
            row["issue_auc"] = float(roc_auc_score(wrong, -given[where, 0]))
    if split.outlier is not None and "outlier_score" in posterior.extras:
        row["outlier_ap"] = float(_ap(posterior.extras["outlier_score"], split.outlier))
    return row


def given_recovery(dataset: Dataset) -> float | None:
    """Share of the given training labels that are right, where true ones are known."""
    train = dataset.train
    if train.label is None or train.noisy_label is None:
        return None
    if not train.scored.any():
        return None
    given = metrics.as_vectors(dataset.given(train).astype(np.int32), dataset.num_classes)
    return float(_recovered(given, train.label, where=train.scored))


def last(rows: list[Row]) -> dict[str, Any]:
    """The scores of the last epoch: the result."""
    return {name: value for name, value in rows[-1].items() if name not in ("epoch", "step", "stage")}


def best(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Best value of each score and the epoch it was seen; chosen with hindsight, so never a result on its own."""
    found = {}
    for name in rows[-1]:
        if name.startswith(("test_", "recovery", "posterior_map", "validation_", "outlier_", "issue_")):
            row = max((row for row in rows if name in row), key=lambda row: row[name])
            found[name] = {"value": row[name], "epoch": row["epoch"]}
    return found


def over_seeds(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the summaries of several seeds."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values)}

    first = summaries[0]
    return {
        **{name: first[name] for name in ("method", "dataset", "epochs", "given_label_recovery", "versions")},
        "seeds": [seed for s in summaries for seed in s["seeds"]],
        "cleaned_with": [s["cleaned_with"] for s in summaries],
        "last": {name: spread([s["last"][name] for s in summaries]) for name in first["last"]},
        "best": {name: spread([s["best"][name]["value"] for s in summaries]) for name in first["best"]},
        "wall_seconds": round(sum(s["wall_seconds"] for s in summaries), 1),
    }
