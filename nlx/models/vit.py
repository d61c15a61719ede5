"""Vision transformers of patches of 16 pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models.head import Head, Outputs, run_block

PATCH = 16
SIZES = {"s16": (384, 6), "b16": (768, 12)}
"""Width and heads by name."""
_DEPTH, _EXPANSION, _EPSILON = 12, 4, 1e-6


class _Block(nnx.Module):
    """Attention and two dense layers, each behind a normalization and added to what came in."""

    def __init__(self, width: int, heads: int, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.norm_0 = nnx.LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.norm_1 = nnx.LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        init = nnx.initializers.xavier_uniform()
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.projection = nnx.Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.dense_0 = nnx.Linear(width, _EXPANSION * width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.dense_1 = nnx.Linear(_EXPANSION * width, width, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_0(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        seen = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = x + self.projection(seen.reshape(batch, length, width))
        return x + self.dense_1(nnx.gelu(self.dense_0(self.norm_1(x)), approximate=False))


class ViT(nnx.Module):
    """A transformer over patches of 16 x 16 pixels and a token for the class, which gives the features.

    Args:
      size: one of :data:`SIZES`.
      input_shape: height, width and channels of an image, multiples of 16.
      num_classes: K.
      dropout: probability that a feature becomes 0 before the last layer while training.
      remat: keep of each block its input alone, and compute it again for the gradient: less memory, more time.
      dtype: dtype of the computation before the last layer; weights and outputs are float32.
      rngs: where the initial weights come from.

    References:
      Dosovitskiy et al., 2021, An image is worth 16x16 words.
    """

    def __init__(
        self,
        size: str,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        dropout: float = 0.0,
        remat: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, channels = input_shape
        if height % PATCH or width % PATCH:
            raise ArgumentError(f"a ViT takes images of multiples of {PATCH} pixels, got {height}x{width}: resize them")
        features, heads = SIZES[size]
        positions = (height // PATCH) * (width // PATCH) + 1
        normal, key = nnx.initializers.normal(0.02), rngs.params
        patch = nnx.initializers.lecun_normal()(key(), (PATCH, PATCH, channels, features), jnp.float32)
        self.patch_kernel, self.patch_bias = nnx.Param(patch), nnx.Param(jnp.zeros(features, jnp.float32))
        self.class_token = nnx.Param(jnp.zeros((1, 1, features), jnp.float32))
        self.positions = nnx.Param(normal(key(), (1, positions, features), jnp.float32))
        for i in range(_DEPTH):
            setattr(self, f"block_{i}", _Block(features, heads, dtype, rngs))
        self.last_norm = nnx.LayerNorm(features, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.head = Head(features, num_classes, dropout=dropout, rngs=rngs)
        self.dtype, self.remat = dtype, remat

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, F]}``; ``key`` is for dropout while training."""
        batch, height, width, channels = x.shape
        patches = x.astype(self.dtype).reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels)
        kernel = self.patch_kernel[...].astype(self.dtype)
        tokens = jnp.einsum("bihjwc,hwcf->bijf", patches, kernel).reshape(batch, -1, kernel.shape[-1])
        tokens = tokens + self.patch_bias[...].astype(self.dtype)[None, None]
        first = jnp.broadcast_to(self.class_token[...].astype(self.dtype), (batch, 1, kernel.shape[-1]))
        x = jnp.concatenate([first, tokens], axis=1) + self.positions[...].astype(self.dtype)
        for i in range(_DEPTH):
            x = run_block(getattr(self, f"block_{i}"), x, self.remat)
        return self.head(self.last_norm(x[:, 0]), key)
