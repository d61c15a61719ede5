"""Heat maps of how one label comes out as another, as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from nlx.report.figures import BLUE, RED, new_figure, save, short

_MOST_ANNOTATED = 20  # classes; more than that and the numbers in a heat map could not be read


def transition_heatmaps(
    groups: Mapping[str, np.ndarray], class_names: Sequence[str], path: str | Path, *, latent: str = "latent"
) -> None:
    """Plot how often a latent label came with a noisy one, for one or more groups of annotations (CAN, Fig. 9).

    Colour is the share of a latent class's row, on a square-root scale so that rare transitions are seen; the numbers
    are counts, or percent where a row sums to 1, left out above 20 classes.

    Args:
      groups: by title, ``[i, j]`` counts latent i with noisy j, or is its probability, ``[K, K]``.
      class_names: K names.
      path: the PNG.
      latent: what the rows are: latent, or true.

    Raises:
      ValueError: shapes disagree.
    """
    k = len(class_names)
    for counts in groups.values():
        if counts.shape != (k, k):
            raise ValueError(f"counts must have shape ({k}, {k}) for {k} class names, got {counts.shape}")
    names = [short(name) for name in class_names]
    annotated = k <= _MOST_ANNOTATED
    side = max(3.6, 0.42 * k) if annotated else 7.0  # inches of one heat map
    across = k <= 12  # side by side; larger ones below each other, so that they can be read on a page
    figure = (
        new_figure(len(groups) * side + 2.0, side + 1.0)
        if across
        else new_figure(side + 2.6, len(groups) * (side + 1.2))
    )
    count = len(groups)
    grid = figure.subplots(*((1, count) if across else (count, 1)), sharey=across, squeeze=False).ravel()
    upright = max(map(len, names)) * 0.075 > side / k  # names wider than a column, at 0.075 inches a character
    step = 1 if k <= 2 * _MOST_ANNOTATED else math.ceil(k / (2 * _MOST_ANNOTATED))
    for axes, (title, counts) in zip(grid, groups.items(), strict=True):
        rows = counts.sum(axis=1, keepdims=True)
        share = np.divide(counts, rows, out=np.zeros((k, k)), where=rows > 0)
        image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="equal")
        for i, j in np.ndindex(k, k) if annotated else ():
            if counts[i, j] > (0 if rows[i] > 1.5 else 0.005):
                # White on the dark half of the scale; its square root lets that begin at a share of 0.35.
                colour = "white" if share[i, j] > 0.35 else "black"
                number = count_text(float(counts[i, j])) if rows[i] > 1.5 else f"{100 * counts[i, j]:.0f}"
                axes.text(j, i, number, ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("noisy label")
        axes.set_ylabel(f"{latent} label")
        axes.set_xticks(range(0, k, step), names[::step], rotation=90 if upright else 0, fontsize=8, parse_math=False)
        axes.set_yticks(range(0, k, step), names[::step], fontsize=8, parse_math=False)
        axes.tick_params(length=0)
        axes.label_outer()
    bar = figure.colorbar(image, ax=grid, shrink=0.6, aspect=30, format=PercentFormatter(xmax=1, decimals=0))
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1])
    bar.set_label(f"share of the {latent} label's row")
    save(figure, path)


def transition_comparison(
    learned: np.ndarray, true: np.ndarray | None, class_names: Sequence[str], path: str | Path
) -> None:
    """Plot a transition matrix beside the true one (noise layer, Fig. 3c).

    Args:
      learned: T, float ``[K, K]``, or ``[K, 2, 2]``, a matrix for every class, of which both rates of a positive label
        are drawn.
      true: in the same form; None where it is not known.
      class_names: K names.
      path: the PNG.

    Raises:
      ValueError: shapes disagree.
    """
    if true is not None and true.shape != learned.shape:
        raise ValueError(f"learned {learned.shape} and true {true.shape} must have the same shape")
    if learned.ndim == 2:
        title = "T of the model" + ("" if true is None else f" (mean error {np.abs(learned - true).mean():.3f})")
        groups = {title: learned} if true is None else {title: learned, "True T": true}
        transition_heatmaps(groups, class_names, path, latent="true")
        return
    k = len(class_names)
    figure = new_figure(6.4, 1.6 + 0.22 * k)
    axes = figure.subplots()
    for row, colour, words in ((1, BLUE, "present"), (0, RED, "absent")):
        axes.plot(learned[:, row, 1], range(k), "o", color=colour, label=f"where the class is {words}")
        if true is not None:
            axes.plot(true[:, row, 1], range(k), "x", color=colour, label=f"where the class is {words}, true")
    axes.set_yticks(range(k), [short(name) for name in class_names], fontsize=8, parse_math=False)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability of a positive noisy label")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def count_text(value: float) -> str:
    """A count in at most four characters: 12, 3456, 12k, 3M."""
    value = round(float(value))
    for unit in ("", "k", "M", "G"):
        if value < 10_000:
            return f"{value}{unit}"
        value = round(value / 1000)
    return f"{value}T"
