"""Pictures of a run as PNG: training curves, the quality embedding, latent to noisy transitions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from threadpoolctl import threadpool_limits

from nlx.reporting.files import replacing

# Okabe and Ito's colours, which remain apart for colour-blind readers; markers differ as well.
_BLUE, _GREEN, _ORANGE, _PURPLE, _SKY = "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
_LINES = ((_BLUE, "-"), (_ORANGE, ":"), (_GREEN, "--"), (_PURPLE, "-."), (_SKY, "-"))
_MOST_ANNOTATED = 20  # classes; more than that and the counts in a heat map could not be read
_LONGEST_NAME = 16  # characters of a class name on an axis


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

    figure = _figure(8.0, 0.8 + 2.3 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, (title, series) in zip(grid[:, 0], panels.items(), strict=True):
        for name, (colour, style) in zip(series, _LINES, strict=False):
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
            axes.axhline(given_recovery, color="#666666", linestyle="--", linewidth=1, label="given labels")
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
    _save(figure, path)


def quality_embedding(
    quality_mean: np.ndarray, trustworthy: np.ndarray, path: str | Path, *, seed: int, max_points: int = 1500
) -> None:
    """Plot the quality of annotations in the plane by t-SNE, coloured by whether they are trustworthy (CAN, Fig. 7).

    Args:
      quality_mean: mean of the quality embedding of each example, float ``[n, D]``.
      trustworthy: bool ``[n]``.
      path: the PNG.
      seed: of the choice of points and of t-SNE.
      max_points: a random choice of that many is drawn where there are more.

    Raises:
      ValueError: shapes disagree, no examples, or values that are not finite.
    """
    quality_mean, trustworthy = np.asarray(quality_mean, np.float64), np.asarray(trustworthy, bool)
    if quality_mean.ndim != 2 or len(quality_mean) == 0 or trustworthy.shape != quality_mean.shape[:1]:
        raise ValueError(
            f"quality_mean must have shape [n, D] and trustworthy [n], got {quality_mean.shape} and {trustworthy.shape}"
        )
    if not np.isfinite(quality_mean).all():
        raise ValueError("quality_mean has NaN or infinite values: the run has diverged, lower the learning rate")
    n = len(quality_mean)
    if n > max_points:
        rows = np.sort(np.random.default_rng(seed).choice(n, max_points, replace=False))
        quality_mean, trustworthy = quality_mean[rows], trustworthy[rows]
    embed = len(quality_mean) >= 5 and np.any(quality_mean != quality_mean[0])
    points = _tsne(quality_mean, seed) if embed else _first_two(quality_mean)

    figure = _figure(6.4, 6.0)
    axes = figure.subplots()
    groups = (("trustworthy", trustworthy, _BLUE, "o"), ("not trustworthy", ~trustworthy, _GREEN, "^"))
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
    _save(figure, path)


def transition_heatmaps(
    counts_trustworthy: np.ndarray, counts_not: np.ndarray, class_names: Sequence[str], path: str | Path
) -> None:
    """Plot how often a latent label came with a noisy one, for both groups of annotations (CAN, Fig. 9).

    Colour is the share of a latent class's row, on a square-root scale so that rare transitions are seen; the numbers
    are counts, left out above 20 classes.

    Args:
      counts_trustworthy: ``[i, j]`` counts latent i with noisy j among the trustworthy annotations, ``[K, K]``.
      counts_not: the same among the others.
      class_names: K names.
      path: the PNG.

    Raises:
      ValueError: shapes disagree.
    """
    k = len(class_names)
    groups = {
        "Trustworthy annotations": np.asarray(counts_trustworthy),
        "Annotations that are not": np.asarray(counts_not),
    }
    for counts in groups.values():
        if counts.shape != (k, k):
            raise ValueError(f"counts must have shape ({k}, {k}) for {k} class names, got {counts.shape}")
    names = [_short(name) for name in class_names]
    annotated = k <= _MOST_ANNOTATED
    side = max(3.6, 0.42 * k) if annotated else 7.0  # inches of one heat map
    across = k <= 12  # side by side; larger ones below each other, so that they can be read on a page
    figure = _figure(2 * side + 2.0, side + 1.0) if across else _figure(side + 2.6, 2 * side + 2.4)
    grid = figure.subplots(1, 2, sharey=True) if across else figure.subplots(2, 1)
    upright = max(map(len, names)) * 0.075 > side / k  # names wider than a column, at 0.075 inches a character
    step = 1 if k <= 2 * _MOST_ANNOTATED else math.ceil(k / (2 * _MOST_ANNOTATED))
    for axes, (title, counts) in zip(grid, groups.items(), strict=True):
        rows = counts.sum(axis=1, keepdims=True)
        share = np.divide(counts, rows, out=np.zeros((k, k)), where=rows > 0)
        image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="equal")
        for i, j in np.ndindex(k, k) if annotated else ():
            if counts[i, j] > 0:
                # White on the dark half of the scale; its square root lets that begin at a share of 0.35.
                colour = "white" if share[i, j] > 0.35 else "black"
                axes.text(j, i, _count(float(counts[i, j])), ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_title(f"{title} ({_count(float(counts.sum()))} pairs)", fontsize=11)
        axes.set_xlabel("noisy label")
        axes.set_ylabel("latent label")
        axes.set_xticks(range(0, k, step), names[::step], rotation=90 if upright else 0, fontsize=8, parse_math=False)
        axes.set_yticks(range(0, k, step), names[::step], fontsize=8, parse_math=False)
        axes.tick_params(length=0)
        axes.label_outer()
    bar = figure.colorbar(image, ax=grid, shrink=0.6, aspect=30, format=PercentFormatter(xmax=1, decimals=0))
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the latent label's row")
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing is shown, kept or configured beyond this figure
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.12)  # tight: nothing is cut off


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


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _count(value: float) -> str:
    """A count in at most four characters: 12, 3456, 12k, 3M."""
    value = round(float(value))
    for unit in ("", "k", "M", "G"):
        if value < 10_000:
            return f"{value}{unit}"
        value = round(value / 1000)
    return f"{value}T"
