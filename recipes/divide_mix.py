"""DivideMix: labels of high loss are put aside, and two networks guess them for each other (Li et al.).

  python recipes/divide_mix.py --dataset=digits --noise=symmetric:0.4   # a minute, test accuracy 96.7 %
For pictures with random changes (--augmentation): of features, losses say too little. Its twin for comparison is
recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax

from nlx import Stage, Trainer
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_one_label
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.divide_mix import divide_mix
from nlx.models.mixed_pair import VIEWS, mixed_pair


@dataclass(frozen=True)
class DivideMixOptions(RecipeOptions):
    """Options of DivideMix, after those of every recipe."""

    warm_up: float = 0.1
    """Share of the epochs before labels are first divided, in (0, 1) (paper: 10 of 300 on CIFAR-10, 30 on
    CIFAR-100)."""
    unlabelled_weight: float = 0.0
    """lambda_u, weight of guessed labels, at least 0 (paper 0 where little is wrong, 25 to 150 for symmetric noise)."""
    temperature: float = 0.5
    """T of sharpening, above 0 (paper 0.5)."""
    threshold: float = 0.5
    """A label counts as right above this probability, in [0, 1] (paper 0.5; 0.6 for 90 % noise)."""
    pair_alpha: float = 4.0
    """Views are mixed by weights from Beta(PAIR_ALPHA, PAIR_ALPHA), above 0 (paper 4)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "(0, 1)", "warm_up")
        require(self, "[0, inf)", "unlabelled_weight")
        require(self, "(0, inf)", "temperature", "pair_alpha")
        require(self, "[0, 1]", "threshold")
        refuse_idle(self, "in DivideMix, which mixes by itself (--pair_alpha)", "mix")
        refuse_idle(self, "in DivideMix, which knows no outliers", "known_outliers")
        refuse_idle(self, "in DivideMix, whose batches are of views mixed over all devices", "ghost_batch")


def train(options: DivideMixOptions, run: Run) -> Result:
    """Data, two networks, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_one_label(data, "DivideMix is")
    model = build_model(
        options, training, data, around=lambda network: mixed_pair(network, options.pair_alpha), copies=VIEWS
    )
    warm_up, steps = max(1, round(options.warm_up * training.epochs)), len(data.train) // training.batch_size
    method = divide_mix(
        warm_up=warm_up,
        unlabelled_weight=options.unlabelled_weight,
        start=warm_up * steps,
        rise=max(1, training.epochs * steps // 20),  # 16 of 300 epochs
        temperature=options.temperature,
        threshold=options.threshold,
    )
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data, warm_up_epochs=warm_up)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(DivideMixOptions, train))
