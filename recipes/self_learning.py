"""Self-learning with multi-prototypes: labels corrected after every epoch, without clean data (Han et al.).

  python recipes/self_learning.py --dataset=digits --noise=symmetric:0.4
  python recipes/self_learning.py --dataset=npz:my_arrays.npz --labels=worst --start_epoch=3 --last_correction=10
  python recipes/self_learning.py --dataset=digits --clean_fraction=0.1 --verified --clean_epochs=10

Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlx import prototypes
from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.export import Cleaned
from nlx.experiment.options import ConfigError, RunConfig, check_range
from nlx.experiment.recipe import Recipe
from nlx.methods.method import Method, followed_by
from nlx.methods.plain import trusting
from nlx.methods.self_learning import Candidate, Selection, corrections, self_learning
from nlx.report.prototypes import accuracy_by_class, density_histogram, density_scatter, prototype_grid
from nlx.training.stages import Course, Stage

_SHOWN_CLASSES, _SHOWN_MEMBERS = 10, 1280


@dataclass(frozen=True)
class SelfLearningConfig(RunConfig):
    """Options of self-learning, after those of every recipe."""

    start_epoch: int = 3
    """Epochs on the labels as they are, before the first correction, at least 1 (the paper gives none)."""
    every: int = 1
    """Epochs between two corrections (paper 1)."""
    last_correction: int | None = None
    """Epoch of the last correction; later ones follow features that have memorized wrong labels. Default: the end of
    the run (paper)."""
    alpha: float = 0.5
    """Weight of the corrected label, in [0, 1] (paper 0.5)."""
    prototypes: int = 8
    """Prototypes per class (paper 8)."""
    members: int = 1280
    """Random examples of each class that its prototypes are selected from (paper 1280)."""
    quantile: float = 0.4
    """Share of similarities below the density's threshold (paper 0.4)."""
    limit: float = 0.95
    """Members this similar to a denser one are no prototypes (paper 0.95)."""
    select: Selection = "density"
    """How prototypes are selected: density (paper), or its Table 4's kmeans and density_peaks."""
    center: bool = True
    """Compare features less their mean over the training set (the paper compares them as they are)."""
    verified: bool = False
    """Take prototypes from examples whose label is known to be right, where --clean_fraction says so."""
    clean_epochs: int = 0
    """Epochs on the clean part alone at the end (the paper's last row); needs --clean_fraction."""
    temperature: float = 0.1
    """Of the softmax that makes probabilities of resemblance (a score; the paper needs none)."""
    clean_with: Candidate = "combined"
    """What labels are cleaned with: prototypes (paper), classifier, or combined, their geometric mean."""
    keep_scores: bool = True
    """Keep the resemblance to every class for each example, 4 K bytes each."""

    def check(self) -> None:
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "[1, inf)", "start_epoch", "every", "prototypes", "members")
        check_range(self, "[0, 1]", "alpha", "quantile")
        check_range(self, "(0, inf)", "temperature")
        check_range(self, "[0, inf)", "clean_epochs")
        check_range(self, "(-inf, inf)", "limit")
        if (self.verified or self.clean_epochs) and not self.clean_fraction:
            raise ConfigError("--verified and --clean_epochs need trusted labels; add --clean_fraction=0.1, say")
        if self.last_correction is not None and self.last_correction < self.start_epoch:
            raise ConfigError(
                f"--last_correction={self.last_correction} comes before --start_epoch={self.start_epoch}; raise it"
            )


def make_stages(config: SelfLearningConfig, dataset: Dataset) -> list[Stage]:
    """All examples, and then the clean ones where that is asked for."""
    assert config.epochs is not None
    everything = Stage("training", np.arange(len(dataset.train)), config.epochs)
    if not config.clean_epochs:
        return [everything]
    assert dataset.train.trusted is not None
    return [everything, Stage("clean", np.flatnonzero(dataset.train.trusted), config.clean_epochs)]


