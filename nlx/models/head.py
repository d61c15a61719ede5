"""The last layer that all models share, and the form of what they return."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.arguments import ArgumentError

Outputs = dict[str, jax.Array]


class Dropout(nnx.Module):
    """Dropout that takes its key at the call, so that no random state lives in the model.

    Args:
      rate: probability that a value becomes 0 while training, in [0, 1).
    """

    def __init__(self, rate: float):
        if not 0.0 <= rate < 1.0:
            raise ArgumentError(f"`dropout` must lie in [0, 1), got {rate}")
        self.rate = rate
        self.deterministic = False  # set by model.eval() and model.train()

    def __call__(self, x: jax.Array, key: jax.Array | None, *, layer: int = 0) -> jax.Array:
        """Drop values and scale up the others; ``layer`` gives each layer of a model its own draw from one key."""
        if self.rate == 0.0 or self.deterministic:
            return x
        if key is None:
            raise ArgumentError(
                "training with dropout needs a key: pass jax.random.key(...), or build with `dropout`=0"
            )
        keep = jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


class Head(nnx.Module):
    """Dropout and the last dense layer, computed in float32 whatever the compute dtype of the layers before.

    Args:
      num_features: F, width of its input.
      num_classes: K.
      dropout: probability that a feature becomes 0 while training.
      rngs: where the initial weights come from.
    """

    def __init__(self, num_features: int, num_classes: int, *, dropout: float = 0.0, rngs: nnx.Rngs):
        self.num_features = num_features
        self.dropout = Dropout(dropout)
        self.dense = nnx.Linear(num_features, num_classes, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None, *, layer: int = 0) -> Outputs:
        """Map ``[B, F]`` to ``{'logits': [B, K], 'features': [B, F]}``, both float32."""
        features = self.dropout(x.astype(jnp.float32), key, layer=layer)
        return {"logits": self.dense(features), "features": features}


def run_block(block: nnx.Module, x: jax.Array, remat: bool) -> jax.Array:
    """A block applied to its input; with ``remat`` nothing within it is kept for the gradient, but computed again."""
    return nnx.remat(_apply)(block, x) if remat else _apply(block, x)


def _apply(block: Any, x: jax.Array) -> jax.Array:
    out: jax.Array = block(x)
    return out
