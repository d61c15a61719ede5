"""What every kind of noise returns, and what all of them check and draw in the same way."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import class_vector


class Corrupted(NamedTuple):
    """Noisy labels and which examples the noise touched.

    Attributes:
      labels: noisy labels, same shape and dtype as the clean ones.
      mask: examples that were touched, bool ``[n]``; by luck some of them may keep their label where a kind of noise
        allows it.
    """

    labels: Array
    mask: Array


def touched(key: Array, shape: tuple[int, ...], rate: ArrayLike, name: str = "rate") -> Array:
    """True with probability ``rate``, bool of the given shape."""
    check_rate(rate, name)
    # float32 whatever the precision flags say, so that a key gives the same noise everywhere.
    return jax.random.uniform(key, shape, dtype=jnp.float32) < jnp.asarray(rate, dtype=jnp.float32)


def redrawn(key: Array, labels: Array, rate: ArrayLike, num_classes: int) -> Corrupted:
    """Some classes drawn anew, uniformly over all of them."""
    touch_key, class_key = jax.random.split(key)
    mask = touched(touch_key, labels.shape, rate)
    drawn = jax.random.randint(class_key, labels.shape, 0, num_classes, dtype=jnp.int32).astype(labels.dtype)
    return Corrupted(jnp.where(mask, drawn, labels), mask)


def check_rate(rate: ArrayLike, name: str = "rate") -> None:
    """Refuse a probability that is known before tracing and lies outside [0, 1]."""
    if not isinstance(rate, jax.core.Tracer) and not 0.0 <= float(rate) <= 1.0:  # type: ignore[arg-type]
        raise ValueError(f"{name} must lie in [0, 1], got {rate}")


def check_classes(labels: ArrayLike, num_classes: int) -> None:
    """Refuse labels that are no class numbers ``[n]``."""
    class_vector(labels, "labels")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
