"""Multinomial logistic regression, its strength and length chosen on noisy labels that it has not seen (NI-ERM).

  python recipes/linear.py --dataset=digits --noise=symmetric:0.4   # half a minute, test accuracy 91.9 %
Nothing here knows of noise: on good features this is the row that everything else has to beat. Its twin with a network
is recipes/baseline.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import jax
import numpy as np

from nlx import Stage, Trainer
from nlx.cleaning.folds import out_of_fold
from nlx.data import Dataset
from nlx.experiment.defaults import Training, build_model, build_optimizer, build_schedule, require_arrays
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.plain import cross_entropy, plain

STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # of the penalty
SHARES = (0.1, 0.3, 1.0)  # of the epochs: to stop early is a penalty as well


@dataclass(frozen=True)
class LinearOptions(RecipeOptions):
    """Options of logistic regression, after those of every recipe; WEIGHT_DECAY alone is tried where it is given."""

    folds: int = 5
    """Parts of the noisy labels, each predicted by a model of the others, by which strength and length are chosen."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[2, 100]", "folds")
        refuse_idle(self, "in logistic regression", "model", "widths", "dropout", "augmentation", "init", "remat")
        refuse_idle(self, "in logistic regression", "ghost_batch", "clean_fraction", "known_outliers")


def tried(options: LinearOptions, training: Training) -> Iterator[Training]:
    """Trainings of every strength and length."""
    strengths = STRENGTHS if options.weight_decay is None else (options.weight_decay,)
    lengths = dict.fromkeys(max(1, round(share * training.epochs)) for share in SHARES)
    for decay, epochs in product(strengths, lengths):
        yield replace(training, weight_decay=decay, epochs=epochs)


def linear(options: LinearOptions, training: Training, data: Dataset) -> tuple[LinearOptions, Training]:
    """The same options and training for a network without hidden layers."""
    require_arrays(data, "logistic regression")
    return replace(options, model="mlp", widths=()), replace(training, model="mlp", dropout=0.0, augmentation="none")


def train(options: LinearOptions, run: Run) -> Result:
    """Data, model, method; the training that predicts held-out labels best; then fit, and write what the run leaves."""
    data, training = run.load()
    options, training = linear(options, training, data)
    model, method = build_model(options, training, data), plain(cross_entropy, "linear")
    tried_by_folds = {"weight_decay": options.weight_decay, "epochs": options.epochs}
    observers = run.observers(method, data, model="mlp", widths=(), dropout=0.0, augmentation="none", **tried_by_folds)
    schedule, size, key = build_schedule(options, training), training.batch_size, jax.random.key(options.seed)

    def hits(training: Training) -> float:
        """Share of the noisy labels that models predict which have not seen them."""
        run.begin(f"{options.folds} folds, penalty {training.weight_decay:g}, {training.epochs} epochs")
        trainer = Trainer(model, method, build_optimizer(options, training), batch_size=size)
        stage = Stage(training.epochs, schedule=schedule)
        probs = out_of_fold(trainer, data.train, key, folds=options.folds, stages=stage).probs
        return float(np.mean(probs.argmax(axis=1) == data.train.observed))

    best = max(tried(options, training), key=hits)
    trainer = Trainer(model, method, build_optimizer(options, best), batch_size=size, observers=observers)
    stage = Stage(best.epochs, schedule=schedule)
    fitted = trainer.fit(data.train, key, stage, state=run.restored(trainer, data, stage))
    chosen = {"epochs": best.epochs, "weight_decay": best.weight_decay}
    return run.export(trainer, fitted, data, facts={"model": "linear", **chosen})


if __name__ == "__main__":
    sys.exit(main(LinearOptions, train))
