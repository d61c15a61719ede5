"""ICNM: separate what is seen from what is reported, both from the image (Misra et al.).

  python recipes/icnm.py --dataset=web

Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.options import RunConfig, build_model, check_range
from nlx.experiment.recipe import Recipe
from nlx.methods.icnm import icnm
from nlx.methods.method import Method
from nlx.training.stages import Course


@dataclass(frozen=True)
class ICNMConfig(RunConfig):
    """Options of ICNM, after those of every recipe."""

    start: float = 2.0
    """Log-odds of a class being reported as it is seen, at the start, above 0 (the paper gives none)."""

    def check(self) -> None:
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "(0, inf)", "start")


def make_method(config: ICNMConfig, dataset: Dataset, course: Course) -> Method:
    """ICNM as configured."""
    del course
    return icnm(dataset.num_classes, build_model(config, dataset).num_features, start=config.start)


RECIPE = Recipe(make_method)

if __name__ == "__main__":
    sys.exit(main(ICNMConfig, RECIPE, __doc__))
