"""Plain training on the noisy labels, the twin that every system is compared with.

python recipes/baseline.py --loss=cross_entropy --dataset=web
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from nlx.data import Dataset
from nlx.data.course import Course
from nlx.methods.method import Method
from nlx.methods.plain import LossName, plain
from nlx.training.cli import main
from nlx.training.config import RunConfig
from nlx.training.run import Recipe


@dataclass(frozen=True)
class BaselineConfig(RunConfig):
    """Options of plain training, after those of every recipe."""

    loss: LossName = "cross_entropy"
    """cross_entropy: softmax for single-label data, one sigmoid per class for multi-label data (paper).
    binary_cross_entropy: one sigmoid per class on both, CAN's own output layer."""


def make_method(config: BaselineConfig, dataset: Dataset, course: Course) -> Method:
    """Plain training as configured."""
    del dataset, course
    return plain(config.loss)


RECIPE = Recipe(make_method)

if __name__ == "__main__":
    sys.exit(main(BaselineConfig, RECIPE, __doc__))
