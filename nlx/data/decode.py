"""From a picture file to pixels, as a viewer shows them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from nlx.data.dataset import DataError
from nlx.data.records import named, opened

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_RANGES = (1.0, 255, 1023, 4095, 16383, 65535)  # largest values of floats and of 8, 10, 12, 14 and 16 bits
_ORIENTATION = 0x0112  # in EXIF
_MOST_TOLD = 10
_IN_MEMORY = re.compile(r" <_io\.BytesIO [^>]*>")  # how Pillow calls what is no file of its own
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: str, size: int, top: float | None = None) -> np.ndarray:
    """Read a picture as a viewer shows it, short side resized, centre cropped: upright, on white where transparent.

    Args:
      path: a file of one of ``FORMATS``, or a picture within a file, see :func:`nlx.data.records.opened`.
      size: height and width of the result, pixels.
      top: the value that is white in pictures of more than 8 bits or of floats; by default the picture's own largest
        value, rounded up to 1 (floats) or to 8, 10, 12, 14 or 16 bits.

    Returns:
      uint8 ``[size, size, 3]``.

    Raises:
      DataError: a file that cannot be read as a picture.
    """
    try:
        with Image.open(opened(path), formats=_formats()) as image:
            image.draft("RGB", (size, size))  # a JPEG decoder can halve the size on the way, many times faster
            width, height = image.size
            side = min(width, height)
            left, top_edge = (width - side) / 2, (height - side) / 2
            box = (left, top_edge, left + side, top_edge + side)
            rgb = _as_rgb(image, top)
            square = rgb
            if rgb.size != (size, size):
                square = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
            turn = _UPRIGHT.get(_orientation(image))
            return np.asarray(square if turn is None else square.transpose(turn))
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise DataError(f"{named(path)}: has more than {most} megapixels: make it smaller.") from error
    except Exception as error:  # a decoder may raise anything on a broken file
        why = _IN_MEMORY.sub("", str(error))
        raise DataError(f"{named(path)}: not a readable picture ({why}): replace it, or remove its row.") from error


def decode_all(paths: Sequence[str], size: int, top: float | None = None) -> np.ndarray:
    """Read many pictures with a pool of threads; decoding leaves Python's lock.

    Args:
      paths: n files.
      size: height and width of the result, pixels.
      top: see :func:`decode`.

    Returns:
      uint8 ``[n, size, size, 3]``.

    Raises:
      DataError: names the first file that cannot be read.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)
    pool = ThreadPoolExecutor()
    try:
        for row, image in enumerate(pool.map(partial(decode, size=size, top=top), paths)):
            images[row] = image
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def survey(paths: Sequence[str]) -> tuple[dict[int, str], float | None]:
    """Read all pictures once, small, to know which cannot be read and what is white in those of more than 8 bits.

    Of several processes, which all have to call this, each reads its share.

    Args:
      paths: n files.

    Returns:
      The sentence for each file that cannot be read, by its number; and the ``top`` that they share, None where no
      picture has more than 8 bits.

    Raises:
      DataError: 16-bit colour pictures that use few of their bits, of which Pillow keeps the upper eight.
    """
    rows = range(jax.process_index(), len(paths), jax.process_count())
    with ThreadPoolExecutor() as pool:
        found = zip(rows, pool.map(_survey, [paths[row] for row in rows]), strict=True)
        notable = [(row, *what) for row, what in found if what != (None, 0.0, -1)]
    told = sorted(_of_all_processes(notable), key=lambda one: one[0])
    broken = {row: error for row, error, _, _ in told if error is not None}
    tops = [0.0, *(own for _, _, own, _ in told)]
    colour = [(row, shade) for row, _, _, shade in told if shade >= 0]
    if colour and max(shade for _, shade in colour) < 64:
        raise DataError(
            f"{paths[colour[0][0]]}: 16-bit colour, but no picture of the set uses the upper two bits, so that all "
            "would be nearly black: scale the pictures to 8 bits, and save them again."
        )
    return broken, max(tops) or None


def broken_files(broken: dict[int, str]) -> str:
    """One sentence on all files that cannot be read: the first ten, and how many there are."""
    sentences = list(broken.values())
    if len(sentences) == 1:
        return f"{sentences[0].rstrip('.')}; or leave it out by `skip_broken`."
    names = [sentence.partition(": ")[0] for sentence in sentences]
    more = f", and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    return (
        f"{sentences[0].partition(': ')[0]} and others, {len(names)} files in all, are not readable pictures: replace "
        f"them, or leave them out by `skip_broken`: {', '.join(map(os.path.basename, names[:_MOST_TOLD]))}{more}."
    )


def _survey(path: str) -> tuple[str | None, float, int]:
    """What is wrong with a picture, the range that it uses if it is deep, and its brightest shade if 16-bit colour."""
    try:
        pixels = decode(path, 32)
        with Image.open(path, formats=_formats()) as image:
            deep_colour = ";16" in str(image.tile) and image.mode in ("RGB", "RGBA", "LA")
            own = _range(np.asarray(image)) if image.mode[0] in "IF" else 0.0
        return None, own, int(pixels.max()) if deep_colour else -1
    except DataError as error:
        return str(error), 0.0, -1
    except Exception as error:
        return f"{path}: not a readable picture ({error}): replace it, or remove its row.", 0.0, -1


def _of_all_processes(own: list[Any]) -> list[Any]:
    """What every process has, as JSON has it."""
    if jax.process_count() == 1:
        return own
    text = np.frombuffer(json.dumps(own).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(text)))
    padded = multihost_utils.process_allgather(np.pad(text, (0, int(sizes.max()) - len(text))))
    return [one for row, size in zip(padded, sizes, strict=True) for one in json.loads(bytes(row[:size]))]


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what is broken here says nothing of the pixels
        return 1


def _range(values: np.ndarray) -> float:
    """The least of the usual ranges that holds all values."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= _RANGES[-1]):
        raise ValueError(f"its values go from {low:g} to {high:g}, not from 0 to 65535 at most")
    return next(r for r in (_RANGES if values.dtype.kind == "f" else _RANGES[1:]) if high <= r)


def _as_rgb(image: Image.Image, top: float | None) -> Image.Image:
    if image.mode[0] in "IF":  # 16-bit grey and floats, which convert() would clip to white instead of scaling
        values = np.asarray(image)
        scaled = np.rint(values * (255 / (_range(values) if top is None else top)))
        return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    image.load()  # Pillow turns some upright as it reads them
    return image if image.mode == "RGB" else image.convert("RGB")
