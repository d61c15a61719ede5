"""A table at full size, and what makes its rows: each a recipe with the options that its paper has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.protocols.runner import Entry
from recipes import baseline, can, clean_net, crf, noise_layer, noise_types, self_learning


class Full(NamedTuple):
    """A table.

    Attributes:
      rows: what to run, by name; files of weights and of arrays are named without their folder.
      paper: its figures by row, percent.
      measure: the score that they are of.
      remark: what differs from the paper or is chosen here.
      beside: the paper's figures by other scores, each by row.
    """

    rows: dict[str, Entry]
    paper: dict[str, float]
    measure: str = "test_accuracy"
    remark: str = ""
    beside: Mapping[str, dict[str, float]] = MappingProxyType({})


def of_baseline(loss: Any = "cross_entropy", **options: Any) -> Entry:
    """A row of the baselines."""
    return Entry(baseline.BaselineOptions(loss=loss, **options), baseline.train)


def of_layer(layer: Any = "learned", **options: Any) -> Entry:
    """A row of the noise layer."""
    return Entry(noise_layer.NoiseLayerOptions(layer=layer, **options), noise_layer.train)


def of_can(**options: Any) -> Entry:
    """A row of CAN by the paper's schedules and rates."""
    paper = {"method_rate": 1.0, "tau_rate": 3e-5, "rho_rate": 3e-5, "rho_floor": 0.5}
    return Entry(can.CANOptions(**{**paper, **options}), can.train)


def of_self(**options: Any) -> Entry:
    """A row of self-learning without its recipe's precautions."""
    return Entry(
        self_learning.SelfLearningOptions(
            center=False, typical_only=False, keep_good=False, clean_with="prototypes", **options
        ),
        self_learning.train,
    )


def of_types(strategy: Any, **options: Any) -> Entry:
    """A row of noise types."""
    return Entry(noise_types.NoiseTypesOptions(strategy=strategy, **options), noise_types.train)


def of_crf(**options: Any) -> Entry:
    """A row of the CRF."""
    return Entry(crf.CRFOptions(**options), crf.train)


def of_clean_net(**options: Any) -> Entry:
    """A row of CleanNet."""
    return Entry(clean_net.CleanNetOptions(**options), clean_net.train)
