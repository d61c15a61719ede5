"""Training with one loss: the baselines that every system is compared with.

  python recipes/baseline.py --loss=cross_entropy --dataset=web
  python recipes/baseline.py --loss=generalized_ce --dataset=digits --noise=symmetric:0.4
  python recipes/baseline.py --loss=forward --transition=anchors:runs/plain-digits-symmetric-0.4/labels.parquet \\
      --dataset=digits --noise=symmetric:0.4
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from nlx import transitions
from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.options import ConfigError, RunConfig, check_range
from nlx.experiment.recipe import Recipe
from nlx.experiment.transition import read_transition
from nlx.methods.method import Method
from nlx.methods.noise_layer import forward
from nlx.methods.plain import backward, plain, trusting
from nlx.training.stages import Course


@dataclass(frozen=True)
class BaselineConfig(RunConfig):
    """Options of the baselines, after those of every recipe."""

    loss: Literal[
        "cross_entropy",
        "binary_cross_entropy",
        "bootstrap_soft",
        "bootstrap_hard",
        "forward",
        "backward",
        "generalized_ce",
        "symmetric_ce",
        "mae",
        "clean",
    ] = "cross_entropy"
    """cross_entropy: softmax for single-label data, one sigmoid per class for multi-label data (paper).
    binary_cross_entropy: one sigmoid per class on both, CAN's own output layer. bootstrap_soft and bootstrap_hard (Reed
    et al.) mix label and prediction. forward and backward (Patrini et al.) correct with --transition. generalized_ce,
    symmetric_ce and mae are robust by themselves. clean trains on the true labels: the upper bound."""
    transition: str = "true"
    """For forward and backward: true (from all true training labels, an oracle), trusted (from those that
    --clean_fraction reveals), anchors:LABELS or confident:LABELS (estimated from the labels.parquet of a plain run on
    the same data), or an .npy file with rows that sum to 1."""
    beta: float | None = None
    """Trust in the label: bootstrap_soft 0.95, bootstrap_hard 0.8 (paper)."""
    q: float = 0.7
    """Of generalized_ce, in (0, 1]; towards 0 it is cross-entropy, at 1 it is mae (paper 0.7)."""
    alpha: float = 0.1
    """Of symmetric_ce, weight of the cross-entropy (paper, CIFAR-10: 0.1)."""

    def check(self) -> None:
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "[0, 1]", "beta")
        check_range(self, "(0, 1]", "q")
        check_range(self, "[0, inf)", "alpha")


def fill_beta(config: BaselineConfig, dataset: Dataset) -> BaselineConfig:
    """The configuration with the paper's beta for the kind of bootstrap."""
    del dataset
    papers = {"bootstrap_soft": 0.95, "bootstrap_hard": 0.8}
    return config if config.beta is not None else replace(config, beta=papers.get(config.loss))


def choose_data(config: BaselineConfig, dataset: Dataset) -> Dataset:
    """All true labels for the upper bound, the data as they are for the others."""
    if config.loss != "clean":
        return dataset
    if dataset.train.label is None:
        raise ConfigError(f"--loss=clean trains on true labels, which {dataset.name} does not have; take another loss")
    return dataset.trust(1.0, 0)


def make_method(config: BaselineConfig, dataset: Dataset, course: Course) -> Method:
    """The configured loss as a method."""
    del course
    single_label = ("forward", "backward", "generalized_ce", "symmetric_ce", "mae")
    if dataset.multi_label and config.loss in single_label:
        raise ConfigError(
            f"--loss={config.loss} is for one label per example, but {dataset.name} has several; take cross_entropy, "
            "bootstrap_soft, bootstrap_hard or clean"
        )
    if config.loss == "clean":
        return trusting()._replace(name="clean")
    if config.loss in ("forward", "backward"):
        transition = read_transition(config.transition, dataset)
        if config.loss == "forward":
            return forward(transition)
        try:
            return backward(transitions.invert(transition))
        except ValueError as error:
            raise ConfigError(f"--loss=backward: {error}") from error
    options: dict[str, dict[str, Any]] = {
        "bootstrap_soft": {"beta": config.beta},
        "bootstrap_hard": {"beta": config.beta},
        "generalized_ce": {"q": config.q},
        "symmetric_ce": {"alpha": config.alpha},
    }
    return plain(config.loss, **options.get(config.loss, {}))


RECIPE = Recipe(make_method, fill=fill_beta, data=choose_data)

if __name__ == "__main__":
    sys.exit(main(BaselineConfig, RECIPE, __doc__))
