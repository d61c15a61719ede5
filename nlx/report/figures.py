"""What every picture of a run shares: a figure without pyplot, a file that appears whole, names that fit an axis."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nlx.files import replacing

# Okabe and Ito's colours, which remain apart for colour-blind readers; styles, markers and hatches differ as well.
BLUE, GREEN, RED, PURPLE, SKY, ORANGE = "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00"
GREY, PALE = "#666666", "#cccccc"
LINES = ((BLUE, "-"), (RED, ":"), (GREEN, "--"), (PURPLE, "-."), (SKY, "-"))

_LONGEST_NAME = 16  # characters of a class name on an axis


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing is shown, kept or configured beyond this figure
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, or as SVG where its name ends so."""
    kind = "svg" if Path(path).suffix == ".svg" else "png"
    with replacing(path) as file:
        figure.savefig(file, format=kind, bbox_inches="tight", pad_inches=0.12)  # tight: nothing is cut off


def short(name: str) -> str:
    """A class name, cut where it is too long for an axis."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
