"""From stored inputs to what a model takes: normalization, augmentation and test views, jitted on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlx.data.dataset import ImageFiles, Inputs
from nlx.data.rand_augment import rand_augment
from nlx.data.resized_crop import resized_crop

Augmentation = Literal[
    "none", "flip", "crop", "crop-flip", "crop-flip-rand", "resized-crop-flip", "resized-crop-flip-rand"
]

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
        already), or ``resized-crop``: of any size and shape, see :func:`nlx.data.resized_crop.resized_crop`; ``flip``:
        left and right swapped in half of the images; ``rand``: before both, RandAugment on pixels from 0 to 255, see
        :func:`nlx.data.rand_augment.rand_augment`.
      size: height and width of the model's input, pixels; None keeps the stored ones. In evaluation the centre is cut
        out.

    Returns:
      ``(stored batch, key, or None for evaluation) -> float32 batch``.

    Raises:
      ValueError: from what is returned: images smaller than ``size``.
    """

    def normal(stored: Array) -> Array:
        middle, unit = (jnp.asarray(v, jnp.float32).reshape((1,) * (stored.ndim - 1) + (-1,)) for v in (mean, scale))
        return (stored.astype(jnp.float32) - middle) / unit

    def prepare(stored: Array, key: Array | None) -> Array:
        if stored.ndim == 2:
            return normal(stored)
        count, height, width, _ = stored.shape
        target = (size, size) if size else (height, width)
        if target[0] > height or target[1] > width:
            raise ValueError(f"images of {height}x{width} pixels cannot be cut to {target[0]}x{target[1]}")
        if key is None or augmentation == "none":
            return _centre(normal(stored), target)
        if "rand" in augmentation:
            stored = rand_augment(jax.random.fold_in(key, 2), stored.astype(jnp.float32))
        crop_key, flip_key = jax.random.split(key)
        flipped = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1)) if "flip" in augmentation else None
        if "resized" in augmentation:
            return normal(resized_crop(crop_key, stored.astype(jnp.float32), target, flipped=flipped))
        if "crop" not in augmentation:
            return _mirrored(_centre(normal(stored), target), flipped)
        corners, border = _corners(crop_key, stored.shape, target)

        def sliced(stored: Array) -> Array:
            around = ((0, 0), *((side, side) for side in border), (0, 0))
            return _mirrored(_slices(jnp.pad(normal(stored), around), corners, target), flipped)

        def multiplied(stored: Array) -> Array:
            pixels, inside = _products(stored, [c - b for c, b in zip(corners, border, strict=True)], target, flipped)
            return jnp.where(inside, normal(pixels), 0.0)

        if stored.dtype != jnp.uint8:  # bfloat16 would round them
            return sliced(stored)
        return jax.lax.platform_dependent(stored, tpu=multiplied, default=sliced)

    return prepare


def several(prepare: Callable[[Array, Array | None], Array], copies: int) -> Callable[[Array, Array | None], Array]:
    """Prepare each input ``copies`` times while training, with changes of its own: ``[B, copies, ...]``."""

    def all_of(stored: Array, key: Array | None) -> Array:
        if key is None:
            return prepare(stored, None)
        return jnp.stack([prepare(stored, k) for k in jax.random.split(key, copies)], axis=1)

    return all_of


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


def _mirrored(x: Array, flipped: Array | None) -> Array:
    return x if flipped is None else jnp.where(flipped, x[:, :, ::-1], x)


def _corners(key: Array, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[tuple[Array, Array], tuple[int, int]]:
    """Top and left of every image's crop, int32 ``[B]``, and how far images are padded before they are cut."""
    border = (size[0] // 8, size[1] // 8) if shape[1:3] == size else (0, 0)
    most = [shape[axis] + 2 * border[axis - 1] - size[axis - 1] + 1 for axis in (1, 2)]
    top, left = (jax.random.randint(k, shape[:1], 0, m) for k, m in zip(jax.random.split(key), most, strict=True))
    return (top, left), border


def _slices(x: Array, corners: tuple[Array, Array], size: tuple[int, int]) -> Array:
    def crop(image: Array, top: Array, left: Array) -> Array:
        return jax.lax.dynamic_slice(image, (top, left, 0), (*size, image.shape[2]))

    return jax.vmap(crop)(x, *corners)


def _products(stored: Array, corners: list[Array], size: tuple[int, int], flipped: Array | None) -> tuple[Array, Array]:
    """Crops of uint8 images by products with rows and columns of a 1 each, and which pixels lie inside the image.

    A TPU has matrix products at hand, and would cut slices in a loop over the batch, each with a write to all of it.
    Each sum has one term, which bfloat16 holds: the pixels are exact.
    """
    rows, columns = (c[:, None] + jnp.arange(side)[None, :] for c, side in zip(corners, size, strict=True))
    if flipped is not None:
        columns = jnp.where(flipped[:, :, 0, 0], columns[:, ::-1], columns)
    height, width = stored.shape[1:3]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    some, others = (jax.nn.one_hot(i, n, dtype=jnp.bfloat16) for i, n in ((rows, height), (columns, width)))
    picked = jnp.einsum("bih,bhwc->biwc", some, stored.astype(jnp.bfloat16))
    return jnp.einsum("bjw,biwc->bijc", others, picked), inside[..., None]
