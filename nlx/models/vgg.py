"""AlexNet and VGG-16, convolutions and then three dense layers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models.conv import Conv
from nlx.models.head import Dropout, Head, Outputs

_HIDDEN = 4096
_SMALLEST = 63  # pixels, for AlexNet's three poolings
VGG_GROUPS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions and channels between two poolings
_ALEXNET = ((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))  # channels and kernel


class _Dense(nnx.Module):
    """Means over a grid of fixed size and two hidden layers, with dropout before the second or, ``early``, both."""

    def __init__(
        self, channels: int, grid: int, dropout: float, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs, early: bool = False
    ):
        self.grid, self.dropout, self.early = grid, Dropout(dropout), early
        init = nnx.initializers.he_normal()
        self.fc_0 = nnx.Linear(channels * grid**2, _HIDDEN, kernel_init=init, dtype=dtype, rngs=rngs)
        self.fc_1 = nnx.Linear(_HIDDEN, _HIDDEN, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        rows, columns = (jnp.asarray(_bins(size, self.grid), x.dtype) for size in x.shape[1:3])
        x = jnp.einsum("bhwc,ih,jw->bcij", x, rows, columns)
        x = x.reshape(x.shape[0], -1)
        for layer, dense in enumerate((self.fc_0, self.fc_1)):
            x = self.dropout(x, key, layer=layer + 1) if layer or self.early else x
            x = nnx.relu(dense(x))
        return x


def _bins(size: int, bins: int) -> np.ndarray:
    """Weights of means over nearly equal parts, ``[bins, size]``."""
    weights = np.zeros((bins, size), np.float32)
    for i in range(bins):
        low, high = i * size // bins, math.ceil((i + 1) * size / bins)
        weights[i, low:high] = 1 / (high - low)
    return weights


class VGG16(nnx.Module):
    """Thirteen 3x3 convolutions in five groups, each followed by a pooling, and three dense layers.

    Args:
      in_channels: channels of an image.
      num_classes: K.
      dropout: probability that a value becomes 0 before the second and third dense layer while training (paper 0.5).
      dtype: dtype of the computation before the last layer; weights and outputs are float32.
      rngs: where the initial weights come from.

    References:
      Simonyan and Zisserman, 2015, Very deep convolutional networks for large-scale image recognition, configuration D.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        for group, (count, channels) in enumerate(VGG_GROUPS):
            for i in range(count):
                setattr(self, f"conv_{group}_{i}", Conv(in_channels, channels, 3, dtype=dtype, rngs=rngs))
                in_channels = channels
        self.dense = _Dense(in_channels, 7, dropout, dtype, rngs)
        self.head = Head(_HIDDEN, num_classes, dropout=dropout, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, 4096]}``; ``key`` is for dropout."""
        for group, (count, _) in enumerate(VGG_GROUPS):
            for i in range(count):
                x = nnx.relu(getattr(self, f"conv_{group}_{i}")(x))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.head(self.dense(x, key), key)


class AlexNet(nnx.Module):
    """Five convolutions and three dense layers, in torchvision's form: one tower, no response normalization.

    Args:
      input_shape: height, width and channels of an image, from 63 pixels on.
      num_classes: K.
      dropout: probability that a value becomes 0 before the first two dense layers while training (paper 0.5).
      dtype: dtype of the computation before the last layer; weights and outputs are float32.
      rngs: where the initial weights come from.

    References:
      Krizhevsky, 2014, One weird trick for parallelizing convolutional neural networks.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, channels = input_shape
        if min(height, width) < _SMALLEST:
            raise ArgumentError(f"alexnet takes images from {_SMALLEST} pixels on, got {height}x{width}: use convnet")
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.conv_0 = nnx.Conv(channels, 64, (11, 11), strides=4, padding=2, kernel_init=init, dtype=dtype, rngs=rngs)
        channels = 64
        for i, (outputs, size) in enumerate(_ALEXNET[1:], start=1):
            setattr(self, f"conv_{i}", Conv(channels, outputs, size, dtype=dtype, rngs=rngs))
            channels = outputs
        self.dense = _Dense(channels, 6, dropout, dtype, rngs, early=True)
        self.head = Head(_HIDDEN, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, 4096]}``; ``key`` is for dropout."""
        for i in range(len(_ALEXNET)):
            x = nnx.relu(getattr(self, f"conv_{i}")(x))
            if i in (0, 1, 4):
                x = nnx.max_pool(x, (3, 3), strides=(2, 2))
        return self.head(self.dense(x, key), key)
