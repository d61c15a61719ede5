"""From stored inputs to the model's: figures against float64, crops and flips against the pixels they come from."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.data import ImageFiles
from nlx.data.prepare import normalization, preparer, six_views

RNG = np.random.default_rng(0)
ZERO, ONE = np.zeros(1, np.float32), np.ones(1, np.float32)


def numbered(n=40, height=8, width=8, channels=1):
    """Images in which every pixel has a value of its own, none of them 0."""
    size = n * height * width * channels
    return jnp.arange(1, 1 + size, dtype=jnp.float32).reshape(n, height, width, channels)


def windows(image, size):
    """Every crop of an image by its corner."""
    height, width = image.shape[0] - size + 1, image.shape[1] - size + 1
    return {(i, j): image[i : i + size, j : j + size] for i in range(height) for j in range(width)}


def place_of(crop, image):
    """The corner at which a crop was cut, by comparing pixels."""
    (corner,) = [corner for corner, window in windows(image, crop.shape[0]).items() if (window == crop).all()]
    return corner


def test_features_keep_their_relative_sizes():
    x = (RNG.normal(size=(500, 4)) * [10, 1, 0.1, 0.0] + [0, 5, -3, 7]).astype(np.float32)
    mean, scale = normalization(x)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scale, x.std(dtype=np.float64), rtol=1e-6)
    assert mean.shape == (4,)
    assert scale.shape == ()
    out = np.asarray(preparer(mean, scale)(jnp.asarray(x), None))
    np.testing.assert_allclose(out, (x - x.mean(axis=0)) / x.std(), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalized_per_channel(channels):
    x = RNG.integers(0, 256, (30, 5, 7, channels), dtype=np.uint8) // np.arange(1, channels + 1, dtype=np.uint8)
    mean, scale = normalization(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(scale, x.std(axis=(0, 1, 2)), rtol=1e-6)
    out = np.asarray(preparer(mean, scale)(jnp.asarray(x), None))
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_figures_of_many_bright_pixels_are_exact():
    """Ten million values near 255 add up to more than a float32 sum can tell apart."""
    x = np.tile(np.array([254, 255, 253], np.uint8), (800, 112, 112, 1))
    x[::2, :, :, 0] = 0
    mean, scale = normalization(x)
    np.testing.assert_allclose(mean, [127, 255, 253], rtol=1e-6)
    np.testing.assert_allclose(scale, [127, 1e-6, 1e-6], rtol=1e-6)


def test_a_large_set_is_sampled_over_its_whole_length():
    x = np.zeros((70, 1000, 1000, 1), np.uint8)
    x[35:] = 100
    mean, scale = normalization(x)
    assert abs(mean[0] - 50) < 2
    assert abs(scale[0] - 50) < 1


def test_files_take_the_figures_of_imagenet():
    mean, scale = normalization(ImageFiles(("a.png", "b.png"), 4))
    np.testing.assert_allclose(mean / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(scale / 255, [0.229, 0.224, 0.225], rtol=1e-6)


@pytest.mark.parametrize("x", [np.full((9, 3), 7, np.float32), np.full((9, 4, 4, 3), 7, np.uint8)])
def test_constant_inputs_stay_finite(x):
    np.testing.assert_array_equal(preparer(*normalization(x))(jnp.asarray(x), None), 0)


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop", "crop-flip"])
def test_evaluation_sees_images_as_they_are(augmentation):
    x = numbered(3, 6, 8)
    np.testing.assert_array_equal(preparer(ZERO, ONE, augmentation=augmentation)(x, None), x)


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_evaluation_cuts_out_the_centre(augmentation):
    x = numbered(3, 10, 12, 3)
    prepare = preparer(np.zeros(3), np.ones(3), augmentation=augmentation, size=6)
    np.testing.assert_array_equal(prepare(x, None), x[:, 2:8, 3:9])


def test_no_augmentation_leaves_training_images_to_the_centre(key):
    x = numbered(3, 10, 10)
    np.testing.assert_array_equal(preparer(ZERO, ONE, size=8)(x, key), x[:, 1:9, 1:9])


def test_crops_of_images_of_the_models_size_are_windows_of_the_padded_image(key):
    x = numbered(200)
    crops = np.asarray(preparer(ZERO, ONE, augmentation="crop")(x, key))
    assert crops.shape == x.shape
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = [place_of(crop, image) for crop, image in zip(crops, padded, strict=True)]
    assert set(places) == {(i, j) for i in range(3) for j in range(3)}
    counts = np.array([places.count(place) for place in sorted(set(places))])
    assert ((counts - 200 / 9) ** 2 / (200 / 9)).sum() < 26.1  # chi-square, 8 degrees of freedom, p = 0.001


def test_crops_of_larger_images_are_windows_of_the_image_itself(key):
    x = numbered(60, 9, 10)
    crops = np.asarray(preparer(ZERO, ONE, augmentation="crop", size=8)(x, key))
    places = [place_of(crop, image) for crop, image in zip(crops, np.asarray(x), strict=True)]
    assert set(places) == {(i, j) for i in range(2) for j in range(3)}


def test_images_that_are_not_square_keep_their_shape(key):
    x = numbered(100, 16, 8)
    crops = np.asarray(preparer(ZERO, ONE, augmentation="crop")(x, key))
    assert crops.shape == x.shape
    padded = np.pad(np.asarray(x), ((0, 0), (2, 2), (1, 1), (0, 0)))
    rows = {(i, j) for i in range(5) for j in range(3)}
    for crop, image in zip(crops, padded, strict=True):
        assert any((image[i : i + 16, j : j + 8] == crop).all() for i, j in rows)


def test_half_of_the_images_are_mirrored(key):
    x = numbered(400)
    out = np.asarray(preparer(ZERO, ONE, augmentation="flip")(x, key))
    same = (out == x).all(axis=(1, 2, 3))
    mirrored = (out == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(int(mirrored.sum()) - 200) < 33  # 3.3 standard deviations


def test_crops_and_flips_are_drawn_apart(key):
    x = numbered(300)
    out = np.asarray(preparer(ZERO, ONE, augmentation="crop-flip")(x, key))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = set()
    for crop, image in zip(out, padded, strict=True):
        flipped = not any((window == crop).all() for window in windows(image, 8).values())
        seen.add((place_of(crop[:, ::-1] if flipped else crop, image), flipped))
    assert len(seen) == 18  # nine places, each in both hands


def test_the_key_decides_everything(key):
    x = numbered(50)
    prepare = preparer(ZERO, ONE, augmentation="crop-flip")
    np.testing.assert_array_equal(prepare(x, key), prepare(x, key))
    np.testing.assert_array_equal(prepare(x, key), jax.jit(prepare)(x, key))
    assert (np.asarray(prepare(x, key)) != prepare(x, jax.random.key(1))).any()


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_stored_pixels_become_float32_between_jit_and_eager(augmentation, key):
    x = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    prepare = preparer(*normalization(x), augmentation=augmentation)
    out = jax.jit(prepare)(jnp.asarray(x), key)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, prepare(jnp.asarray(x), key), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((8, 6), None), ((12, 9), 7)])
def test_a_tpu_cuts_the_same_crops_without_a_loop_over_the_batch(shape, size, key, monkeypatch):
    x = jnp.asarray(RNG.integers(0, 256, (40, *shape, 3), dtype=np.uint8))
    prepare = preparer(*normalization(np.asarray(x)), augmentation="crop-flip", size=size)
    expected = jax.jit(prepare)(x, key)
    program = jax.export.export(jax.jit(prepare), platforms=["tpu"])(x, key).mlir_module()
    assert not re.search("stablehlo.(gather|dynamic_slice)", program)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, *, tpu, default: tpu(x))
    np.testing.assert_array_equal(jax.jit(lambda x: prepare(x, key))(x), expected)


def test_padding_is_the_mean_colour(key):
    x = jnp.full((50, 8, 8, 1), 200, jnp.uint8)
    out = np.asarray(preparer(np.float32([100.0]), np.float32([50.0]), augmentation="crop")(x, key))
    assert set(np.unique(out)) == {0.0, 2.0}


def test_images_smaller_than_the_model_sees_are_refused():
    with pytest.raises(ValueError, match="10x6 pixels cannot be cut to 8x8"):
        preparer(ZERO, ONE, size=8)(jnp.zeros((2, 10, 6, 1)), None)


def test_six_views_are_the_corners_the_centre_and_its_mirror():
    x = numbered(2, 10, 12)
    views = six_views(6)(x)
    assert len(views) == 6
    expected = [x[:, :6, :6], x[:, :6, 6:], x[:, 4:, :6], x[:, 4:, 6:], x[:, 2:8, 3:9], x[:, 2:8, 3:9][:, :, ::-1]]
    for view, other in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view, other)


def test_each_feature_at_its_own_scale_where_that_is_asked_for():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * np.float32([1, 1000, 0]) + np.float32(5)
    mean, scale = normalization(x, per_feature=True)
    np.testing.assert_allclose(scale[:2], x[:, :2].std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        np.asarray(preparer(mean, scale)(jnp.asarray(x), None)).std(axis=0), [1, 1, 0], atol=1e-4
    )
