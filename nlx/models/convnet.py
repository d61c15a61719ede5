"""A small convolutional network that trains in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models.conv import Conv
from nlx.models.head import Head, Outputs


class ConvNet(nnx.Module):
    """Strided convolutions with ReLU (5x5, then 3x3, each halving the image), flattened into one dense layer.

    Every convolution has stride 2, so nearly all work happens on small maps; there is no normalization, so examples
    of a batch do not depend on each other.

    Args:
      in_shape: height, width and channels of an image.
      num_classes: K.
      widths: channels of each convolution, then the width of the dense layer.
      dropout: probability that a feature becomes 0 before the last layer while training.
      dtype: dtype of the computation before the last layer; weights and outputs are float32.
      rngs: where the initial weights come from.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        *,
        widths: Sequence[int] = (32, 64, 128, 128),
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if len(widths) < 2:
            raise ArgumentError(f"`widths` must have a convolution and the dense layer, e.g. (32, 128), got {widths}")
        height, width, channels = in_shape
        self.num_convs = len(widths) - 1
        for i, out_channels in enumerate(widths[:-1]):
            size = 5 if i == 0 else 3
            setattr(self, f"conv_{i}", Conv(channels, out_channels, size, stride=2, dtype=dtype, rngs=rngs))
            height, width, channels = -(-height // 2), -(-width // 2), out_channels
        values = height * width * channels
        self.dense = nnx.Linear(values, widths[-1], kernel_init=nnx.initializers.he_normal(), dtype=dtype, rngs=rngs)
        self.head = Head(widths[-1], num_classes, dropout=dropout, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, F]}``; ``key`` is for dropout while training."""
        for i in range(self.num_convs):
            x = nnx.relu(getattr(self, f"conv_{i}")(x))
        x = nnx.relu(self.dense(x.reshape(x.shape[0], -1)))
        return self.head(x, key)
