"""Features of pictures: by a frozen pretrained network or, where there is none, by filters learnt from patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlx.data.dataset import ImageFiles
from nlx.data.decode import decode_all
from nlx.data.prepare import IMAGENET
from nlx.models.pretrained import frozen

SIDE = 16  # pixels, from which on pictures have patches
_PATCH, _FILTERS, _POOLS = 6, 256, 2
_SAMPLES, _ROUNDS, _BLOCK = 40_000, 10, 32
_SMALL = 32  # pixels; pictures of twice that and more are made smaller
_LOOKED_AT = 5_000  # pictures that patches are taken from
_FINE = 1600  # pixels, up to which every patch is looked at
_CONTRAST, _WHITE = 10.0, 0.1


class Patterns(NamedTuple):
    """What pictures are compared with, found in the pictures themselves; no label enters, and nothing is downloaded.

    Attributes:
      mean: of patches, ``[d]``.
      white: what makes their dimensions alike, ``[d, d]``.
      centres: of patches, unit vectors ``[256, d]``.
    """

    mean: Array
    white: Array
    centres: Array


def patterns_of(images: np.ndarray) -> Patterns:
    """The centres of the pictures' own patches, 6 pixels wide and whitened.

    Args:
      images: uint8 ``[n, H, W]`` or ``[n, H, W, C]``, at least 16 pixels high and wide. Those of 64 pixels and more are
        averaged down to 32 to 63, so that a patch is large enough to say something.

    References:
      Coates, Ng and Lee, 2011, An analysis of single-layer networks in unsupervised feature learning; Coates and Ng,
      2011, The importance of encoding versus training (larger pictures at 32 pixels).
    """
    rng = np.random.default_rng(0)
    images = images if len(images) <= _LOOKED_AT else images[np.sort(rng.permutation(len(images))[:_LOOKED_AT])]
    small = _smaller(images)
    n, height, width = small.shape[:3]
    which = rng.integers(0, n, _SAMPLES)
    tops, lefts = (rng.integers(0, size - _PATCH + 1, _SAMPLES)[:, None, None] for size in (height, width))
    square = np.arange(_PATCH)
    patches = small[which[:, None, None], tops + square[:, None], lefts + square]
    flat = _even(jnp.asarray(patches.reshape(_SAMPLES, -1), jnp.float32))
    mean = flat.mean(axis=0)
    values, vectors = jnp.linalg.eigh((flat - mean).T @ (flat - mean) / _SAMPLES)
    white = (vectors / jnp.sqrt(jnp.maximum(values, 0) + _WHITE)) @ vectors.T
    return Patterns(mean, white, _centres((flat - mean) @ white, jax.random.key(0)))


def patch_features(images: np.ndarray, patterns: Patterns | None = None) -> np.ndarray:
    """How much of each of 256 patterns there is in each quarter of a picture.

    A patch counts for the patterns that are nearer to it than the mean one.

    Args:
      images: as for :func:`patterns_of`.
      patterns: what they are compared with; by default their own.

    Returns:
      float32 ``[n, 1024]``; time goes with n.
    """
    patterns, parts = patterns_of(images) if patterns is None else patterns, []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        padded = np.concatenate([block, np.zeros((_BLOCK - len(block), *block.shape[1:]), np.uint8)])
        parts.append(np.asarray(pooled(padded, patterns))[: len(block)])
    return np.concatenate(parts)


def _smaller(images: Any) -> Any:
    """Means of squares of pixels, so that the shorter side is 32 to 63, ``[n, h, w, C]``; of NumPy's or JAX's."""
    images = images if images.ndim == 4 else images[..., None]
    n, height, width, channels = images.shape
    times = max(min(height, width) // _SMALL, 1)
    if times == 1:
        return images
    rows, columns = height // times, width // times
    part = images[:, : rows * times, : columns * times].astype(np.float32)
    return part.reshape(n, rows, times, columns, times, channels).mean(axis=(2, 4)).round()


def frozen_features(files: ImageFiles, weights: Path, model: str | None = None) -> np.ndarray:
    """Features of picture files by a pretrained network, see :func:`nlx.models.pretrained.frozen`.

    Args:
      files: n pictures; they are decoded a few at a time.
      weights: safetensors with torchvision's or timm's names, ``timm:NAME``, or the folder of a run or a checkpoint.
      model: what they are of, where their names do not say.

    Returns:
      float32 ``[n, F]``.

    Raises:
      ArgumentError: the weights are of something else.
    """
    features, parts = frozen(weights, IMAGENET, model), []
    for start in range(0, len(files), _BLOCK):
        paths = files.paths[start : start + _BLOCK]
        images = np.zeros((_BLOCK, *files.shape[1:]), np.uint8)
        images[: len(paths)] = decode_all(paths, files.size, files.top)
        parts.append(features(images)[: len(paths)])
    return np.concatenate(parts)


def _even(patches: Array) -> Array:
    """Patches ``[m, d]`` of one brightness and contrast."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    return centred / jnp.sqrt(centred.var(axis=1, keepdims=True) + _CONTRAST)


@jax.jit
def _centres(patches: Array, key: Array) -> Array:
    """Centres of clusters by spherical k-means, unit vectors ``[256, d]``."""

    def unit(x: Array) -> Array:
        return x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-6)

    def refined(_: int, centres: Array) -> Array:
        cosines = patches @ centres.T
        nearest = jnp.argmax(cosines, axis=1)
        weight = jnp.take_along_axis(cosines, nearest[:, None], axis=1)
        return unit(jnp.zeros_like(centres).at[nearest].add(weight * patches) + centres)

    start = unit(jax.random.normal(key, (_FILTERS, patches.shape[1])))
    return jax.lax.fori_loop(0, _ROUNDS, refined, start)


@jax.jit
def pooled(images: Array, patterns: Patterns) -> Array:
    """Features of one block of pictures, see :func:`patch_features`, float32 ``[B, 1024]``."""
    mean, white, centres = patterns
    small = _smaller(images)
    stride = 1 if small.shape[1] * small.shape[2] <= _FINE else 2
    pixels = jnp.moveaxis(small.astype(jnp.float32), 3, 1)
    found = jax.lax.conv_general_dilated_patches(pixels, (_PATCH, _PATCH), (stride, stride), "VALID")
    b, _, rows, columns = found.shape
    # Patches come by channel, then by place; those that the filters are of have channels last.
    patches = found.reshape(b, -1, _PATCH * _PATCH, rows, columns).transpose(0, 3, 4, 2, 1).reshape(-1, len(mean))
    flat = (_even(patches) - mean) @ white
    squares = jnp.sum(flat**2, axis=1, keepdims=True) + 1 - 2 * flat @ centres.T
    distance = jnp.sqrt(jnp.maximum(squares, 0))
    near = jnp.maximum(distance.mean(axis=1, keepdims=True) - distance, 0).reshape(b, rows, columns, -1)
    halves = [jnp.array_split(part, _POOLS, axis=2) for part in jnp.array_split(near, _POOLS, axis=1)]
    return jnp.concatenate([quarter.mean(axis=(1, 2)) for half in halves for quarter in half], axis=1)
