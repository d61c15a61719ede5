"""How many examples the authors of a data set hand out, to tell where some are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from nlx.data.dataset import Dataset


class Counts(NamedTuple):
    """Of one data set.

    Attributes:
      classes: how many there are.
      train: examples to train on.
      test: examples to test on; 0 where its authors have none of their own.
      by_labels: examples to train on, by labels of which there are more or fewer.
    """

    classes: int
    train: int
    test: int
    by_labels: Mapping[str, int] = MappingProxyType({})

    def of(self, labels: str | None) -> int:
        """Examples to train on by one of its labels, or by the default ones."""
        return self.by_labels.get(labels or "", self.train)


_CLOTHES = {"verified": 1_024_637, "clean": 1_047_570, "scored": 1_024_637}
COUNTS: dict[str, Counts] = {
    "mnist": Counts(10, 60_000, 10_000),
    "fashion_mnist": Counts(10, 60_000, 10_000),
    "cifar10": Counts(10, 50_000, 10_000),
    "cifar10n": Counts(10, 50_000, 10_000),
    "cifar100": Counts(100, 50_000, 10_000),
    "cifar100n": Counts(100, 50_000, 10_000),
    "imagenet": Counts(1_000, 1_281_167, 50_000),
    "clothing1m": Counts(14, 1_000_000, 10_526, _CLOTHES),
    "food101n": Counts(101, 310_009, 25_250),
    "webvision": Counts(1_000, 2_439_574, 50_000),
    "webvision_mini": Counts(50, 65_944, 2_500),
    "animal10n": Counts(10, 50_000, 5_000),
    "voc2007": Counts(20, 5_011, 4_952),
    "voc2012": Counts(20, 5_717, 5_823),
    "svhn": Counts(10, 73_257, 26_032),
    "svhn_extra": Counts(10, 604_388, 26_032),
    "coco_captions": Counts(73, 82_783, 20_252),
    "coco_tags": Counts(73, 82_783, 20_252),
    "web": Counts(20, 97_836, 0),
    "npz:amt.npz": Counts(4, 7_354, 0),
}
"""By the names that ``--dataset`` takes; docs/data.md has the same table."""


def told(data: Dataset, name: str, labels: str | None) -> Dataset:
    """A data set as it was read, with a note where it is not all there.

    Args:
      data: the data set.
      name: what it was asked for by; one that is not in :data:`COUNTS` gets no note, and no embedded sample does.
      labels: which of its labels.
    """
    if name not in COUNTS or data.name.endswith("/sample"):  # a small set of its own
        return data
    about = COUNTS[name]
    whole, there = (about.of(labels), about.test), (len(data.train), len(data.test or ()))
    if there[: 1 + (about.test > 0)] == whole[: 1 + (about.test > 0)]:
        return data
    note = "{} has {:,} examples to train on and {:,} to test on here, where its authors have {:,} and {:,}"
    return replace(data, notes=(*data.notes, note.format(name, *there, *whole)))
