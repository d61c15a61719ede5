"""ELR: early-learning regularization, against memorizing wrong labels (Liu et al.).

  python recipes/elr.py --dataset=digits --noise=symmetric:0.4   # seconds, accuracy 96.7 %
Its twin for comparison is recipes/baseline.py with the same options.
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
from nlx.methods.elr import elr


@dataclass(frozen=True)
class ELROptions(RecipeOptions):
    """Options of ELR, after those of every recipe."""

    strength: float = 3.0
    """lambda, weight of the regularizer, at least 0 (paper 3 on CIFAR-10, 7 on CIFAR-100)."""
    target_momentum: float = 0.7
    """beta, of the running mean of an example's predictions, in [0, 1) (paper 0.7 on CIFAR-10, 0.9 on CIFAR-100)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, inf)", "strength")
        require(self, "[0, 1)", "target_momentum")
        refuse_idle(self, "in ELR, which learns from noisy labels alone", "clean_fraction", "known_outliers")


def train(options: ELROptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_one_label(data, "ELR is")
    model = build_model(options, training, data)
    method = elr(strength=options.strength, momentum=options.target_momentum)
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(ELROptions, train))
