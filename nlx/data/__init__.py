"""Where examples come from: every source gives a :class:`Dataset` of a noisy training split and a clean test split.

Import what is named here, and batches, noise and preparation from their modules; ``sources`` has one file per place
that data come from. Imports primitives only.
"""

from nlx.data.checks import split_of
from nlx.data.dataset import DataError, Dataset, ImageFiles, Split
from nlx.data.loading import load
from nlx.data.upsampled import with_upsampled

__all__ = ["DataError", "Dataset", "ImageFiles", "Split", "load", "split_of", "with_upsampled"]
