"""Large arrays some rows at a time, so that what is made on the way stays small."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import numpy as np
from jax.typing import ArrayLike

from nlx.methods.top import MOST_GIB, Top, likeliest, worth_shortening

CELLS = 2**24
"""Numbers that are looked at at once."""


def row_blocks(n: int, width: int, cells: int = CELLS) -> list[slice]:
    """Slices of n rows of so many numbers, of about ``cells`` numbers each.

    Examples:
      >>> row_blocks(5, 4, cells=8)
      [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    rows = max(1, cells // max(1, width))
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]


def likeliest_of(blocks: Iterable[tuple[ArrayLike, ArrayLike]]) -> Top:
    """The likeliest classes of beliefs ``[B, K]`` with given labels ``[B]``, block by block."""
    parts = [jax.tree.map(np.asarray, _likeliest(probs, labels)) for probs, labels in blocks]
    top: Top = jax.tree.map(lambda *parts: np.concatenate(parts), *parts)
    return top


def too_many(n: int, num_classes: int) -> bool:
    """Whether the likeliest classes are kept of beliefs about so many examples of one label each, not all of them."""
    return worth_shortening(n, num_classes, MOST_GIB * 2**30)


def kept(probs: np.ndarray, labels: np.ndarray) -> np.ndarray | Top:
    """Beliefs ``[n, K]`` about examples with given labels ``[n]``, or the likeliest classes of them."""
    if not too_many(*probs.shape):
        return probs
    return likeliest_of((probs[rows], labels[rows]) for rows in row_blocks(*probs.shape))


_likeliest = jax.jit(likeliest)
