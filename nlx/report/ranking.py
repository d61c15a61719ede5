"""How many of the most suspicious labels are wrong: the rank-precision curve (Xiao et al., Fig. 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from nlx.cleaning.table import LabelTable
from nlx.data.dataset import Dataset
from nlx.report.figures import GREY, LINES, new_figure, save
from nlx.transitions.confusing import CONFUSING


def precision_at(scores: np.ndarray, wrong: np.ndarray, ks: Sequence[int] | np.ndarray) -> np.ndarray:
    """Share of truly wrong labels among the k highest scores.

    Where equal scores straddle the cut, they count in proportion: the result is the mean over all orders of them, so
    that the order of the data is of no consequence.

    Args:
      scores: higher is more suspicious, float ``[n]``; no NaN.
      wrong: whether the noisy label differs from the true one, bool ``[n]``.
      ks: numbers in [1, n].

    Returns:
      Precisions in [0, 1], float64, one for each k.

    Raises:
      ValueError: shapes disagree, NaN among the scores, or a k outside [1, n].

    Examples:
      >>> precision_at(np.array([0.9, 0.8, 0.5, 0.5]), np.array([True, False, True, False]), [1, 2, 3])
      array([1. , 0.5, 0.5])

    References:
      Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015, Fig. 8.
    """
    scores, wrong, ks = _checked(scores), np.asarray(wrong), np.asarray(ks)
    n = len(scores)
    if wrong.shape != scores.shape or wrong.dtype != bool:
        raise ValueError(f"wrong must be bool ({n},) as the scores are, got {wrong.dtype} {wrong.shape}")
    if ks.size and (ks.min() < 1 or ks.max() > n):
        raise ValueError(f"ks must lie in [1, {n}], got {ks.min()} to {ks.max()}")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), n - 1) + 1  # of each run of equal scores
    wrong_so_far = np.concatenate([[0], np.cumsum(wrong[order])])
    ends = np.concatenate([[0], ends])
    # Between two thresholds the expected number grows evenly.
    precision: np.ndarray = np.interp(ks, ends, wrong_so_far[ends]) / ks
    return precision


def rank_precision(
    scores: Mapping[str, np.ndarray], wrong: np.ndarray, path: str | Path, *, top: int | None = None
) -> Path:
    """Plot the share of wrong labels among the k most suspicious, over k.

    Args:
      scores: by name, higher is more suspicious, float ``[n]`` each; at most five.
      wrong: whether the noisy label differs from the true one, bool ``[n]``.
      path: the PNG.
      top: largest k; None for all n.

    Returns:
      The path.

    Raises:
      ValueError: no or too many scores, shapes disagree, NaN among the scores, or top < 1.
    """
    if not 1 <= len(scores) <= len(LINES):
        raise ValueError(f"scores must have 1 to {len(LINES)} names, got {len(scores)}")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    wrong = np.asarray(wrong)
    if wrong.size == 0:
        raise ValueError("there are no examples to rank: give those whose true label is known")
    last = min(wrong.size, top or wrong.size)
    # More points than pixels across would only slow the drawing down.
    ks = np.unique(np.linspace(1, last, min(last, 1000)).astype(np.int64))
    figure = new_figure(7.0, 4.2)
    axes = figure.subplots()
    for (name, values), (colour, style) in zip(scores.items(), LINES, strict=False):
        axes.plot(ks, precision_at(values, wrong, ks), style, color=colour, linewidth=1.8, label=name)
    axes.axhline(wrong.mean(), color=GREY, linestyle="--", linewidth=1, label="any order")
    axes.set_title(f"Wrong labels among the most suspicious of {wrong.size:,}", loc="left", fontsize=11)
    axes.set_xlabel("k, most suspicious first")
    axes.set_ylabel("wrong among the top k")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, last)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
    return Path(path)


def rank_precision_pictures(folder: Path, table: LabelTable, data: Dataset) -> list[Path]:
    """Write rank-precision.png (Fig. 8) for a posterior with noise types, where the truth is known."""
    if "noise_type" not in table.extras or table.true_label is None:
        return []
    rows = data.train.scored
    wrong = np.asarray(table.noisy_label != table.true_label)[rows]
    scores = {
        "q(z = confusing)": table.extras["noise_type"][rows, CONFUSING],
        "q(given label wrong)": 1 - table.label_score[rows],
    }
    return [rank_precision(scores, wrong, folder / "rank-precision.png")]


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1:
        raise ValueError(f"scores must be a vector, got {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores have NaN: the run has diverged, lower the learning rate")
    return scores
