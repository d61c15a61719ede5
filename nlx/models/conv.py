"""A 2D convolution whose gradients are fast on a CPU inside a loop, too."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Conv(nnx.Module):
    """Convolution of images NHWC with square kernels, padded with zeros by size // 2 on every side.

    Args:
      inputs: channels that come in.
      outputs: channels that go out.
      size: height and width of the kernel, odd.
      stride: step between positions.
      use_bias: whether to add a bias; leave it out before a normalization.
      dtype: dtype of the computation; weights are float32.
      rngs: where the initial weights come from.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        use_bias: bool = True,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        # He et al., 2015: keeps the variance of the gradients through layers with ReLU.
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if use_bias else None
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, H, W, inputs]`` to ``[B, ceil(H / stride), ceil(W / stride), outputs]``."""
        y = conv2d(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)[None, None, None]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Cross-correlation with zero padding of half the kernel's size.

    On a CPU, XLA runs a convolution inside a loop (`jax.lax.scan`) by its fast routine only if dimensions are ordered
    NHWC, HWIO; outside of loops it reorders them by itself. The gradients of a convolution come in another order and
    make a scanned training step some thirty times slower (https://github.com/jax-ml/jax/issues/12868). Here they are
    reordered by hand on CPUs, the result is the same.

    Args:
      x: images, ``[B, H, W, C]``.
      kernel: weights, ``[k, k, C, D]``, k odd, dtype of x.
      stride: step between positions.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), D]``.
    """
    return _convolve(stride, x, kernel)


def _convolve(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(half, half)] * 2, dimension_numbers=_LAYOUT)


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(stride, x, kernel), (x, kernel)


def _backward(stride: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    grads: tuple[jax.Array, jax.Array] = lax.platform_dependent(
        *saved, dy, cpu=partial(_ordered_gradients, stride), default=partial(_plain_gradients, stride)
    )
    return grads


def _plain_gradients(stride: int, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    grads: tuple[jax.Array, jax.Array] = jax.vjp(partial(_convolve, stride), x, kernel)[1](dy)
    return grads


def _ordered_gradients(stride: int, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    low = kernel.shape[0] // 2
    # Zeros that the strided positions reach behind the last row and column; negative where they end before it.
    high = [(o - 1) * stride + kernel.shape[0] - low - n for n, o in zip(x.shape[1:3], dy.shape[1:3], strict=True)]
    dx = lax.conv_general_dilated(
        dy,
        kernel[::-1, ::-1].transpose(0, 1, 3, 2),
        (1, 1),
        [(low, kernel.shape[0] - 1 - h) for h in high],
        lhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )
    # Summed over the batch: it takes the place of the channels, [C, H, W, B] with [h, w, B, D] gives [C, k, k, D].
    dkernel = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, h) for h in high],
        rhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )
    return dx, dkernel.transpose(1, 2, 0, 3)


conv2d.defvjp(_forward, _backward)
