"""RandAugment on the device: random colours and random places of pixels, a few for each picture."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

_GREY = (0.299, 0.587, 0.114)
_FILL = 128.0  # outside of a moved picture
# At full strength.
_ANGLE, _SHEAR, _SHIFT, _BLEND, _BITS = math.pi / 6, 0.3, 0.45, 0.9, 4
PLACES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
COLOURS = ("identity", "brightness", "contrast", "colour", "posterize", "solarize", "auto_contrast")


def rand_augment(key: Array, images: Array, *, count: int = 2, strength: float = 0.3) -> Array:
    """Change each picture in a few random ways of one strength.

    Of the paper's fourteen ways equalize and sharpness are left out.

    Args:
      key: typed PRNG key.
      images: pixels from 0 to 255, float ``[B, H, W, C]``.
      count: ways for each picture, one after the other (paper 2 for ImageNet's ResNet-50).
      strength: in [0, 1] (paper 9 of 30).

    Returns:
      The pictures, still from 0 to 255.

    References:
      Cubuk et al., 2020, RandAugment: Practical automated data augmentation with a reduced search space.
    """

    def one(key: Array, image: Array) -> Array:
        way_key, sign_key = jax.random.split(key)
        way = jax.random.randint(way_key, (), 0, len(PLACES) + len(COLOURS))
        by = strength * jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
        moved = moved_by(image, jnp.where(jnp.arange(len(PLACES)) == way, by, 0.0))
        return coloured(moved, way - len(PLACES), by)

    for k in jax.random.split(key, count):
        images = jax.vmap(one)(jax.random.split(k, len(images)), images)
    return images


def moved_by(image: Array, by: Array) -> Array:
    """A picture ``[H, W, C]`` turned, sheared and shifted by a share of the most, float ``[5]`` as in ``PLACES``."""
    height, width, _ = image.shape
    angle, shear_x, shear_y, shift_x, shift_y = by * jnp.array(
        [_ANGLE, _SHEAR, _SHEAR, _SHIFT * width, _SHIFT * height]
    )
    rows, columns = jnp.meshgrid(jnp.arange(height, dtype=by.dtype), jnp.arange(width, dtype=by.dtype), indexing="ij")
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    from_x = cos * x - sin * y + shear_x * y + shift_x
    from_y = sin * x + cos * y + shear_y * x + shift_y
    at = [from_y + (height - 1) / 2, from_x + (width - 1) / 2]
    sample = jax.vmap(lambda plane: map_coordinates(plane, at, 1, "constant", _FILL), in_axes=2, out_axes=2)
    return jnp.where(jnp.any(by != 0), sample(image), image)


def coloured(image: Array, way: Array, by: Array) -> Array:
    """A picture ``[H, W, C]`` in the way of ``COLOURS`` with that number, int; as it is by a negative one."""
    weights = jnp.asarray(_GREY if image.shape[2] == 3 else (1.0,), image.dtype)
    grey = jnp.sum(image * weights[None, None], axis=2, keepdims=True)
    low, high = (f(image, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    size = jnp.abs(by)
    step = 2.0 ** jnp.round(_BITS * size)

    def blend(other: Array) -> Array:
        return other + (1 + _BLEND * by) * (image - other)

    variants = [
        image,
        blend(jnp.zeros_like(image)),
        blend(jnp.mean(grey, keepdims=True)),
        blend(grey),
        jnp.floor(image / step) * step,
        jnp.where(image < 256 * (1 - size), image, 255 - image),
        jnp.where(high > low, (image - low) * 255 / jnp.maximum(high - low, 1e-6), image),
    ]
    return jnp.clip(jnp.stack(variants)[jnp.maximum(way, 0)], 0, 255)
