"""Noise types: a little clean data and a lot of noisy data, by exact EM over (true label, noise type) (Xiao et al.).

  python recipes/noise_types.py --dataset=digits --noise=instance:0.4 --clean_fraction=0.1
  python recipes/noise_types.py --dataset=digits --noise=instance:0.4 --strategy=mixed

The strategies are the rows of the paper's Table 1.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from nlx import transitions
from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.console import Console
from nlx.experiment.export import Cleaned
from nlx.experiment.options import ConfigError, RunConfig, build_model, check_range
from nlx.experiment.recipe import Recipe
from nlx.methods.method import Method
from nlx.methods.noise_types import Branch, bottom_up, noise_types, second_backbone, shared_trunk
from nlx.methods.plain import trusting
from nlx.report.ranking import rank_precision
from nlx.training.stages import Course, Stage
from nlx.training.strategies import Strategy, plan
from nlx.transitions.confusing import CONFUSING, estimate_confusing

_KINDS = ("none", "random", "confusing")


@dataclass(frozen=True)
class NoiseTypesConfig(RunConfig):
    """Options of noise types, after those of every recipe."""

    clean_fraction: float = 0.1
    """Share of the training examples whose true label may be learnt from (paper: 47,570 of 1,047,570)."""
    strategy: Strategy = "noise_types"
    """A row of the paper's Table 1. clean_only: the clean part alone. finetune: the noisy part, then the clean one.
    mixed: both, noisy labels taken as true. mixed_pretrained: the clean part, then both. bottom_up: the same, with a
    fixed transition matrix for noisy labels. noise_types: this system, in three stages."""
    pretrain_epochs: int = 30
    """Epochs of the first stage, where the strategy has one before the last."""
    types_epochs: int = 30
    """Epochs over the clean part in which p(noise type given x) is pretrained."""
    branch: Literal["own", "shared"] = "own"
    """p(noise type given x): own is a second backbone (paper), shared a second head on the first one."""
    clean_weight: float = 1.0
    """Weight of clean examples in the last stage, where they are already upsampled to half the noisy ones (paper 1).
    Above 1 for a clean part that is tiny but to be followed closely."""
    branch_rate: float = 1.0
    """Learning rate of p(noise type given x), as a multiple of the classifier's, on top of METHOD_RATE (paper 1). Below
    1 where it learns the few clean examples by heart."""
    fresh_heads: bool = False
    """Draw the last layers of both networks anew when the last stage begins (paper: no). For a clean part so small that
    they were fitted to it by heart."""

    def check(self) -> None:
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "[0, inf)", "pretrain_epochs", "types_epochs", "clean_weight", "branch_rate")


def make_stages(config: NoiseTypesConfig, dataset: Dataset) -> list[Stage]:
    """What the strategy visits, and when."""
    if dataset.multi_label:
        raise ConfigError(f"noise types are for one label per example, but {dataset.name} has several")
    if dataset.train.trusted is None:
        raise ConfigError("noise types learn from trusted labels; add --clean_fraction=0.1, say")
    assert config.epochs is not None
    try:
        return plan(
            config.strategy,
            dataset.train.trusted,
            pretrain=config.pretrain_epochs,
            pretrain_types=config.types_epochs,
            train=config.epochs,
            fresh_heads=config.fresh_heads,
            seed=config.seed,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def make_branch(config: NoiseTypesConfig, dataset: Dataset) -> Branch:
    """The network of noise types."""
    if config.branch == "shared":
        return shared_trunk(build_model(config, dataset).num_features)
    # Without batch normalization, which would need statistics of its own.
    model = config.model if config.model in ("mlp", "mlp-amt", "convnet") else "convnet"
    widths = config.widths if model == config.model else None
    second = build_model(replace(config, model=model, widths=widths), replace(dataset, class_names=_KINDS))
    return second_backbone(
        lambda key: second.init(key)[0],
        lambda params, inputs: second.apply(params, {}, inputs, False, None)[0]["logits"],
    )


def make_method(config: NoiseTypesConfig, dataset: Dataset, course: Course) -> Method:
    """The strategy's method."""
    trusted, noisy, k = dataset.train.trusted_label, dataset.train.noisy_label, dataset.num_classes
    assert trusted is not None
    assert noisy is not None
    known = trusted >= 0
    if absent := sorted(set(range(k)) - set(trusted[known])):
        names = ", ".join(dataset.class_names[c] for c in absent)
        Console(dataset.name, 0).say(f"warning: no trusted example of {names}; its labels are taken as they are")
    if config.strategy == "bottom_up":
        return bottom_up(transitions.from_pairs(trusted[known], noisy[known], k))
    if config.strategy != "noise_types":
        return trusting()._replace(name=config.strategy)
    confusing = estimate_confusing(trusted[known], noisy[known], k).transition
    return noise_types(
        k,
        confusing,
        make_branch(config, dataset),
        boundaries=_boundaries(course),
        clean_weight=config.clean_weight,
        branch_rate=config.branch_rate,
    )


def _boundaries(course: Course) -> tuple[int, int]:
    """First steps of the stages that train p(noise type given x), alone and together with the classifier."""
    names = [stage.name for stage in course.stages]
    together = course.boundaries[names.index("mixed")] if "mixed" in names else course.total
    return course.boundaries[names.index("types")] if "types" in names else together, together


def make_pictures(cleaned: Cleaned) -> list[Path]:
    """The rank-precision curve (Fig. 8), where the truth is known."""
    table = cleaned.table
    if "noise_type" not in table.extras or table.true_label is None:
        return []
    rows = cleaned.dataset.train.scored
    wrong = np.asarray(table.noisy_label != table.true_label)[rows]
    scores = {
        "q(z = confusing)": table.extras["noise_type"][rows, CONFUSING],
        "q(given label wrong)": 1 - table.label_score[rows],
    }
    return [rank_precision(scores, wrong, cleaned.folder / "rank-precision.png")]


RECIPE = Recipe(make_method, make_pictures, stages=make_stages)

if __name__ == "__main__":
    sys.exit(main(NoiseTypesConfig, RECIPE, __doc__))
