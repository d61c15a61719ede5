"""What CAN's quality embedding shows: two groups of annotations, and how labels come out in each (Fig. 7 and 9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from nlx.cleaning.table import LabelTable
from nlx.data.dataset import Dataset
from nlx.metrics import transition_counts
from nlx.report.heatmaps import count_text, transition_heatmaps
from nlx.report.plots import quality_embedding


def consistent(prediction: np.ndarray, noisy_label: np.ndarray) -> np.ndarray:
    """Which annotations agree with the classifier: the paper's rule for colouring the embedding.

    Args:
      prediction: the classifier's P(z given x), float ``[n, K]``.
      noisy_label: int ``[n]``, where the argmax must agree, or {0, 1} ``[n, K]``, where all of P at 0.5 must.

    Returns:
      bool ``[n]``.
    """
    if noisy_label.ndim == 1:
        return np.argmax(prediction, axis=1) == noisy_label
    return np.all((prediction >= 0.5) == (noisy_label > 0), axis=1)


def trustworthy(quality_mean: np.ndarray, agrees: np.ndarray, seed: int) -> np.ndarray:
    """Split annotations in two by K-means on their quality; the group that agrees more often is the trustworthy one.

    Args:
      quality_mean: mu, float ``[n, D]``.
      agrees: see :func:`consistent`, bool ``[n]``.
      seed: of K-means.

    Returns:
      bool ``[n]``; all True where the embedding has fewer than two different points.
    """
    # Imported where it is used: it would take a third of every recipe's start, --help included.
    from sklearn.cluster import KMeans

    if len(np.unique(quality_mean[:1000], axis=0)) < 2:
        return np.ones(len(quality_mean), bool)
    # One thread: on busy cores, OpenMP's threads wait for each other many times longer than they work.
    with threadpool_limits(1):
        group = KMeans(2, n_init=4, random_state=seed).fit_predict(quality_mean) == 1
    return group if agrees[group].mean() >= agrees[~group].mean() else ~group


def quality_pictures(folder: Path, table: LabelTable, data: Dataset) -> list[Path]:
    """Write quality.png (Fig. 7) and transitions.png (Fig. 9), of a posterior with CAN's columns, to a folder."""
    quality_mean, noisy_label, k = table.extras["quality_mean"], table.noisy_label, data.num_classes
    agrees = consistent(table.extras["classifier"], noisy_label)
    quality_embedding(quality_mean, agrees, folder / "quality.png", seed=0)
    noisy, latent = noisy_label.astype(np.int32), table.cleaned_label.astype(np.int32)
    good = trustworthy(quality_mean, agrees, seed=0)
    groups = {}
    for title, rows in (("Trustworthy group", good), ("The other group", ~good)):
        if noisy.ndim == 2:
            counts = np.asarray(transition_counts(latent, noisy, where=rows))
        else:
            counts = np.bincount(latent[rows] * k + noisy[rows], minlength=k * k).reshape(k, k).astype(np.float32)
        groups[f"{title} ({count_text(float(counts.sum()))} pairs)"] = counts
    transition_heatmaps(groups, data.class_names, folder / "transitions.png")
    return [folder / "quality.png", folder / "transitions.png"]
