"""What every loss asks of its arguments, told as errors of Python's own also while tracing."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def masked(values: Array, where: ArrayLike | None) -> Array:
    """Values where they count, 0 elsewhere."""
    return values if where is None else jnp.where(where, values, jnp.zeros((), values.dtype))


def floating(x: ArrayLike, name: str) -> Array:
    """An array of floats."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {x.dtype}")
    return x


def integers(x: ArrayLike, name: str) -> Array:
    """An array of integers."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    return x


def same_shape(name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> None:
    """Both shapes are one."""
    if shape != other_shape:
        raise ValueError(f"{name} {shape} and {other} {other_shape} must have the same shape")
