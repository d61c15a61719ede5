"""From a picture file to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from nlx.data.dataset import DataError


def decode(path: str, size: int) -> np.ndarray:
    """Read a picture: short side resized, centre cropped, RGB.

    Args:
      path: any format that Pillow reads.
      size: height and width of the result, pixels.

    Returns:
      uint8 ``[size, size, 3]``.

    Raises:
      DataError: a file that cannot be read as a picture.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # a JPEG decoder can halve the size on the way, many times faster
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            square = _as_rgb(image).resize(
                (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side), reducing_gap=3.0
            )
            return np.asarray(square)
    except Exception as error:  # a decoder may raise anything on a broken file
        raise DataError(f"{path}: not a readable picture ({error}): replace it, or remove its row.") from error


def decode_all(paths: Sequence[str], size: int) -> np.ndarray:
    """Read many pictures with a pool of threads; decoding leaves Python's lock.

    Args:
      paths: n files.
      size: height and width of the result, pixels.

    Returns:
      uint8 ``[n, size, size, 3]``.

    Raises:
      DataError: names the first file that cannot be read.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)
    pool = ThreadPoolExecutor()
    try:
        for row, image in enumerate(pool.map(decode, paths, [size] * len(paths))):
            images[row] = image
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip to white instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns of going straight to RGB
        image = image.convert("RGBA")
    return image.convert("RGB")
