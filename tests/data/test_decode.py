"""Pictures to pixels: short side resized, centre cropped, RGB, whatever the file."""

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError
from nlx.data.decode import decode, decode_all, survey


def gradient(height, width):
    """A picture whose red grows downwards and whose green grows to the right."""
    red = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    green = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    return np.stack([red, green, np.full((height, width), 77)], axis=-1).astype(np.uint8)


def test_square_of_the_right_size_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    result = decode(str(tmp_path / "x.png"), 16)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("height", "width"), [(400, 600), (600, 400), (37, 53)])
def test_short_side_is_resized_and_the_centre_cropped(tmp_path, suffix, height, width):
    Image.fromarray(gradient(height, width)).save(tmp_path / f"x.{suffix}", quality=95)
    result = decode(str(tmp_path / f"x.{suffix}"), 32).astype(float)
    assert result.shape == (32, 32, 3)
    side = min(height, width)
    at = (np.arange(32) + 0.5) * side / 32 - 0.5
    red = 255 * (at + (height - side) / 2) / (height - 1)
    green = 255 * (at + (width - side) / 2) / (width - 1)
    np.testing.assert_allclose(result[:, 16, 0], red, atol=6)
    np.testing.assert_allclose(result[16, :, 1], green, atol=6)
    np.testing.assert_allclose(result[..., 2], 77, atol=4)


def white_under(picture):
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_pictures_stand_upright(tmp_path, suffix):
    pixels, exif = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), Image.Exif()
    upright = [pixels, pixels[:, ::-1], pixels[::-1, ::-1], pixels[::-1], pixels.transpose(1, 0, 2)]
    upright += [np.rot90(pixels, -1), np.rot90(pixels, 2).transpose(1, 0, 2), np.rot90(pixels)]
    for orientation, expected in enumerate(upright, 1):
        exif[0x0112], path = orientation, tmp_path / f"x.{suffix}"
        Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        np.testing.assert_array_equal(decode(str(path), 8), expected)


@pytest.mark.parametrize("top", [255, 1020, 4080, 16320, 65535])
def test_deep_pictures_use_the_range_of_their_set(tmp_path, top):
    steps = np.tile(np.linspace(0, top, 64).astype(np.uint16), (64, 1))
    Image.fromarray(steps).save(tmp_path / "bright.png")
    Image.fromarray(steps // 2).save(tmp_path / "dim.png")
    paths = [str(tmp_path / name) for name in ("bright.png", "dim.png")]
    broken, white = survey(paths)
    bright, dim = decode_all(paths, 64, white)
    assert not broken
    assert len(np.unique(bright)) == 64
    assert bright.max() > 250
    assert abs(int(dim.max()) - bright.max() / 2) <= 1
    for values in (steps - np.float32(9), steps * np.float32(1e4)):
        Image.fromarray(values.astype(np.float32)).save(tmp_path / "float.tif")
        with pytest.raises(DataError, match="not from 0 to 65535"):
            decode(str(tmp_path / "float.tif"), 64)


def test_every_mode_becomes_rgb(tmp_path):
    pixels = gradient(8, 8)
    rgb = Image.fromarray(pixels)
    grey = pixels[..., 1]
    palette = rgb.quantize(16)
    palette.info["transparency"] = bytes([40, 200] + [255] * 14)  # Pillow warns if this is not converted with care
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    pictures = {
        "grey": (Image.fromarray(grey), np.stack([grey] * 3, -1), 0),
        "deep": (deep, np.stack([grey] * 3, -1), 0),
        "alpha": (rgb.convert("RGBA"), pixels, 0),
        "palette": (palette, np.asarray(white_under(palette)), 0),
        "bilevel": (Image.fromarray(grey > 127), np.stack([(grey > 127) * 255] * 3, -1), 0),
    }
    for name, (picture, expected, tolerance) in pictures.items():
        path = tmp_path / f"{name}.png"
        picture.save(path)
        np.testing.assert_allclose(decode(str(path), 8).astype(int), expected, atol=tolerance, err_msg=name)
    rgb.convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert decode(str(tmp_path / "x.jpg"), 8).shape == (8, 8, 3)


def test_broken_files_are_named(tmp_path):
    Image.fromarray(gradient(64, 64)).save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    for name, content in {"empty.jpg": b"", "text.png": b"hello", "half.jpg": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: not a readable picture"):
            decode(str(tmp_path / name), 8)
    with pytest.raises(DataError, match=r"gone.png: not a readable picture"):
        decode(str(tmp_path / "gone.png"), 8)


def test_a_picture_of_too_many_pixels_is_told_by_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    Image.new("1", (1500, 1500)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.png: has more than 2 megapixels: make it smaller\.$"):
        decode(str(tmp_path / "x.png"), 8)


def test_many_keep_their_order_and_name_the_broken_one(tmp_path):
    paths = []
    for i in range(30):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (10, 12), (i, 2 * i, 3 * i)).save(paths[-1])
    images = decode_all(paths, 4)
    assert images.shape == (30, 4, 4, 3)
    np.testing.assert_array_equal(images[:, 1, 1], np.arange(30)[:, None] * np.array([1, 2, 3]))
    (tmp_path / "17.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"17.png"):
        decode_all(paths, 4)
    assert decode_all([], 4).shape == (0, 4, 4, 3)
