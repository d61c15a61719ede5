"""The noise layer: learn how labels go wrong together with the classifier (Sukhbaatar et al.).

  python recipes/noise_layer.py --dataset=digits --noise=symmetric:0.4
  python recipes/noise_layer.py --dataset=fashion_mnist --noise=pair:0.4 --layer=given --transition=true
  python recipes/noise_layer.py --dataset=fashion_mnist --noise=outlier:0.5 --layer=outliers --known_outliers=0.1

Its twins for comparison are recipes/baseline.py --loss=cross_entropy and --loss=forward with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.options import ConfigError, RunConfig, build_model, check_range
from nlx.experiment.recipe import Recipe
from nlx.experiment.transition import read_transition
from nlx.methods.method import Method
from nlx.methods.noise_layer import Penalty, forward, noise_layer, outliers
from nlx.training.stages import Course


@dataclass(frozen=True)
class NoiseLayerConfig(RunConfig):
    """Options of the noise layer, after those of every recipe."""

    layer: Literal["learned", "given", "outliers"] = "learned"
    """learned: T starts as the identity and is learned. given: T as --transition says. outliers: one more class, for
    examples that are of none of the others."""
    learn_from: float = 1.0
    """Epochs after which T is learned (paper: 5 on SVHN, 30 on CIFAR-10). A network that has begun to memorize wrong
    labels by then keeps T at the identity, which explains them."""
    learn_until: float | None = None
    """Epochs after which T is held. Default: the end of the run (paper)."""
    penalty: Penalty = "decay"
    """What pushes T from the identity: decay, half the sum of its squares (paper's experiments), or trace (paper's
    theory)."""
    strength: float = 0.1
    """Weight of the penalty, at least 0 (paper 0.1, milder 0.02)."""
    gradient_limit: float | None = 1.0
    """Cut the rows of T's gradient to this length, so that a label that seemed impossible does not throw a row over;
    None for no limit (paper)."""
    transition: str = "true"
    """For a given T: true (from all true training labels, an oracle), trusted (from those that --clean_fraction
    reveals), anchors:LABELS or confident:LABELS (estimated from the labels.parquet of a plain run on the same data), or
    an .npy file with rows that sum to 1."""
    alpha: float | None = None
    """For outliers: estimated share of them that are known to be outliers. Default: --known_outliers."""

    def check(self) -> None:
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "[0, inf)", "learn_from", "learn_until", "strength")
        check_range(self, "(0, inf)", "gradient_limit")
        check_range(self, "(0, 1]", "alpha")
        if self.layer == "outliers" and not self.known_outliers:
            raise ConfigError("--layer=outliers learns from a few known ones; add --known_outliers=0.1, say")


def fill_alpha(config: NoiseLayerConfig, dataset: Dataset) -> NoiseLayerConfig:
    """The configuration with the true share of known outliers where none is estimated."""
    del dataset
    use = config.layer == "outliers" and config.alpha is None
    return replace(config, alpha=config.known_outliers) if use else config


def make_method(config: NoiseLayerConfig, dataset: Dataset, course: Course) -> Method:
    """The configured noise layer."""
    if dataset.multi_label and config.layer != "learned":
        raise ConfigError(f"--layer={config.layer} is for one label per example, but {dataset.name} has several")
    if config.layer == "given":
        return forward(read_transition(config.transition, dataset))
    if config.layer == "outliers":
        assert config.alpha is not None
        features = build_model(config, dataset).num_features
        return outliers(dataset.num_classes, config.alpha, features)
    return noise_layer(
        dataset.num_classes,
        learn_from=round(config.learn_from * course.at(0).steps),
        learn_until=None if config.learn_until is None else round(config.learn_until * course.at(0).steps),
        penalty=config.penalty,
        strength=config.strength,
        gradient_limit=config.gradient_limit,
        multi_label=dataset.multi_label,
    )


RECIPE = Recipe(make_method, fill=fill_alpha)

if __name__ == "__main__":
    sys.exit(main(NoiseLayerConfig, RECIPE, __doc__))
