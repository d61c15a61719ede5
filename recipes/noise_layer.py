"""The noise layer: learn how labels go wrong together with the classifier (Sukhbaatar et al.).

  python recipes/noise_layer.py --dataset=digits --noise=symmetric:0.4   # seconds on two cores, test accuracy 79.7 %
  python recipes/noise_layer.py --dataset=fashion_mnist --noise=pair:0.4 --layer=given --transition=true
  python recipes/noise_layer.py --dataset=fashion_mnist --noise=outlier:0.5 --layer=outliers --known_outliers=0.1

Its twins for comparison are recipes/baseline.py --loss=cross_entropy and --loss=forward with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import jax
import optax

from nlx import Stage, Trainer
from nlx.arguments import ArgumentError
from nlx.data import Dataset
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.experiment.transition_source import read_transition
from nlx.methods.method import Method
from nlx.methods.noise_layer import Penalty, forward, noise_layer, outliers


@dataclass(frozen=True)
class NoiseLayerOptions(RecipeOptions):
    """Options of the noise layer, after those of every recipe."""

    layer: Literal["learned", "given", "outliers"] = "learned"
    """learned: T starts as the identity and is learned. given: T as --transition says. outliers: one more class, for
    examples that are of none of the others."""
    learn_from: float | None = None
    """Epochs after which T is learned (paper: 5 on SVHN, 30 on CIFAR-10). Default: 1, or 32 steps where these are more,
    lest T give up a rare class that the network has not met yet. A network that has begun to memorize wrong
    labels by then keeps T at the identity, which explains them."""
    learn_until: float | None = None
    """Epochs after which T is held. Default: the end of the run (paper)."""
    penalty: Penalty = "decay"
    """What pushes T from the identity: decay, half the sum of its squares (paper's experiments), trace (paper's
    theory), or volume, the logarithm of its determinant (VolMinNet)."""
    strength: float | None = None
    """Weight of the penalty, at least 0. Default: 0.1 (paper; milder 0.02), of volume 0.0001, of one label beyond
    100 classes less, of several labels 0.02 of decay; 0 where T is revised."""
    transition_rate: float | None = None
    """Learning rate of T, by projected gradient descent of its own, whatever trains the backbone (paper: its). Default:
    0.2, and less beyond 10 classes, by the root of their number."""
    gradient_limit: float | None = 1.0
    """Cut the rows of T's gradient to this length, so that a label that seemed impossible does not throw a row over;
    None for no limit (paper)."""
    transition: str | None = None
    """A given T, or the start of a learned one, to be revised (default: the identity): true (from all true labels, an
    oracle), trusted (those that --clean_fraction reveals), held_out (by linear models that have not seen an example's
    label), anchors:LABELS or confident:LABELS (labels.parquet of a plain run on the same data), or an .npy file."""
    alpha: float | None = None
    """For outliers: estimated share of them that are known to be outliers. Default: --known_outliers."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, inf)", "learn_from", "learn_until", "strength")
        require(self, "(0, inf)", "gradient_limit", "transition_rate")
        require(self, "(0, 1]", "alpha")
        if self.layer == "outliers" and not self.known_outliers:
            raise ArgumentError("`layer`=outliers learns from a few known ones; add `known_outliers`=0.1, say")
        where = f"with `layer`={self.layer}"
        if self.layer != "learned":
            refuse_idle(self, where, "learn_from", "learn_until", "penalty", "strength")
            refuse_idle(self, where, "gradient_limit", "transition_rate")
        if self.layer == "outliers":
            refuse_idle(self, where, "transition")
        else:
            refuse_idle(self, where, "alpha", "known_outliers", "method_rate")
        if self.transition != "trusted":
            refuse_idle(self, "without `transition`=trusted", "clean_fraction")


def layer(options: NoiseLayerOptions, data: Dataset, steps_per_epoch: int) -> Method:
    """The noise layer that the options say."""
    if data.multi_label and (options.layer != "learned" or options.transition is not None):
        raise ArgumentError(f"a given T or outliers are for one label per example, but {data.name} has several")
    if options.layer == "given":
        return forward(read_transition(options.transition, data))
    if options.layer == "outliers":
        return outliers(data.num_classes, options.known_outliers if options.alpha is None else options.alpha)
    until, default = options.learn_until, max(1, 32 / steps_per_epoch)
    return noise_layer(
        data.num_classes,
        learn_from=round((default if options.learn_from is None else options.learn_from) * steps_per_epoch),
        learn_until=None if until is None else round(until * steps_per_epoch),
        penalty=options.penalty,
        strength=options.strength,
        gradient_limit=options.gradient_limit,
        multi_label=data.multi_label,
        start=None if options.transition is None else read_transition(options.transition, data),
    )


def train(options: NoiseLayerOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    model = build_model(options, training, data)
    method = layer(options, data, len(data.train) // training.batch_size)
    rate = options.transition_rate or 0.2 * (1 if data.multi_label else min(1, (10 / data.num_classes) ** 0.5))
    # Momentum and weight decay would carry T past the simplex, and on while it is held.
    optimizer = build_optimizer(options, training, optax.sgd(rate) if options.layer == "learned" else None)
    observers = run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(NoiseLayerOptions, train))
