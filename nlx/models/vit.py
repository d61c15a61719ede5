"""Vision transformers: the plain ones, DINOv2's with registers or without, and CLIP's image towers."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models.head import Head, Outputs, run_block


class Kind(NamedTuple):
    """What transformers differ in.

    Attributes:
      width: of a token.
      heads: of attention.
      patch: height and width of a patch, pixels.
      epsilon: what normalizations add to a variance.
      scaled: whether each branch is scaled per channel before it is added.
      first_norm: whether tokens are normalized before the first block; patches have no bias then.
      quick: whether GELU is taken as x sigmoid(1.702 x).
      embedding: width of a dense layer behind the class token, whose outputs are the features; 0 for none.
      registers: number of tokens between the class token and the patches that stand for no place; where there are
        any, patches alone have positions.
    """

    width: int
    heads: int
    patch: int
    epsilon: float = 1e-6
    scaled: bool = False
    first_norm: bool = False
    quick: bool = False
    embedding: int = 0
    registers: int = 0

    @property
    def placed(self) -> int:
        """How many tokens beside the patches have positions: that of the class, or none."""
        return 0 if self.registers else 1


_CLIP = {f"clip-b{patch}": Kind(768, 12, patch, epsilon=1e-5, first_norm=True, embedding=512) for patch in (32, 16)}
KINDS = {
    "vit-s16": Kind(384, 6, 16),
    "vit-b16": Kind(768, 12, 16),
    "dinov2-s14": Kind(384, 6, 14, scaled=True),
    "dinov2-b14": Kind(768, 12, 14, scaled=True),
    "dinov2-s14-reg": Kind(384, 6, 14, scaled=True, registers=4),
    "dinov2-b14-reg": Kind(768, 12, 14, scaled=True, registers=4),
    **_CLIP,
    **{f"{name}-quick": kind._replace(quick=True) for name, kind in _CLIP.items()},
}
"""By name of the model."""
_DEPTH, _EXPANSION, _SCALE, _REGISTER = 12, 4, 1e-5, 1e-6


class _Block(nnx.Module):
    """Attention and two dense layers, each behind a normalization and added to what came in."""

    def __init__(self, kind: Kind, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        self.kind, self.dtype, width = kind, dtype, kind.width
        self.norm_0 = nnx.LayerNorm(width, epsilon=kind.epsilon, dtype=dtype, rngs=rngs)
        self.norm_1 = nnx.LayerNorm(width, epsilon=kind.epsilon, dtype=dtype, rngs=rngs)
        init = nnx.initializers.xavier_uniform()
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.projection = nnx.Linear(width, width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.dense_0 = nnx.Linear(width, _EXPANSION * width, kernel_init=init, dtype=dtype, rngs=rngs)
        self.dense_1 = nnx.Linear(_EXPANSION * width, width, kernel_init=init, dtype=dtype, rngs=rngs)
        if kind.scaled:
            self.scale_0, self.scale_1 = (nnx.Param(jnp.full(width, _SCALE, jnp.float32)) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_0(x)).reshape(batch, length, 3, self.kind.heads, width // self.kind.heads)
        seen = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        seen = self.projection(seen.reshape(batch, length, width))
        x = x + (seen * self.scale_0[...].astype(self.dtype)[None, None] if self.kind.scaled else seen)
        inner = self.dense_0(self.norm_1(x))
        inner = inner * nnx.sigmoid(1.702 * inner) if self.kind.quick else nnx.gelu(inner, approximate=False)
        added = self.dense_1(inner)
        return x + (added * self.scale_1[...].astype(self.dtype)[None, None] if self.kind.scaled else added)


class ViT(nnx.Module):
    """A transformer over square patches and a token for the class, which gives the features; maybe registers too.

    Args:
      kind: one of :data:`KINDS`.
      input_shape: height, width and channels of an image, multiples of the patch.
      num_classes: K.
      dropout: probability that a feature becomes 0 before the last layer while training.
      remat: keep of each block its input alone, and compute it again for the gradient: less memory, more time.
      dtype: dtype of the computation before the last layer; weights and outputs are float32.
      rngs: where the initial weights come from.

    Raises:
      ArgumentError: an image is no multiple of the patch.

    References:
      Dosovitskiy et al., 2021, An image is worth 16x16 words; Oquab et al., 2023, DINOv2; Radford et al., 2021,
      Learning transferable visual models from natural language supervision; Darcet et al., 2024, Vision transformers
      need registers.
    """

    def __init__(
        self,
        kind: Kind,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        dropout: float = 0.0,
        remat: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, channels = input_shape
        side, features = kind.patch, kind.width
        if height % side or width % side:
            raise ArgumentError(
                f"this ViT takes images of multiples of {side} pixels, got {height}x{width}: resize them"
            )
        positions = (height // side) * (width // side) + kind.placed
        normal, key = nnx.initializers.normal(0.02), rngs.params
        patch = nnx.initializers.lecun_normal()(key(), (side, side, channels, features), jnp.float32)
        self.patch_kernel = nnx.Param(patch)
        self.class_token = nnx.Param(jnp.zeros((1, 1, features), jnp.float32))
        self.positions = nnx.Param(normal(key(), (1, positions, features), jnp.float32))
        if kind.registers:
            drawn = nnx.initializers.normal(_REGISTER)(key(), (1, kind.registers, features), jnp.float32)
            self.registers = nnx.Param(drawn)
        if kind.first_norm:
            self.first_norm = nnx.LayerNorm(features, epsilon=kind.epsilon, dtype=dtype, rngs=rngs)
        else:
            self.patch_bias = nnx.Param(jnp.zeros(features, jnp.float32))
        for i in range(_DEPTH):
            setattr(self, f"block_{i}", _Block(kind, dtype, rngs))
        self.last_norm = nnx.LayerNorm(features, epsilon=kind.epsilon, dtype=dtype, rngs=rngs)
        if kind.embedding:
            self.embedding = nnx.Linear(features, kind.embedding, dtype=dtype, rngs=rngs)
        self.head = Head(kind.embedding or features, num_classes, dropout=dropout, rngs=rngs)
        self.kind, self.dtype, self.remat = kind, dtype, remat

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, F]}``; ``key`` is for dropout while training."""
        batch, height, width, channels = x.shape
        side = self.kind.patch
        patches = x.astype(self.dtype).reshape(batch, height // side, side, width // side, side, channels)
        kernel = self.patch_kernel[...].astype(self.dtype)
        tokens = jnp.einsum("bihjwc,hwcf->bijf", patches, kernel).reshape(batch, -1, kernel.shape[-1])
        if not self.kind.first_norm:
            tokens = tokens + self.patch_bias[...].astype(self.dtype)[None, None]
        positions = self.positions[...].astype(self.dtype)
        if self.kind.registers:
            x = jnp.concatenate([*self._ahead(batch, self.class_token, self.registers), tokens + positions], axis=1)
        else:
            x = jnp.concatenate([*self._ahead(batch, self.class_token), tokens], axis=1) + positions
        x = self.first_norm(x) if self.kind.first_norm else x
        for i in range(_DEPTH):
            x = run_block(getattr(self, f"block_{i}"), x, self.remat)
        features = self.last_norm(x[:, 0])
        return self.head(self.embedding(features) if self.kind.embedding else features, key)

    def _ahead(self, batch: int, *tokens: nnx.Param) -> list[jax.Array]:
        """Tokens ``[1, n, F]`` for each image of a batch."""
        arrays = [token[...].astype(self.dtype) for token in tokens]
        return [jnp.broadcast_to(array, (batch, *array.shape[1:])) for array in arrays]
