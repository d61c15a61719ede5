"""Batch normalization that computes in float32 whatever the dtype around it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """Batch normalization in float32, returned in the dtype of its input.

    Args:
      features: number of channels.
      zero: start with scale 0 instead of 1, for the last one of a residual block.
      rngs: where the initial weights come from.
    """

    def __init__(self, features: int, *, zero: bool = False, rngs: nnx.Rngs):
        scale_init = nnx.initializers.zeros_init() if zero else nnx.initializers.ones_init()
        super().__init__(features, momentum=0.9, scale_init=scale_init, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """Normalize over all axes but the last."""
        return super().__call__(x.astype(jnp.float32), *args, **kwargs).astype(x.dtype)
