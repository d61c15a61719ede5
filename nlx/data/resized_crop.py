"""Random resized crops on the device: a part of each picture, of random place, size and shape, brought to one size."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


def resized_crop(
    key: Array,
    images: Array,
    size: tuple[int, int],
    *,
    flipped: Array | None = None,
    area: tuple[float, float] = AREA,
    ratio: tuple[float, float] = RATIO,
) -> Array:
    """Cut a random part out of each picture, and bring it to one size, by triangles as wide as a pixel of the result.

    Two matrix products with each picture, no loop over the batch: 0.17 Gflop for 256 pixels to 224 and three channels.
    They have the platform's default precision, which on a TPU is that of bfloat16: half a grey level.

    Args:
      key: typed PRNG key.
      images: pixels, float ``[B, H, W, C]``.
      size: height and width of what comes out.
      flipped: which pictures are mirrored, bool ``[B, 1, 1, 1]``; None for none.
      area: least and largest share of the picture that a part has.
      ratio: least and largest of its width by its height; a part that would be longer than the picture is cut off.

    Returns:
      The parts, float ``[B, *size, C]``.

    References:
      Szegedy et al., 2015, Going deeper with convolutions, section 6.
    """
    count, height, width, _ = images.shape
    area_key, ratio_key, *corner_keys = jax.random.split(key, 4)
    share = jax.random.uniform(area_key, (count,), minval=area[0], maxval=area[1])
    shape = jnp.exp(jax.random.uniform(ratio_key, (count,), minval=math.log(ratio[0]), maxval=math.log(ratio[1])))
    sides = jnp.sqrt(share * height * width / shape), jnp.sqrt(share * height * width * shape)
    cut = []  # start and length of rows, and of columns
    for corner_key, side, most in zip(corner_keys, sides, (height, width), strict=True):
        side = jnp.minimum(side, most)
        cut.append((jax.random.uniform(corner_key, (count,)) * (most - side), side))
    return resampled(images, cut[0], cut[1], size, flipped)


def resampled(
    images: Array, rows: tuple[Array, Array], columns: tuple[Array, Array], size: tuple[int, int], flipped: Array | None
) -> Array:
    """Parts of pictures ``[B, H, W, C]``, from ``rows`` and ``columns`` given as starts and lengths, float ``[B]``."""
    down, across = (
        _triangles(*part, sides, out) for part, sides, out in zip((rows, columns), images.shape[1:3], size, strict=True)
    )
    if flipped is not None:
        across = jnp.where(flipped[:, :, 0], across[:, ::-1], across)
    some = jnp.einsum("bih,bhwc->biwc", down, images)
    return jnp.einsum("bjw,biwc->bijc", across, some)


def _triangles(start: Array, length: Array, count: int, out: int) -> Array:
    """What each of ``count`` pixels weighs in each of ``out`` new ones, float ``[B, out, count]``."""
    step = (length / out)[:, None]
    centre = start[:, None] + (jnp.arange(out, dtype=start.dtype)[None, :] + 0.5) * step
    at = jnp.arange(count, dtype=start.dtype) + 0.5
    far = jnp.abs(at[None, None, :] - centre[:, :, None]) / jnp.maximum(step, 1)[:, :, None]
    weight = jnp.maximum(1 - far, 0)
    return weight / jnp.sum(weight, axis=2, keepdims=True)
