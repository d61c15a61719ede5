"""Draws as rows of matrix products, laid out as the device's products want them.

A GPU's products are faster on rows of a multiple of 16 bytes, and left to itself XLA has them take in biases that are
written out for every row, and keeps draws in the float32 that they come from.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from nlx import target


def alignment() -> int:
    """Of how many numbers, of two bytes each, rows should be a multiple."""
    return 8 if target.platform() == "gpu" else 1


def filled(x: Array, aligned: int) -> Array:
    """With zeros up to a multiple of so many along the last axis."""
    more = -x.shape[-1] % aligned
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]) if more else x


def stored(x: Array, aligned: int) -> Array:
    """The same; where rows are aligned, written to memory and not merged with what comes before or after."""
    return jax.lax.optimization_barrier(x) if aligned > 1 else x


def times(bits: Array, matrix: Array, aligned: int) -> Array:
    """Rows of all examples in one product: ``[B, rows, n]`` and ``[n, m]`` -> float32 ``[B, rows, m]``."""
    # Without preferred_element_type XLA's CPU backend converts bfloat16 operands to float32 first.
    rows = bits.reshape(bits.shape[0] * bits.shape[1], bits.shape[-1])
    product = jax.lax.dot(rows, matrix, preferred_element_type=jnp.float32)
    return stored(product.reshape(*bits.shape[:2], matrix.shape[-1]), aligned)
