"""Pictures of self-learning: densities of right and wrong labels, prototypes among them, labels corrected by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from nlx.report.figures import BLUE, GREEN, GREY, ORANGE, PALE, RED, new_figure, save, short

_MARKERS = ((GREY, "o"), (ORANGE, "^"), (BLUE, "D"), (GREEN, "s"))
_MOST_CLASSES = 30  # rows of a picture; more could not be read


def density_histogram(density: np.ndarray, right: np.ndarray, path: str | Path, *, bins: int = 40) -> None:
    """Plot the distribution of the density among right and wrong labels of one class (Han et al., Fig. 3a).

    Args:
      density: rho of each member, ``[m]``.
      right: whether its label is right, bool ``[m]``.
      path: the PNG.
      bins: of the histograms, the same for both.

    Raises:
      ValueError: shapes disagree or no members.
    """
    density, right = _members(density=density, right=right)
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    edges = np.histogram_bin_edges(density, bins).tolist()
    for name, rows, colour, fill in (("right", right, BLUE, True), ("wrong", ~right, GREEN, False)):
        if rows.any():
            share = np.full(rows.sum(), 1 / rows.sum())
            axes.hist(
                density[rows],
                edges,
                weights=share,
                histtype="stepfilled" if fill else "step",
                color=colour,
                alpha=0.55 if fill else 1,
                linewidth=2,
                label=f"{name} label ({rows.sum():,})",
            )
    axes.set_xlabel(r"density $\rho$")
    axes.set_ylabel("share of the labels")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def density_scatter(
    density: np.ndarray, separation: np.ndarray, chosen: np.ndarray, path: str | Path, *, limit: float | None = 0.95
) -> None:
    """Plot each member's density and its similarity to the nearest denser one (Han et al., Fig. 3b).

    Args:
      density: rho of each member, ``[m]``.
      separation: eta of each member, ``[m]``.
      chosen: rows of the prototypes, int ``[p]``.
      path: the PNG.
      limit: members with eta below it may be prototypes, a line; None for none.

    Raises:
      ValueError: shapes disagree or no members.
    """
    density, separation = _members(density=density, separation=separation)
    chosen = np.asarray(chosen)
    figure = new_figure(6.4, 4.6)
    axes = figure.subplots()
    axes.scatter(density, separation, s=9, c=BLUE, alpha=0.45, linewidths=0, label=f"members ({len(density):,})")
    axes.scatter(
        density[chosen], separation[chosen], s=44, c=RED, marker="D", linewidths=0, label=f"prototypes ({len(chosen)})"
    )
    if limit is not None:
        axes.axhline(limit, color=GREY, linestyle="--", linewidth=1, label=f"limit {limit:g}")
    axes.set_xlabel(r"density $\rho$")
    axes.set_ylabel(r"similarity $\eta$ to a denser member")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def accuracy_by_class(
    labels: Mapping[str, np.ndarray], true_label: np.ndarray, class_names: Sequence[str], path: str | Path
) -> None:
    """Plot the share of right labels in each class, before and after correction (Han et al., Fig. 4a).

    Args:
      labels: by name, such as given, first correction and last correction: classes, int ``[n]``. A negative label is
        none and counts as wrong.
      true_label: true classes, int ``[n]``.
      class_names: K names. Above 30 classes, those are drawn whose share changes most from the first labels to the
        last.
      path: the PNG.

    Raises:
      ValueError: shapes disagree, or no labels, or more than four.
    """
    true_label = np.asarray(true_label)
    if not 1 <= len(labels) <= len(_MARKERS):
        raise ValueError(f"give 1 to {len(_MARKERS)} sets of labels, got {len(labels)}")
    for name, values in labels.items():
        if np.shape(values) != true_label.shape:
            raise ValueError(f"{name!r} labels {np.shape(values)} and true_label {true_label.shape} must agree")
    k = len(class_names)
    sizes = np.maximum(np.bincount(true_label, minlength=k), 1)
    shares = {
        name: np.bincount(true_label[np.asarray(values) == true_label], minlength=k) / sizes
        for name, values in labels.items()
    }
    by_class = np.array(list(shares.values()))
    shown = np.arange(k)
    if k > _MOST_CLASSES:
        change = np.abs(by_class[-1] - by_class[0])
        shown = np.sort(np.argsort(-change, kind="stable")[:_MOST_CLASSES])

    figure = new_figure(6.8, 1.4 + 0.34 * len(shown))
    axes = figure.subplots()
    rows = np.arange(len(shown))
    axes.hlines(rows, by_class.min(axis=0)[shown], by_class.max(axis=0)[shown], color=PALE, linewidth=2, zorder=1)
    for (name, share), (colour, marker) in zip(shares.items(), _MARKERS, strict=False):
        overall = float((np.asarray(labels[name]) == true_label).mean())
        label = f"{name} ({overall:.1%} of all)"
        axes.scatter(share[shown], rows, s=40, c=colour, marker=marker, linewidths=0, zorder=2, label=label)
    axes.set_yticks(rows, [short(class_names[c]) for c in shown.tolist()], fontsize=9, parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel("share of right labels, by true class")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(len(shares), 2), frameon=False, fontsize=9)
    save(figure, path)


def prototype_grid(
    images: np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
    *,
    valid: np.ndarray | None = None,
    right: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Show the prototypes as pictures, a row for each class, the first the densest.

    Args:
      images: of the prototypes, uint8 ``[K, p, H, W, C]`` with 1 or 3 channels.
      class_names: K names. Above 30 classes, the first 30 are shown.
      path: the PNG.
      valid: which of them exist, bool ``[K, p]``; the others are left blank.
      right: whether each one's label is right, bool ``[K, p]``, where that is known; wrong ones get a frame.
      notes: a line below each name.

    Raises:
      ValueError: shapes disagree.
    """
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[4] not in (1, 3) or len(class_names) != images.shape[0]:
        raise ValueError(
            f"images must be [K, p, H, W, C] with 1 or 3 channels for {len(class_names)} class names, "
            f"got {images.shape}"
        )
    k, p = images.shape[:2]
    valid = np.ones((k, p), bool) if valid is None else np.asarray(valid)
    right = np.ones((k, p), bool) if right is None else np.asarray(right)
    if valid.shape != (k, p) or right.shape != (k, p):
        raise ValueError(f"valid {valid.shape} and right {right.shape} must have shape {(k, p)}")
    shown = min(k, _MOST_CLASSES)
    figure = new_figure(1.6 + 0.75 * p, 0.4 + 0.78 * shown)
    grid: Any = figure.subplots(shown, p, squeeze=False)
    for c, i in np.ndindex(shown, p):
        axes = grid[c, i]
        axes.set_xticks([])
        axes.set_yticks([])
        framed = bool(valid[c, i] and not right[c, i])
        for spine in axes.spines.values():
            spine.set(visible=framed, color=RED, linewidth=3)
        if valid[c, i]:
            axes.imshow(images[c, i].squeeze(-1) if images.shape[4] == 1 else images[c, i], cmap="gray")
        if i == 0:
            name = "\n".join([short(class_names[c]), *notes[c : c + 1]])
            axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    save(figure, path)


def _members(**columns: np.ndarray) -> list[np.ndarray]:
    arrays = [np.asarray(column) for column in columns.values()]
    if any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays) or len(arrays[0]) == 0:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in zip(columns, arrays, strict=True))
        raise ValueError(f"must be vectors of the same length, at least 1: {shapes}")
    return arrays
