"""Pictures of a run as PNG: training curves, the quality embedding, how well outliers are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from threadpoolctl import threadpool_limits

from nlx.report.figures import BLUE, GREEN, GREY, LINES, new_figure, save


def training_curves(
    metrics: Sequence[Mapping[str, Any]], path: str | Path, *, given_recovery: float | None = None
) -> None:
    """Plot the loss, the test score and the recovery of true labels over epochs.

    A panel is drawn where any epoch has a value for it; epochs without one are passed over.

    Args:
      metrics: one mapping an epoch, as in metrics.jsonl: ``epoch``, ``train_loss``, ``test_accuracy`` or ``test_map``,
        ``validation_score``, ``recovery`` and ``recovery_NAME`` of each candidate posterior.
      path: the PNG.
      given_recovery: recovery of the given labels, a line to compare with.

    Raises:
      ValueError: no epochs.
    """
    if not metrics:
        raise ValueError("metrics is empty: give one mapping per epoch")
    names = {name for row in metrics for name, value in row.items() if value is not None}
    score = "test_accuracy" if "test_accuracy" in names else "test_map"
    candidates = ("recovery", *sorted(name for name in names if name.startswith("recovery_")))
    panels = {
        "Training loss": [name for name in ("train_loss",) if name in names],
        "Score on examples not trained on": [name for name in (score, "validation_score") if name in names],
        "Training labels recovered": [name for name in candidates if name in names],
    }
    panels = {title: series for title, series in panels.items() if series}
    if not panels:
        raise ValueError("metrics has nothing to plot: give train_loss, a score or a recovery")

    figure = new_figure(8.0, 0.8 + 2.3 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, (title, series) in zip(grid[:, 0], panels.items(), strict=True):
        for name, (colour, style) in zip(series, LINES, strict=False):
            points = [(row["epoch"], row[name]) for row in metrics if row.get(name) is not None]
            # One of the candidates is the one that labels are cleaned with: a band behind that candidate's line.
            band = name == "recovery" and len(series) > 1
            axes.plot(
                [epoch for epoch, _ in points],
                [value for _, value in points],
                style,
                color=colour,
                marker="o" if len(points) <= 30 else "",
                markersize=9 if band else 4,
                linewidth=6 if band else 1.6,
                alpha=0.35 if band else 1,
                label=_words(name),
            )
        if "recovery" in series and given_recovery is not None:
            axes.axhline(given_recovery, color=GREY, linestyle="--", linewidth=1, label="given labels")
        if series != ["train_loss"]:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    last = grid[-1, 0]
    last.set_xlabel("epoch")
    last.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(metrics) == 1:
        last.set_xlim(metrics[0]["epoch"] - 1, metrics[0]["epoch"] + 1)
    save(figure, path)


def quality_embedding(
    quality_mean: np.ndarray, agrees: np.ndarray, path: str | Path, *, seed: int, max_points: int = 1500
) -> None:
    """Plot the quality of annotations in the plane by t-SNE, coloured by agreement with the classifier (CAN, Fig. 7).

    Args:
      quality_mean: mean of the quality embedding of each example, float ``[n, D]``.
      agrees: whether the annotation is what the classifier predicts, bool ``[n]``.
      path: the PNG.
      seed: of the choice of points and of t-SNE.
      max_points: a random choice of that many is drawn where there are more.

    Raises:
      ValueError: shapes disagree, no examples, or values that are not finite.
    """
    quality_mean, agrees = np.asarray(quality_mean, np.float64), np.asarray(agrees, bool)
    if quality_mean.ndim != 2 or len(quality_mean) == 0 or agrees.shape != quality_mean.shape[:1]:
        raise ValueError(
            f"quality_mean must have shape [n, D] and agrees [n], got {quality_mean.shape} and {agrees.shape}"
        )
    if not np.isfinite(quality_mean).all():
        raise ValueError("quality_mean has NaN or infinite values: the run has diverged, lower the learning rate")
    n = len(quality_mean)
    if n > max_points:
        rows = np.sort(np.random.default_rng(seed).choice(n, max_points, replace=False))
        quality_mean, agrees = quality_mean[rows], agrees[rows]
    embed = len(quality_mean) >= 5 and np.any(quality_mean != quality_mean[0])
    points = _tsne(quality_mean, seed) if embed else _first_two(quality_mean)

    figure = new_figure(6.4, 6.0)
    axes = figure.subplots()
    groups = (("agrees with the classifier", agrees, BLUE, "o"), ("does not", ~agrees, GREEN, "^"))
    for name, rows, colour, marker in groups:
        if rows.any():
            label = f"{name} ({rows.sum():,})"
            x, y = points[rows].T
            axes.scatter(
                x, y, s=14 if len(points) > 300 else 30, c=colour, marker=marker, alpha=0.6, linewidths=0, label=label
            )
    shown = f"{len(points):,} of {n:,} annotations" if n > len(points) else f"{n:,} annotations"
    axes.set_title(f"Quality of {shown}{', by t-SNE' if embed else ''}", fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_box_aspect(1)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=1.8)
    save(figure, path)


def outlier_curve(score: np.ndarray, outlier: np.ndarray, path: str | Path) -> None:
    """Plot precision against recall of finding outliers by their score (noise layer, Fig. 5).

    Args:
      score: higher means more likely an outlier, float ``[n]``.
      outlier: which examples are outliers, bool ``[n]``.
      path: the PNG.

    Raises:
      ValueError: shapes disagree, or there is no outlier.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve  # takes a second to import

    score, outlier = np.asarray(score), np.asarray(outlier, bool)
    if score.shape != outlier.shape or score.ndim != 1 or not outlier.any():
        raise ValueError(f"score {score.shape} and outlier {outlier.shape} must be vectors with an outlier in them")
    precision, recall, _ = precision_recall_curve(outlier, score)
    figure = new_figure(5.6, 4.6)
    axes = figure.subplots()
    axes.plot(recall, precision, color=BLUE, label=f"average precision {average_precision_score(outlier, score):.3f}")
    axes.axhline(outlier.mean(), color=GREY, linestyle="--", linewidth=1, label="by chance")
    axes.set_xlabel("recall: share of the outliers found")
    axes.set_ylabel("precision: share of outliers among those found")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left")
    save(figure, path)


def _tsne(values: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE  # takes a second to import, and other pictures do without it

    # It starts from the first two principal components, of which values on a line have only one.
    start = "pca" if np.linalg.matrix_rank(values - values.mean(axis=0)) > 1 else "random"
    tsne = TSNE(perplexity=min(30.0, (len(values) - 1) / 3), max_iter=500, init=start, random_state=seed)
    # One thread: on busy cores, OpenMP's threads wait for each other many times longer than they work.
    with threadpool_limits(1):
        points: np.ndarray = tsne.fit_transform(values)
    return points


def _first_two(values: np.ndarray) -> np.ndarray:
    """The first two coordinates, for points that are too few or too equal for t-SNE."""
    return np.pad(values[:, :2], ((0, 0), (0, max(0, 2 - values.shape[1]))))


def _words(name: str) -> str:
    known = {"test_map": "test mAP", "train_loss": "training", "recovery": "cleaned labels"}
    return known.get(name, name.removeprefix("recovery_").replace("_", " "))
