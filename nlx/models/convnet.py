"""A small convolutional network that trains in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.models.conv import Conv
from nlx.models.head import Head, Outputs
from nlx.models.norm import BatchNorm


class ConvNet(nnx.Module):
    """Convolutions with batch normalization and ReLU, and for each feature its largest value over all positions.

    The first convolution is 5x5, the others 3x3; the first two have stride 2, so that most work happens on small maps.
    The maximum finds an object wherever it lies in a scene. It is normalized once more, because large features that are
    all positive make plain gradient descent slow.

    Args:
      in_shape: height, width and channels of an image.
      num_classes: K.
      widths: channels of each convolution, then the number of features.
      dropout: probability that a feature becomes 0 before the last layer while training.
      dtype: dtype of the computation before the last layer; weights, batch statistics and outputs are float32.
      rngs: where the initial weights come from.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if len(widths) < 2:
            raise ValueError(f"widths needs one convolution and the features at least, e.g. (32, 128), got {widths}")
        channels = in_shape[-1]
        self.num_convs = len(widths) - 1
        for i, width in enumerate(widths[:-1]):
            size, stride = 5 if i == 0 else 3, 2 if i < 2 else 1
            conv = Conv(channels, width, size, stride=stride, use_bias=False, dtype=dtype, rngs=rngs)
            setattr(self, f"conv_{i}", conv)
            setattr(self, f"norm_{i}", BatchNorm(width, rngs=rngs))
            channels = width
        self.dense = Conv(channels, widths[-1], 1, dtype=dtype, rngs=rngs)  # the same at every position
        self.norm = BatchNorm(widths[-1], rngs=rngs)
        self.head = Head(widths[-1], num_classes, dropout=dropout, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        """Map ``[B, H, W, C]`` to ``{'logits': [B, K], 'features': [B, F]}``; ``key`` is for dropout while training."""
        for i in range(self.num_convs):
            x = nnx.relu(getattr(self, f"norm_{i}")(getattr(self, f"conv_{i}")(x)))
        x = jnp.max(nnx.relu(self.dense(x)), axis=(1, 2))
        return self.head(self.norm(x), key)
