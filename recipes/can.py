"""CAN: learn a latent true label and the quality of every annotation (Yao et al., Quality Embedding).

  python recipes/can.py --dataset=web
  python recipes/can.py --dataset=digits --noise=shuffle:0.4 --seeds=5
  python recipes/can.py --dataset=npz:my_arrays.npz --labels=worst

Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.export import Cleaned
from nlx.experiment.options import ConfigError, RunConfig, check_range
from nlx.experiment.recipe import Recipe
from nlx.methods.can import Heads, can, paper_schedule
from nlx.methods.method import Method
from nlx.report.quality import quality_pictures
from nlx.training.stages import Course


@dataclass(frozen=True)
class CANConfig(RunConfig):
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
    encoder_width: int = 64
    """Units of the contrastive and additive layers (the paper gives none)."""
    decoder_width: int = 64
    """Units of the decoder's two hidden layers (the paper gives none)."""
    start: Literal["identity", "random"] = "identity"
    """Start of the noise network: identity starts q near label plus prediction; random is the paper's silence taken at
    its word."""
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
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "[0, inf)", "regularizer", "tau_rate", "rho_rate", "prediction_weight")
        check_range(self, "[1, inf)", "samples", "quality_dim", "encoder_width", "decoder_width")
        check_range(self, "(-inf, inf)", "log_variance_floor")
        check_range(self, "[0, 1]", "rho_floor")
        check_range(self, "(0, inf)", "tau_floor")


def make_method(config: CANConfig, dataset: Dataset, course: Course) -> Method:
    """CAN as configured, for a run over ``course``."""
    try:
        return can(
            dataset.num_classes,
            temperature=paper_schedule(course.total, config.tau_rate, config.tau_floor),
            rho=paper_schedule(course.total, config.rho_rate, config.rho_floor),
            regularizer=config.regularizer,
            samples=config.samples,
            heads=Heads(
                config.quality_dim,
                config.encoder_width,
                config.decoder_width,
                config.start,
                config.prediction_weight,
                config.log_variance_floor,
            ),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def make_pictures(cleaned: Cleaned) -> list[Path]:
    """The quality embedding (Fig. 7) and the transitions of both groups (Fig. 9)."""
    return quality_pictures(
        cleaned.folder,
        quality_mean=cleaned.table.extras["quality_mean"],
        prediction=cleaned.table.extras["classifier"],
        latent=cleaned.table.posterior,
        noisy_label=cleaned.table.noisy_label,
        class_names=cleaned.dataset.class_names,
        seed=cleaned.seed,
    )


RECIPE = Recipe(make_method, make_pictures)

if __name__ == "__main__":
    sys.exit(main(CANConfig, RECIPE, __doc__))
