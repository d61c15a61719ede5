"""Synthetic label noise: pure functions from a key and clean labels to noisy labels and the mask of what was touched.

Labels are class numbers, int ``[n]``, or {0, 1} label vectors, ``[n, K]``; what is neither stays as it is. Nothing here
knows of data sets or files, and everything runs under ``jax.jit`` and ``jax.vmap``.
"""

from nlx.corruption.classes import flips, outliers, uniform_flips
from nlx.corruption.corrupted import Corrupted
from nlx.corruption.instance import instance_dependent
from nlx.corruption.vectors import CorruptedTags, tag_noise, vector_shuffle

__all__ = [
    "Corrupted",
    "CorruptedTags",
    "flips",
    "instance_dependent",
    "outliers",
    "tag_noise",
    "uniform_flips",
    "vector_shuffle",
]
