"""Joint optimization: labels become what the network has said of them, and are learnt in their turn (Tanaka et al.).

  python recipes/joint_optimization.py --dataset=digits --noise=symmetric:0.4   # seconds, test accuracy 86.6 %
The paper trains a second network on the labels that come of it; this is its first training. Its twin for comparison is
recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax
import numpy as np

from nlx import Stage, Trainer
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_one_label
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.joint_optimization import joint_optimization


@dataclass(frozen=True)
class JointOptimizationOptions(RecipeOptions):
    """Options of joint optimization, after those of every recipe."""

    start_share: float = 0.35
    """Share of the steps after which labels are predictions, in [0, 1] (paper: 70 of 200 epochs)."""
    alpha: float = 1.2
    """Weight of the prior of the classes, which are as frequent as among the given labels, at least 0 (paper 1.2; 0.4
    with asymmetric noise)."""
    beta: float = 0.8
    """Weight of the predictions' entropy, at least 0 (paper 0.8; 0.1 with asymmetric noise)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, 1]", "start_share")
        require(self, "[0, inf)", "alpha", "beta")
        where = "in joint optimization, which learns from noisy labels alone"
        refuse_idle(self, where, "clean_fraction", "known_outliers")


def train(options: JointOptimizationOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_one_label(data, "joint optimization is")
    model = build_model(options, training, data)
    steps = training.epochs * (len(data.train) // training.batch_size)
    prior = np.bincount(data.train.observed, minlength=data.num_classes) / len(data.train)
    method = joint_optimization(
        start=round(options.start_share * steps), prior=prior, alpha=options.alpha, beta=options.beta
    )
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(JointOptimizationOptions, train))
