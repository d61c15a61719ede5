"""Trusted examples shown more often, so that they count beside many noisy ones."""

from __future__ import annotations

import numpy as np

from nlx.data.dataset import DataError


def with_upsampled(trusted: np.ndarray, seed: int) -> np.ndarray:
    """Rows of the noisy examples, and of the trusted ones upsampled to half their number.

    Args:
      trusted: examples whose true label is trusted, bool ``[n]``.
      seed: decides which trusted examples come once more than others.

    Returns:
      Rows, int; trusted ones never come fewer times than once.

    Raises:
      DataError: trusted is not bool ``[n]``, no example is trusted, or all are.

    Examples:
      >>> with_upsampled(np.array([True] + [False] * 6), 0)
      array([1, 2, 3, 4, 5, 6, 0, 0, 0])

    References:
      Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015, section 4.
    """
    trusted = np.asarray(trusted)
    if trusted.dtype != bool or trusted.ndim != 1:
        raise DataError(f"`trusted` must be bool [n], got {trusted.dtype} {list(trusted.shape)}.")
    clean, noisy = np.flatnonzero(trusted), np.flatnonzero(~trusted)
    if len(clean) == 0 or len(noisy) == 0:
        raise DataError("there must be trusted and noisy examples: choose `clean_fraction` between 0 and 1.")
    wanted = max(len(clean), len(noisy) // 2)
    return np.concatenate([noisy, np.resize(np.random.default_rng(seed).permutation(clean), wanted)])
