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

IMAGENET = (
    255 * np.array([0.485, 0.456, 0.406], np.float32),
    255 * np.array([0.229, 0.224, 0.225], np.float32),
)
"""Mean and standard deviation of ImageNet's channels, which networks that are trained elsewhere expect."""

_SAMPLED = 30_000_000  # pixels, about; as many as settle a mean


def normalization(inputs: Inputs, per_feature: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale that bring inputs to zero mean and about unit size.

    Images: per channel. Features: the mean per feature, and one scale for all of them or one for each. Files on disk:
    ImageNet's figures.

    Args:
      inputs: of the training split, uint8 ``[n, H, W, C]``, float32 ``[n, F]`` or files.
      per_feature: whether each feature is brought to unit size, which suits features in units of their own; one scale
        for all does not blow up those that carry little, such as the last principal components.

    Returns:
      Mean, float32 ``[C]`` or ``[F]``, and scale, ``[C]``, ``[F]`` or ``[]``, in units of the stored inputs.
    """
    if isinstance(inputs, ImageFiles):
        return IMAGENET
    # Summed in float64: along leading axes NumPy adds one by one, and float32 loses what millions of pixels add.
    if inputs.ndim == 2:
        mean, scale = inputs.mean(axis=0, dtype=np.float64), np.asarray(inputs.std(dtype=np.float64))
        if per_feature:
            own = inputs.std(axis=0, dtype=np.float64)
            scale = np.where(own > 1e-6 * scale, own, scale)  # constant features stay as they are
    else:
        sample = inputs[:: max(1, inputs.size // _SAMPLED)]
        mean, scale = (np.asarray(f(sample, axis=(0, 1, 2), dtype=np.float64)) for f in (np.mean, np.std))
    return mean.astype(np.float32), np.maximum(scale, 1e-6).astype(np.float32)


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

    Raises:
      ValueError: from what is returned: images smaller than ``size``.
    """

    def prepare(stored: Array, key: Array | None) -> Array:
        x = (
            stored.astype(jnp.float32) - jnp.asarray(mean, jnp.float32).reshape((1,) * (stored.ndim - 1) + (-1,))
        ) / jnp.asarray(scale, jnp.float32).reshape((1,) * (stored.ndim - 1) + (-1,))
        if x.ndim == 2:
            return x
        target = (size, size) if size else (x.shape[1], x.shape[2])
        if target[0] > x.shape[1] or target[1] > x.shape[2]:
            raise ValueError(f"images of {x.shape[1]}x{x.shape[2]} pixels cannot be cut to {target[0]}x{target[1]}")
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
        centre = _centre(x, (size, size))
        return [*corners, centre, centre[:, :, ::-1]]

    return views


def _centre(x: Array, size: tuple[int, int]) -> Array:
    height, width = size
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def _random_crops(key: Array, x: Array, size: tuple[int, int]) -> Array:
    if x.shape[1:3] == size:
        x = jnp.pad(x, ((0, 0), *((side // 8, side // 8) for side in size), (0, 0)))
    top_key, left_key = jax.random.split(key)
    tops = jax.random.randint(top_key, (x.shape[0],), 0, x.shape[1] - size[0] + 1)
    lefts = jax.random.randint(left_key, (x.shape[0],), 0, x.shape[2] - size[1] + 1)

    def crop(image: Array, top: Array, left: Array) -> Array:
        return jax.lax.dynamic_slice(image, (top, left, 0), (*size, image.shape[2]))

    return jax.vmap(crop)(x, tops, lefts)
