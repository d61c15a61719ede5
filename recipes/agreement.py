"""Agreement: a network learns from those labels that linear models in folds, new to them, would have given as well.

  python recipes/agreement.py --dataset=digits --noise=symmetric:0.4   # half a minute, test accuracy 94.4 %
The idea is CUFIT's, whose linear probe sits on a pretrained network: on its features, this is that. Its twin for
comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax
import numpy as np

from nlx import Stage, Trainer, clean
from nlx.data import Dataset
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_arrays
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.plain import cross_entropy, plain


@dataclass(frozen=True)
class AgreementOptions(RecipeOptions):
    """Options of agreement, after those of every recipe."""

    folds: int = 5
    """Linear models, each of which is asked about the part of the examples that it has not learnt from."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[2, 100]", "folds")
        where = "in agreement, which learns from noisy labels alone"
        refuse_idle(self, where, "clean_fraction", "known_outliers")


def agreed(options: AgreementOptions, data: Dataset) -> np.ndarray:
    """Training examples whose label is what a linear model holds for likeliest that has not seen it, rows ``[m]``."""
    inputs, given = data.train.inputs, data.train.observed
    table = clean(inputs, given, class_names=data.class_names, folds=options.folds, seed=options.seed)
    return np.flatnonzero(table.extras["out_of_fold"].argmax(axis=1) == given)


def train(options: AgreementOptions, run: Run) -> Result:
    """Data, the labels to learn from, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_arrays(data, "agreement")
    model, method = build_model(options, training, data), plain(cross_entropy, "agreement")
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data)
    run.begin("linear models in folds")
    rows = agreed(options, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training), rows=rows)
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data, facts={"agreed": len(rows)})


if __name__ == "__main__":
    sys.exit(main(AgreementOptions, train))
