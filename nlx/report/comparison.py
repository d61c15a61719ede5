"""Curves of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nlx.report.figures import LINES, new_figure, save

_PANELS = {
    "test_accuracy": "Test accuracy",
    "test_map": "Test mAP",
    "validation_score": "On held-out noisy labels",
    "recovery": "Training labels recovered",
    "train_loss": "Training loss",
}
_LONGEST = 60  # characters of a legend's entry
_MOST_LINES = 5  # that colours and styles tell apart; beyond that they come again, thinner


def comparison_curves(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: str | Path) -> None:
    """Plot test scores, recovery of labels and loss over epochs; of several seeds the mean, in a band to the extremes.

    Args:
      runs: by name, for each seed its rows as in metrics.jsonl.
      path: the picture, .png or .svg.

    Raises:
      ValueError: there is nothing to plot.
    """
    names = {name for seeds in runs.values() for rows in seeds for row in rows for name in row if row[name] is not None}
    panels = [name for name in _PANELS if name in names]
    if "test_accuracy" in panels and "test_map" in panels:
        panels.remove("test_map")  # of one label to an example it says little more
    if not panels:
        raise ValueError("the runs have no curves: give those that have trained for an epoch")
    figure = new_figure(4.6 * len(panels), 3.6 + 0.22 * len(runs))
    handles: list[Any] = []
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        drawn = [
            _curve(axes, seeds, name, look, label, 1.8 if number < _MOST_LINES else 1.0)
            for number, ((label, seeds), look) in enumerate(zip(runs.items(), cycle(LINES), strict=False))
        ]
        handles = handles or drawn
        axes.set_title(_PANELS[name], loc="left", fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name != "train_loss":
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=9)
    save(figure, path)


def _curve(axes: Any, seeds: Sequence[Any], name: str, look: tuple[str, str], label: str, width: float) -> Any:
    """The line of one run: its mean over seeds at the epochs that all of them have."""
    known = [{row["epoch"]: row[name] for row in rows if row.get(name) is not None} for rows in seeds]
    epochs = sorted(set.intersection(*map(set, known)))
    values = np.array([[seed[epoch] for epoch in epochs] for seed in known], float).reshape(len(known), len(epochs))
    colour, style = look
    label = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    mean = values.mean(axis=0)
    (line,) = axes.plot(epochs, mean, style, color=colour, linewidth=width, label=label.replace("$", r"\$"))
    if len(known) > 1:
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    return line
