"""Noise specifications such as ``shuffle:0.4``: read from text, applied to clean labels."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from nlx import corruption
from nlx.data.dataset import DataError

NOISE_KINDS = ("none", "uniform", "shuffle")


class NoiseSpec(NamedTuple):
    """A kind of synthetic label noise and how much of it.

    Attributes:
      kind: one of ``NOISE_KINDS``.
      rate: probability that an example is touched, in [0, 1].
    """

    kind: str
    rate: float

    def __str__(self) -> str:
        """The text that ``parse_noise`` reads back."""
        return self.kind if self.kind == "none" else f"{self.kind}:{self.rate:g}"


def parse_noise(text: str) -> NoiseSpec:
    """Read a noise specification.

    Args:
      text: ``none``, ``uniform:RATE`` (replaced by another class) or ``shuffle:RATE`` (the paper's vector shuffle).

    Returns:
      The kind and the rate.

    Raises:
      DataError: unknown kind, or a rate that is missing, not a number or outside [0, 1].

    Examples:
      >>> parse_noise("uniform:0.4")
      NoiseSpec(kind='uniform', rate=0.4)
    """
    kind, colon, rate_text = text.strip().partition(":")
    if kind not in NOISE_KINDS:
        raise DataError(f"unknown noise {kind!r} in {text!r}: choose one of {', '.join(NOISE_KINDS)}.")
    if kind == "none":
        if colon:
            raise DataError(f"noise {text!r} has a rate, but 'none' takes none: write 'none'.")
        return NoiseSpec("none", 0.0)
    try:
        rate = float(rate_text)
    except ValueError:
        raise DataError(f"noise {text!r} has no rate: write it as '{kind}:0.4'.") from None
    if not 0.0 <= rate <= 1.0:
        raise DataError(f"noise {text!r} has rate {rate_text}: a rate must lie between 0 and 1.")
    return NoiseSpec(kind, rate)


def add_noise(noise: NoiseSpec, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """Noisy labels, the same for the same seed.

    Args:
      noise: which noise.
      labels: clean classes, int32 ``[n]``.
      num_classes: K.
      seed: seed of the noise alone.

    Returns:
      Noisy classes, int32 ``[n]``, an array of its own.
    """
    key = jax.random.key(seed)
    if noise.kind == "uniform":
        return np.array(corruption.uniform_flips(key, labels, num_classes, noise.rate).labels)
    if noise.kind == "shuffle":
        return np.array(corruption.vector_shuffle(key, labels, noise.rate, num_classes).labels)
    return labels.copy()
