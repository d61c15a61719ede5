"""Distillation in folds: networks judge labels that they have not seen, and learn from beliefs instead of labels.

  python recipes/distill.py --dataset=digits --noise=symmetric:0.4   # half a minute, test accuracy 95.3 %
Linear models in folds, neighbours and Bayes' rule say how likely each class is (`nlx.clean`). Networks in folds learn
that, and judge the examples that they are new to; Bayes' rule makes of it what labels are cleaned with and what the
network that is kept learns. No noise rate is asked for; trusted labels count where there are some. docs/distill.md has
what each step is worth. Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from nlx import Stage, Trainer
from nlx.cleaning.evidence import weigh
from nlx.cleaning.folds import out_of_fold
from nlx.cleaning.table import with_trusted
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_arrays
from nlx.experiment.first_answer import first_answer
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.distill import distill
from nlx.training.observers import Observer


@dataclass(frozen=True)
class DistillOptions(RecipeOptions):
    """Options of distillation in folds, after those of every recipe."""

    folds: int = 5
    """Networks, each of which judges the part of the examples that it has not learnt from."""
    rounds: int = 1
    """How often networks in folds are taught, each time by the round before. 0: linear models and neighbours alone say
    what the network that is kept learns."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[2, 100]", "folds")
        require(self, "[0, 10]", "rounds")
        refuse_idle(self, "in distillation, which takes no outliers", "known_outliers")


def train(options: DistillOptions, run: Run) -> Result:
    """Data, first beliefs, model, optimizer, better beliefs; then fit to them, and write what the run leaves."""
    data, training = run.load()
    require_arrays(data, "distillation")
    model = build_model(options, training, data)
    optimizer = build_optimizer(options, training)
    run.begin("linear models in folds")
    first = first_answer(data, folds=options.folds, seed=options.seed).posterior[:]
    beliefs = with_trusted(first, data.train)
    observers = run.observers(distill(beliefs), data)
    stage, key = Stage(training.epochs, schedule=build_schedule(options, training)), jax.random.key(options.seed)

    def taught_by(beliefs: np.ndarray, observers: Sequence[Observer] = ()) -> Trainer:
        return Trainer(model, distill(beliefs), optimizer, batch_size=training.batch_size, observers=observers)

    for number in range(options.rounds):
        run.begin(f"networks in {options.folds} folds, round {number + 1} of {options.rounds}")
        students = out_of_fold(
            taught_by(beliefs), data.train, jax.random.fold_in(key, number), folds=options.folds, stages=stage
        )
        weighed = weigh(students.probs, data.train.observed, data.train.trusted_label)
        beliefs = with_trusted(weighed.posterior, data.train)
    trainer = taught_by(beliefs, observers)
    fitted = trainer.fit(data.train, key, stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(DistillOptions, train))
