"""What the pure functions ask of their arguments, told as errors of Python's own also while tracing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class ArgumentError(ValueError):
    """An argument that the caller has to change; the message is one sentence that names the fix.

    Arguments stand in backticks, for a command line to show them as its options.
    """


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


def class_vector(x: ArrayLike, name: str) -> Array:
    """A vector of integers."""
    x = integers(x, name)
    if x.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {x.shape}")
    return x


def typed_key(key: Array, name: str = "key") -> Array:
    """A key that jax.random.key made, not one of the old kind, and not what was given in a key's place."""
    if not isinstance(key, Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name} must be a typed PRNG key: make one with jax.random.key(seed)")
    return key


def same_shape(name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> None:
    """Both shapes are one."""
    if shape != other_shape:
        raise ValueError(f"{name} {shape} and {other} {other_shape} must have the same shape")
