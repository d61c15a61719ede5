"""Training with one loss: the baselines that every system is compared with.

  python recipes/baseline.py --loss=cross_entropy --dataset=web   # web/sample, 1 minute on two cores: test mAP 89.2 %
  python recipes/baseline.py --loss=generalized_ce --dataset=digits --noise=symmetric:0.4   # seconds, accuracy 94.7 %

A matrix from another run is given as --transition=anchors:RUN/labels.parquet.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax

from nlx import Stage, Trainer
from nlx.arguments import ArgumentError
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule
from nlx.experiment.loss_options import LossOptions, by_loss, numbers
from nlx.experiment.main import main
from nlx.experiment.run import Result, Run
from nlx.methods.dynamics import with_dynamics


@dataclass(frozen=True)
class BaselineOptions(LossOptions):
    """Options of the baselines, after those of every recipe."""


def train(options: BaselineOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    if options.loss == "clean":
        if not data.train.known.all():
            raise ArgumentError(f"`loss`=clean needs all true labels, {data.name} has not; take another loss")
        data = data.trust(1.0, 0)
    model = build_model(options, training, data)
    method = by_loss(options, data)
    method = method if data.multi_label or options.mix != "none" else with_dynamics(method)
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data, **numbers(options, data.num_classes))
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(BaselineOptions, train))
