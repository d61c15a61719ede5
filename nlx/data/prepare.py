"""From stored inputs to what a model takes: normalization, augmentation and test views, jitted on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlx.data.dataset import ImageFiles, Inputs

Augmentation = Literal["none", "flip", "crop", "crop-flip"]

# ImageNet's channel means and standard deviations, of pixels scaled to [0, 1]: the usual ResNet preprocessing.
_IMAGENET = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def normalization(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale that bring inputs to zero mean and about unit size.

    Images: per channel. Features: the mean per feature, and one scale for all of them, so that features which carry
    little (the last principal components, say) are not blown up. Files on disk: ImageNet's figures.

    Args:
      inputs: of the training split.

    Returns:
      Mean and scale in units of the stored inputs, float32, broadcastable to them.
    """
    if isinstance(inputs, ImageFiles):
        return _IMAGENET[0] * 255, _IMAGENET[1] * 255
    if inputs.ndim == 2:
        return inputs.mean(axis=0), np.maximum(inputs.std(), 1e-6, dtype=np.float32)
    sample = inputs[:: max(1, len(inputs) // 10_000)].astype(np.float32)
    return sample.mean(axis=(0, 1, 2)), np.maximum(sample.std(axis=(0, 1, 2)), 1e-6)


def preparer(
    mean: np.ndarray, scale: np.ndarray, *, augmentation: Augmentation = "none", size: int | None = None
) -> Callable[[Array, Array | None], Array]:
    """Make the function that turns a stored batch into the model's input.

    Args:
      mean: see :func:`normalization`.
      scale: likewise.
      augmentation: ``crop``: a random crop of ``size`` pixels (after padding by an eighth where the image has that size
        already); ``flip``: left and right swapped in half of the images.
      size: height and width of the model's input, pixels; None keeps the stored ones. In evaluation the centre is cut
        out.

    Returns:
      ``(stored batch, key, or None for evaluation) -> float32 batch``.
    """

    def prepare(stored: Array, key: Array | None) -> Array:
        x = (
            stored.astype(jnp.float32) - jnp.asarray(mean, jnp.float32).reshape((1,) * (stored.ndim - 1) + (-1,))
        ) / jnp.asarray(scale, jnp.float32).reshape((1,) * (stored.ndim - 1) + (-1,))
        if x.ndim == 2:
            return x
        target = size or x.shape[1]
        if key is None or augmentation == "none":
            return _centre(x, target)
        crop_key, flip_key = jax.random.split(key)
        x = _random_crops(crop_key, x, target) if "crop" in augmentation else _centre(x, target)
        if "flip" in augmentation:
            flipped = jax.random.bernoulli(flip_key, 0.5, (x.shape[0], 1, 1, 1))
            x = jnp.where(flipped, x[:, :, ::-1], x)
        return x

    return prepare


def six_views(size: int) -> Callable[[Array], list[Array]]:
    """Views for test-time averaging: the four corners, the centre, and the centre mirrored, ``size`` pixels each.

    The paper says six crops and not which; take stored images larger than ``size``.
    """

    def views(x: Array) -> list[Array]:
        far_h, far_w = x.shape[1] - size, x.shape[2] - size
        corners = [x[:, i : i + size, j : j + size] for i in (0, far_h) for j in (0, far_w)]
        centre = _centre(x, size)
        return [*corners, centre, centre[:, :, ::-1]]

    return views


def _centre(x: Array, size: int) -> Array:
    top, left = (x.shape[1] - size) // 2, (x.shape[2] - size) // 2
    return x[:, top : top + size, left : left + size]


def _random_crops(key: Array, x: Array, size: int) -> Array:
    if x.shape[1] == size:
        border = size // 8
        x = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    top_key, left_key = jax.random.split(key)
    tops = jax.random.randint(top_key, (x.shape[0],), 0, x.shape[1] - size + 1)
    lefts = jax.random.randint(left_key, (x.shape[0],), 0, x.shape[2] - size + 1)

    def crop(image: Array, top: Array, left: Array) -> Array:
        return jax.lax.dynamic_slice(image, (top, left, 0), (size, size, image.shape[2]))

    return jax.vmap(crop)(x, tops, lefts)
