"""Where examples come from: every source gives a :class:`Dataset` of a noisy training split and a clean test split."""

from nlx.data.dataset import DataError, Dataset, ImageFiles, Split
from nlx.data.loading import load

__all__ = ["DataError", "Dataset", "ImageFiles", "Split", "load"]
