"""Residual networks: those of ImageNet (18 to 101 layers), narrow ones of CIFAR (8, 20, 32), pre-activation ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models.conv import Conv
from nlx.models.head import Head, Outputs, run_block

# Depth -> (blocks per stage, channels per stage, bottleneck).
_SHAPES: dict[int, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    8: ((1, 1, 1), (16, 32, 64), False),
    20: ((3, 3, 3), (16, 32, 64), False),
    32: ((5, 5, 5), (16, 32, 64), False),
    18: ((2, 2, 2, 2), (64, 128, 256, 512), False),
    34: ((3, 4, 6, 3), (64, 128, 256, 512), False),
    50: ((3, 4, 6, 3), (64, 128, 256, 512), True),
    101: ((3, 4, 23, 3), (64, 128, 256, 512), True),
}
DEPTHS = tuple(sorted(_SHAPES))
PREACT_DEPTHS = (18, 34)
_EXPANSION = 4  # a bottleneck block puts out four times the channels of its 3x3 convolution


class _Norm(nnx.BatchNorm):
    """Batch normalization in float32, returned in the dtype of its input.

    While training, statistics are those of the batch, or with ``ghost`` of each so many examples in a row (Hoffer et
    al., 2017, Train longer, generalize better); the running ones take these groups' mean, not one after the other.
    """

    def __init__(self, features: int, rngs: nnx.Rngs, *, ghost: int | None, zero: bool = False):
        scale_init = nnx.initializers.zeros_init() if zero else nnx.initializers.ones_init()
        super().__init__(features, momentum=0.9, scale_init=scale_init, dtype=jnp.float32, rngs=rngs)
        self.ghost = ghost

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        if self.ghost is None or self.use_running_average:
            return super().__call__(x.astype(jnp.float32), *args, **kwargs).astype(x.dtype)
        if len(x) % self.ghost:
            raise ArgumentError(f"`ghost_batch`={self.ghost} does not divide the batch of {len(x)}; take a divisor")
        groups = x.astype(jnp.float32).reshape(-1, self.ghost, *x.shape[1:])
        axes = tuple(range(1, x.ndim))
        mean, var = (f(groups, axis=axes, keepdims=True) for f in (jnp.mean, jnp.var))
        for running, seen in ((self.mean, mean), (self.var, var)):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * jnp.mean(seen, axis=0).reshape(-1)
        assert self.scale is not None
        assert self.bias is not None
        scale, bias = (p[...].reshape((1,) * x.ndim + (-1,)) for p in (self.scale, self.bias))
        return ((groups - mean) * jax.lax.rsqrt(var + self.epsilon) * scale + bias).reshape(x.shape).astype(x.dtype)


class _Block(nnx.Module):
    """Two 3x3 convolutions, or the bottleneck 1x1, 3x3, 1x1, added to a shortcut.

    The last normalization starts with scale 0, so that a new block is the identity (Goyal et al., 2017, section 5.1).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        *,
        bottleneck: bool,
        ghost: int | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        outputs = width * _EXPANSION if bottleneck else width
        # (kernel size, stride, channels); the bottleneck strides in its 3x3 convolution.
        layers = [(3, stride, width), (3, 1, width)]
        if bottleneck:
            layers = [(1, 1, width), (3, stride, width), (1, 1, outputs)]
        self.num_layers = len(layers)
        self.project = stride > 1 or inputs != outputs
        if self.project:
            self.shortcut_conv = Conv(inputs, outputs, 1, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
            self.shortcut_norm = _Norm(outputs, rngs, ghost=ghost)
        for i, (size, step, channels) in enumerate(layers):
            conv = Conv(inputs, channels, size, stride=step, use_bias=False, dtype=dtype, rngs=rngs)
            setattr(self, f"conv_{i}", conv)
            setattr(self, f"norm_{i}", _Norm(channels, rngs, ghost=ghost, zero=i == len(layers) - 1))
            inputs = channels

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if self.project else x
        for i in range(self.num_layers):
            x = getattr(self, f"norm_{i}")(getattr(self, f"conv_{i}")(x))
            x = nnx.relu(x + shortcut if i == self.num_layers - 1 else x)
        return x


class _PreActBlock(nnx.Module):
    """Two 3x3 convolutions, each behind its normalization and ReLU, added to what came in or to its projection."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        ghost: int | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.project = stride > 1 or inputs != outputs
        if self.project:
            self.shortcut_conv = Conv(inputs, outputs, 1, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm_0, self.norm_1 = (_Norm(channels, rngs, ghost=ghost) for channels in (inputs, outputs))
        self.conv_0 = Conv(inputs, outputs, 3, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
        self.conv_1 = Conv(outputs, outputs, 3, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        active = nnx.relu(self.norm_0(x))
        shortcut = self.shortcut_conv(active) if self.project else x
        return shortcut + self.conv_1(nnx.relu(self.norm_1(self.conv_0(active))))


class ResNet(nnx.Module):
    """A residual network with batch normalization and a mean over positions before the last layer.

    Args:
      depth: number of layers: 18, 34, 50 or 101 (He et al., 2016, Table 1), 8, 20 or 32 (their section 4.2).
      in_channels: channels of an image.
      num_classes: K.
      preact: blocks normalize and cut off before they convolve; of 18 or 34 layers.
      stem: ``'224'``, a 7x7 convolution and a 3x3 max-pooling, both of stride 2, or ``'32'``, one 3x3 convolution.
      dropout: probability that a feature becomes 0 before the last layer while training.
      remat: keep of each block its input alone, and compute it again for the gradient: less memory, more time.
      ghost_batch: examples in a row that share the statistics of a normalization while training; it must divide the
        batch. None for all of a batch.
      dtype: dtype of the convolutions, e.g. bfloat16; weights, batch statistics and outputs are float32.
      rngs: where the initial weights come from.

    References:
      He et al., 2016, Deep residual learning for image recognition; Identity mappings in deep residual networks.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        num_classes: int,
        *,
        preact: bool = False,
        stem: str = "224",
        dropout: float = 0.0,
        remat: bool = False,
        ghost_batch: int | None = None,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        known = PREACT_DEPTHS if preact else DEPTHS
        if depth not in known:
            raise ArgumentError(f"`depth` must be one of {known}, got {depth}")
        if stem not in ("32", "224"):
            raise ArgumentError(f"`stem` must be '32' or '224', got {stem!r}")
        stages, widths, bottleneck = _SHAPES[depth]
        self.stem, self.remat, self.preact = stem, remat, preact
        size, stride = (7, 2) if stem == "224" else (3, 1)
        channels = widths[0]
        self.stem_conv = Conv(in_channels, channels, size, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
        if not preact:
            self.stem_norm = _Norm(channels, rngs, ghost=ghost_batch)
        kind = _PreActBlock if preact else partial(_Block, bottleneck=bottleneck)
        block = partial(kind, ghost=ghost_batch, dtype=dtype, rngs=rngs)
        names = []
        for i, (blocks, width) in enumerate(zip(stages, widths, strict=True)):
            for j in range(blocks):
                names.append(f"stage_{i}_block_{j}")
                setattr(self, names[-1], block(channels, width, 2 if i > 0 and j == 0 else 1))
                channels = width * _EXPANSION if bottleneck else width
        self.blocks = tuple(names)
        if preact:
            self.last_norm = _Norm(channels, rngs, ghost=ghost_batch)
        self.head = Head(channels, num_classes, dropout=dropout, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, F]}``; ``key`` is for dropout while training."""
        x = self.stem_conv(x)
        if not self.preact:
            x = nnx.relu(self.stem_norm(x))
        if self.stem == "224":
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for name in self.blocks:
            x = run_block(getattr(self, name), x, self.remat)
        if self.preact:
            x = nnx.relu(self.last_norm(x))
        return self.head(jnp.mean(x, axis=(1, 2), dtype=jnp.float32), key)