def make_method(config: SelfLearningConfig, dataset: Dataset, course: Course) -> Method:
    """Self-learning as configured."""
    if dataset.multi_label:
        raise ConfigError(f"self-learning is for one label per example, but {dataset.name} has several")
    epochs = course.stages[0].epochs
    last = min(config.last_correction or epochs, epochs)
    if last < config.start_epoch:
        raise ConfigError(f"--start_epoch={config.start_epoch} comes after the last of {epochs} epochs; lower it")
    method = self_learning(
        dataset.num_classes,
        refresh_after=corrections(config.start_epoch, config.every, last),
        alpha=config.alpha,
        prototypes=config.prototypes,
        members=config.members,
        quantile=config.quantile,
        limit=config.limit,
        select=config.select,
        center=config.center,
        verified=config.verified,
        temperature=config.temperature,
        clean_with=config.clean_with,
        keep_scores=config.keep_scores,
    )
    if len(course.stages) == 1:
        return method
    return followed_by(method, trusting(), course.boundaries[1])


def shown_members(dataset: Dataset) -> np.ndarray:
    """Rows of the examples that the pictures are about: some of each of the first classes."""
    assert dataset.train.noisy_label is not None
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(dataset.train.noisy_label == c) for c in range(min(dataset.num_classes, _SHOWN_CLASSES))]
    return np.concatenate([np.sort(rng.permutation(members)[:_SHOWN_MEMBERS]) for members in rows])


def make_pictures(cleaned: Cleaned) -> list[Path]:
    """Density and prototypes at the end of the run (Fig. 3a, 3b), and label accuracy by class (Fig. 4a)."""
    table, names = cleaned.table, cleaned.dataset.class_names[:_SHOWN_CLASSES]
    shown = shown_members(cleaned.dataset)
    assert cleaned.features is not None
    found = [
        prototype_figures(cleaned.features[table.noisy_label[shown] == c], shown[table.noisy_label[shown] == c])
        for c in range(len(names))
    ]
    pictures = []
    inputs = cleaned.dataset.train.inputs
    if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
        rows = np.stack([figures.prototypes for figures in found])
        right = None if table.true_label is None else table.true_label[rows] == table.noisy_label[rows]
        pictures.append(cleaned.folder / "prototypes.png")
        valid = np.stack([figures.valid for figures in found])
        prototype_grid(inputs[rows], names, pictures[-1], valid=valid, right=right)
    if table.true_label is None:
        return pictures
    one = found[0]
    if len(one.members):
        right = table.true_label[one.members] == table.noisy_label[one.members]
        pictures += [cleaned.folder / "density.png", cleaned.folder / "separation.png"]
        density_histogram(one.density, right, pictures[-2])
        density_scatter(one.density, one.separation, np.flatnonzero(np.isin(one.members, one.prototypes)), pictures[-1])
    rows = cleaned.dataset.train.scored
    labels = {
        "given": table.noisy_label,
        "first correction": table.extras["first_label"],
        "last correction": table.extras["corrected_label"],
    }
    pictures.append(cleaned.folder / "label-accuracy.png")
    scored = {name: values[rows] for name, values in labels.items()}
    accuracy_by_class(scored, table.true_label[rows], cleaned.dataset.class_names, pictures[-1])
    return pictures


class Figures(NamedTuple):
    """What the pictures show of one class: rows of its members and prototypes, and the members' density."""

    members: np.ndarray
    density: np.ndarray
    separation: np.ndarray
    prototypes: np.ndarray
    valid: np.ndarray


def prototype_figures(features: np.ndarray, rows: np.ndarray, count: int = 8) -> Figures:
    """Density, separation and the densest prototypes of the members of a class, by the paper's defaults."""
    if len(rows) == 0:
        return Figures(rows, np.zeros(0), np.zeros(0), np.zeros(count, int), np.zeros(count, bool))
    similarity = prototypes.cosine_similarity(features)
    density = prototypes.density(similarity, prototypes.quantile(similarity, 0.4))
    separation = prototypes.separation(similarity, density)
    chosen = prototypes.select(density, separation, count)
    return Figures(
        rows, np.asarray(density), np.asarray(separation), rows[np.asarray(chosen.rows)], np.asarray(chosen.valid)
    )


RECIPE = Recipe(make_method, make_pictures, stages=make_stages, features=shown_members)

if __name__ == "__main__":
    sys.exit(main(SelfLearningConfig, RECIPE, __doc__))
