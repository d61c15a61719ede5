"""Random resized crops: Pillow's resampling at random places, of the sizes and shapes asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nlx.data import prepare
from nlx.data.resized_crop import resampled, resized_crop


def pictures(count, height=40, width=30, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize("size", [(16, 16), (40, 30), (64, 48)])
def test_parts_are_as_pillow_resamples_them(size):
    images = pictures(4)
    tops, heights = np.array([0, 3.25, 10, 39], np.float32), np.array([40, 20.5, 7, 1], np.float32)
    lefts, widths = np.array([0, 1.5, 20, 2], np.float32), np.array([30, 25, 10, 3.125], np.float32)
    ours = jax.jit(resampled, static_argnums=3)(images, (tops, heights), (lefts, widths), size, None)
    for i, image in enumerate(images):
        box = (lefts[i], tops[i], lefts[i] + widths[i], tops[i] + heights[i])
        for channel in range(3):
            plane = Image.fromarray(image[:, :, channel])  # of float32, so that nothing is rounded
            theirs = np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR, box=box))
            np.testing.assert_allclose(ours[i, :, :, channel], theirs, atol=2e-3)


def test_mirrored_parts_are_the_same_from_right_to_left():
    images, key = pictures(6), jax.random.key(0)
    flipped = np.arange(6).reshape(6, 1, 1, 1) % 2 == 0
    plain = np.asarray(resized_crop(key, images, (8, 8)))
    mirrored = np.asarray(resized_crop(key, images, (8, 8), flipped=jnp.asarray(flipped)))
    np.testing.assert_allclose(mirrored, np.where(flipped, plain[:, :, ::-1], plain), rtol=1e-5, atol=1e-3)


def test_places_sizes_and_shapes_are_those_asked_for():
    """Of pictures whose pixels say where they lie, the first and the last pixel of a part tell its box."""
    height, width, count, out = 50, 60, 4000, 50
    rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    images = np.broadcast_to(np.stack([rows, columns], axis=-1).astype(np.float32), (count, height, width, 2))
    parts = np.asarray(resized_crop(jax.random.key(1), images, (out, out), area=(0.3, 0.6)))
    inner = parts[:, 1:-1, 1:-1]  # at the border of a picture weights are one-sided
    high = (inner[:, -1, 0, 0] - inner[:, 0, 0, 0]) * out / (out - 3)
    wide = (inner[:, 0, -1, 1] - inner[:, 0, 0, 1]) * out / (out - 3)
    share, ratio = high * wide / (height * width), wide / high
    assert 0.29 < share.min() < 0.31
    assert 0.59 < share.max() < 0.61
    assert share.mean() == pytest.approx(0.45, abs=0.01)
    assert 0.74 < ratio.min() < 0.77
    assert 1.31 < ratio.max() < 1.35
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.02)
    middle = parts[:, :, :, 0].mean(axis=(1, 2))
    assert middle.mean() == pytest.approx(height / 2, abs=0.5)
    assert (middle - high / 2).min() == pytest.approx(0, abs=0.6)
    assert (middle + high / 2).max() == pytest.approx(height, abs=0.6)


def test_the_whole_picture_comes_out_as_it_is():
    images = pictures(3, 24, 24)
    same = resized_crop(jax.random.key(0), images, (24, 24), area=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(same, images, atol=1e-2)


def test_a_preparer_crops_in_training_and_cuts_the_centre_otherwise():
    stored = pictures(4, 12, 12).astype(np.uint8)
    mean, scale = np.full(3, 100.0, np.float32), np.full(3, 50.0, np.float32)
    cut = jax.jit(prepare.preparer(mean, scale, augmentation="resized-crop-flip", size=8))
    seen = cut(stored, jax.random.key(0))
    assert seen.shape == (4, 8, 8, 3)
    np.testing.assert_allclose(cut(stored, None), (stored[:, 2:10, 2:10].astype(np.float32) - 100) / 50, rtol=1e-6)
    one_key, flip_key = jax.random.split(jax.random.key(0))
    flipped = jax.random.bernoulli(flip_key, 0.5, (4, 1, 1, 1))
    expected = resized_crop(one_key, stored.astype(np.float32), (8, 8), flipped=flipped)
    np.testing.assert_allclose(seen, (expected - 100) / 50, rtol=1e-4, atol=1e-4)
    both = prepare.preparer(mean, scale, augmentation="resized-crop-flip-rand", size=8)
    assert np.abs(both(stored, jax.random.key(0)) - seen).max() > 0.1
