"""ICNM: separate what is seen from what is reported, both from the image (Misra et al.).

  python recipes/icnm.py --dataset=web   # web/sample, 1 minute on two cores: test mAP 82.4 %

Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax

from nlx import Stage, Trainer
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.icnm import icnm


@dataclass(frozen=True)
class ICNMOptions(RecipeOptions):
    """Options of ICNM, after those of every recipe."""

    start: float = 2.0
    """Log-odds of a class being reported as it is seen, at the start, above 0 (the paper gives none)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "(0, inf)", "start")
        refuse_idle(self, "in ICNM, which learns from noisy labels alone", "clean_fraction", "known_outliers")


def train(options: ICNMOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    model = build_model(options, training, data)
    method = icnm(start=options.start)
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(ICNMOptions, train))
