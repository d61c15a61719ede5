"""RandAugment's ways, each beside Pillow's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from nlx.data import prepare
from nlx.data.rand_augment import COLOURS, PLACES, coloured, moved_by, rand_augment

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(20, 230, (5, 6, 3), dtype=np.uint8)).resize((18, 15), Image.Resampling.BICUBIC)
)
PICTURE = Image.fromarray(SMOOTH)
PEERS = {
    "identity": lambda by: PICTURE,
    "brightness": lambda by: ImageEnhance.Brightness(PICTURE).enhance(1 + 0.9 * by),
    "contrast": lambda by: ImageEnhance.Contrast(PICTURE).enhance(1 + 0.9 * by),
    "colour": lambda by: ImageEnhance.Color(PICTURE).enhance(1 + 0.9 * by),
    "posterize": lambda by: ImageOps.posterize(PICTURE, 8 - round(4 * abs(by))),
    "solarize": lambda by: ImageOps.solarize(PICTURE, 256 * (1 - abs(by))),
    "auto_contrast": lambda by: ImageOps.autocontrast(PICTURE),
}


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("by", [0.5, -0.5])
def test_colours_are_those_of_pillow(name, by):
    ours = coloured(jnp.asarray(SMOOTH, jnp.float32), jnp.int32(COLOURS.index(name)), jnp.float32(by))
    np.testing.assert_allclose(ours, np.asarray(PEERS[name](by), np.float32), atol=1.5)


def affine(by):
    height, width = SMOOTH.shape[:2]
    a = {"shear_x": (1, 0.3 * by, 0, 0, 1, 0), "shear_y": (1, 0, 0, 0.3 * by, 1, 0)}
    a |= {"translate_x": (1, 0, 0.45 * width * by, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, 0.45 * height * by)}
    return a


@pytest.mark.parametrize("name", PLACES)
def test_pixels_come_from_where_pillow_takes_them(name):
    by, chosen = 0.4, jnp.asarray([place == name for place in PLACES], jnp.float32)
    ours = np.asarray(moved_by(jnp.asarray(SMOOTH, jnp.float32), jnp.float32(by) * chosen))
    if name == "rotate":
        theirs = PICTURE.rotate(np.degrees(np.pi / 6) * by, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
    else:
        a, b, c, d, e, f = affine(by)[name]
        x, y = SMOOTH.shape[1] / 2, SMOOTH.shape[0] / 2  # about the middle
        matrix = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
        theirs = PICTURE.transform(
            PICTURE.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
        )
    inside = np.abs(ours - np.asarray(theirs, np.float32))[3:-3, 3:-3]
    kept = inside[(np.asarray(theirs)[3:-3, 3:-3] != 128).any(axis=2)]  # at the edge Pillow mixes otherwise
    assert np.quantile(kept, 0.9) < 1.5
    assert np.abs(ours - SMOOTH).max() > 10


def test_each_picture_is_changed_in_its_own_way():
    images = jnp.broadcast_to(jnp.asarray(SMOOTH, jnp.float32)[None], (12, *SMOOTH.shape))
    changed = np.asarray(jax.jit(partial(rand_augment, count=1))(jax.random.key(0), images))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert len({image.tobytes() for image in changed}) >= 6


def test_pictures_are_changed_before_they_are_normalized_and_cut_and_only_in_training(monkeypatch):
    monkeypatch.setattr(prepare, "rand_augment", lambda key, images: images + 7)
    stored = np.full((2, 8, 8, 1), 3, np.uint8)
    augment = prepare.preparer(np.ones(1), np.full(1, 2.0), augmentation="crop-flip-rand", size=6)
    np.testing.assert_allclose(augment(stored, jax.random.key(0)), np.full((2, 6, 6, 1), 4.5))
    np.testing.assert_allclose(augment(stored, None), np.full((2, 6, 6, 1), 1.0))
