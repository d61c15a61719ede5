"""CAN: learn a latent true label and the quality of every annotation (Yao et al., Quality Embedding).

  python recipes/can.py --dataset=web                              # web/sample, 1 minute on two cores: test mAP 93.1 %
  python recipes/can.py --dataset=digits --noise=shuffle:0.4       # seconds on two cores: test accuracy 94.7 %
  python recipes/can.py --dataset=npz:my_arrays.npz --labels=worst

Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import jax

from nlx import Stage, Trainer
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.can import Heads, can, paper_schedule
from nlx.report.quality import quality_pictures


@dataclass(frozen=True)
class CANOptions(RecipeOptions):
    """Options of CAN, after those of every recipe."""

    method_rate: float = 0.04
    """Learning rate of the noise network, as a multiple of the backbone's (paper 1): slower, it cannot learn to copy
    the noisy label before the classifier has learnt to contradict it."""
    regularizer: float = 0.3
    """lambda, weight of the mutual-information regularizer, at least 0 (paper 0.3; sound from 0 to 1)."""
    samples: int = 1
    """N, samples of label and quality per example (paper 1)."""
    quality_dim: int = 8
    """D, dimensions of the quality embedding (the paper gives none)."""
    encoder_width: int | None = None
    """Units of the contrastive and additive layers (the paper gives none). Default: 64, or 2K if that is more."""
    decoder_width: int | None = None
    """Units of the decoder's two hidden layers (the paper gives none). Default: 64, or 2K if that is more."""
    start: Literal["identity", "random"] = "identity"
    """Initial noise network: identity lets q start near label plus prediction; random is like any other layer, as the
    paper names no initialization."""
    prediction_weight: float = 4.0
    """How often the prediction counts against the noisy label in the identity start."""
    log_variance_floor: float = -8.0
    """Lowest log variance of the quality (needed for lambda > 1)."""
    tau_rate: float | None = None
    """Temperature's fall per step, exp(-rate step) (paper 3e-5 on 176,105 steps). Default: that curve over this run."""
    tau_floor: float = 0.5
    """Lowest temperature (paper 0.5)."""
    rho_rate: float | None = None
    """Fall per step of rho, the share of plain cross-entropy in the classifier's gradient (paper 3e-5 on 176,105
    steps). Default: that curve over this run."""
    rho_floor: float = 0.0
    """Lowest rho (paper 0.5, on runs 20 to 100 times longer; at 0.5 the classifier goes on memorizing wrong labels)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, inf)", "regularizer", "tau_rate", "rho_rate", "prediction_weight")
        require(self, "[1, 10000]", "samples")
        require(self, "[1, inf)", "quality_dim", "encoder_width", "decoder_width")
        require(self, "(-inf, inf)", "log_variance_floor")
        require(self, "[0, 1]", "rho_floor")
        require(self, "(0, inf)", "tau_floor")
        if self.start == "random":
            refuse_idle(self, "with `start`=random", "prediction_weight")
        refuse_idle(self, "in CAN, which learns from noisy labels alone", "clean_fraction", "known_outliers")


def train(options: CANOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    model = build_model(options, training, data)
    steps = training.epochs * (len(data.train) // training.batch_size)
    method = can(
        data.num_classes,
        temperature=paper_schedule(steps, options.tau_rate, options.tau_floor),
        rho=paper_schedule(steps, options.rho_rate, options.rho_floor),
        regularizer=options.regularizer,
        samples=options.samples,
        heads=Heads(
            options.quality_dim,
            options.encoder_width,
            options.decoder_width,
            options.start,
            options.prediction_weight,
            options.log_variance_floor,
        ),
    )
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data, pictures=[quality_pictures])


if __name__ == "__main__":
    sys.exit(main(CANOptions, train))
