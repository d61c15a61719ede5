"""What self-learning's runs show: prototypes and their density at the end, and label accuracy by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from nlx import prototypes
from nlx.cleaning.table import LabelTable
from nlx.data.dataset import Dataset
from nlx.report.prototypes import accuracy_by_class, density_histogram, density_scatter, prototype_grid

SHOWN_CLASSES, SHOWN_MEMBERS = 10, 1280


class Figures(NamedTuple):
    """What the pictures show of one class: rows of members and prototypes, density, and how many members qualified."""

    members: np.ndarray
    density: np.ndarray
    separation: np.ndarray
    prototypes: np.ndarray
    valid: np.ndarray
    qualified: int


def shown_members(data: Dataset, among: ArrayLike | None = None) -> np.ndarray:
    """Rows of the examples that the pictures are about: some of each of the first classes, ``among`` bool ``[n]``."""
    rng, label = np.random.default_rng(0), data.train.observed
    counted = np.ones(len(label), bool) if among is None else np.asarray(among)
    rows = [np.flatnonzero(counted & (label == c)) for c in range(min(data.num_classes, SHOWN_CLASSES))]
    return np.concatenate([np.sort(rng.permutation(members)[:SHOWN_MEMBERS]) for members in rows])


def as_compared(
    features: np.ndarray, rows: np.ndarray, data: Dataset, center: bool, typical_only: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[m, F]`` of rows as prototypes are selected by them, and those of the rows that may be prototypes."""
    labels, k = data.train.observed[rows], data.num_classes
    compared = np.asarray(prototypes.centered(features, labels, k)) if center else features
    kept = np.asarray(prototypes.typical(compared, labels, k)) if typical_only else slice(None)
    return compared[kept], rows[kept]


def class_figures(
    features: np.ndarray,
    rows: np.ndarray,
    *,
    size: int,
    count: int,
    quantile: float,
    limit: float,
    select: prototypes.Select = "density",
) -> Figures:
    """Density and separation of the members of a class, and its prototypes as selection has them.

    Members are padded to ``size``, so that classes of all sizes share one compilation.
    """
    n = len(rows)
    if n == 0:
        return Figures(rows, np.zeros(0), np.zeros(0), np.zeros(count, int), np.zeros(count, bool), 0)
    members, padded = np.arange(size) < n, np.pad(features, ((0, size - n), (0, 0)))
    similarity = prototypes.cosine_similarity(padded)
    threshold = prototypes.quantile(similarity, quantile, where=members[:, None] & members[None, :])
    density = prototypes.density(similarity, threshold, where=members)
    separation = prototypes.separation(similarity, density, where=members)
    rule = prototypes.selector(select, share=quantile, limit=limit)
    chosen = rule(jax.random.key(0), jnp.asarray(padded), jnp.asarray(members), count)
    prototype = rows[np.where(chosen.valid, chosen.rows, 0)]
    measured = np.asarray(density)[:n], np.asarray(separation)[:n]
    return Figures(rows, *measured, prototype, np.asarray(chosen.valid), int(chosen.qualified))


def correction_pictures(
    folder: Path,
    table: LabelTable,
    data: Dataset,
    *,
    features: np.ndarray,
    rows: np.ndarray,
    count: int = 8,
    quantile: float = 0.4,
    limit: float = 0.95,
    select: prototypes.Select = "density",
) -> list[Path]:
    """Write pictures of prototypes (Fig. 3a, 3b) and of label accuracy by class (Fig. 4a).

    Args:
      folder: where to.
      table: cleaned labels, with self-learning's columns.
      data: what was trained on.
      features: of the rows, as prototypes are selected by them, float ``[m, F]``.
      rows: of the training set, see :func:`shown_members`.
      count: prototypes of a class; ``quantile`` and ``limit`` as in :func:`nlx.prototypes.by_density`.
      quantile: likewise.
      limit: likewise.
      select: how prototypes are selected, see :func:`nlx.methods.self_learning.self_learning`.

    Returns:
      Paths of the pictures.
    """
    names = data.class_names[:SHOWN_CLASSES]
    of_class = [table.noisy_label[rows] == c for c in range(len(names))]
    settings: dict[str, Any] = {"count": count, "quantile": quantile, "limit": limit, "select": select}
    largest = max(own.sum() for own in of_class)
    figures = [class_figures(features[own], rows[own], size=largest, **settings) for own in of_class]
    true, pictures, inputs = table.true_label, [], data.train.inputs
    if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
        shown = np.stack([f.prototypes for f in figures])
        right = None if true is None else true[shown] == table.noisy_label[shown]
        pictures.append(folder / "prototypes.png")
        notes, valid = [f"{f.qualified:,} qualify" for f in figures], np.stack([f.valid for f in figures])
        prototype_grid(inputs[shown], names, pictures[-1], valid=valid, right=right, notes=notes)
    if true is None:
        return pictures
    one = figures[0]
    if len(one.members):
        right = true[one.members] == table.noisy_label[one.members]
        pictures += [folder / "density.png", folder / "separation.png"]
        chosen = np.flatnonzero(np.isin(one.members, one.prototypes[one.valid]))
        density_histogram(one.density, right, pictures[-2])
        below = limit if select == "density" else None
        density_scatter(one.density, one.separation, chosen, pictures[-1], limit=below)
    scored = data.train.scored
    labels = {
        "given": table.noisy_label,
        "first correction": table.extras["first_label"],
        "last correction": table.extras["corrected_label"],
    }
    pictures.append(folder / "label-accuracy.png")
    accuracy_by_class({n: v[scored] for n, v in labels.items()}, true[scored], data.class_names, pictures[-1])
    return pictures
