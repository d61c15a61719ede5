"""Small pictures of examples, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from nlx.data.dataset import DataError, ImageFiles, Inputs
from nlx.data.decode import decode

SHOWN = 72  # pixels of a page; smaller pictures are shown with their pixels as squares
_SIDE = 108  # pixels that are kept, so that they are sharp on fine screens
_EXACT = 16  # up to this size, and in grey up to twice as much, nothing is lost to JPEG
_FILES = 2000  # pictures that are read from files again
_AT_ONCE = 64


def thumbnails(inputs: Inputs | None, index: Sequence[int], limit: int) -> list[str]:
    """Data URIs of examples in the order given, as many of the first as fit.

    Args:
      inputs: images, uint8 ``[n, H, W, C]`` or files; feature vectors and None give none.
      index: of the examples.
      limit: of all URIs together, bytes.
    """
    if inputs is None or len(inputs.shape) != 4:
        return []
    found: list[str] = []
    wanted, size = iter(index[:_FILES] if isinstance(inputs, ImageFiles) else index), 0
    with ThreadPoolExecutor() as pool:
        while part := list(islice(wanted, _AT_ONCE)):
            for uri in pool.map(lambda i: _thumbnail(inputs, i), part):
                size += len(uri)
                if size > limit:
                    return found
                found.append(uri)
    return found


def is_large(inputs: Inputs | None) -> bool:
    """Whether pictures have more pixels than are shown of them."""
    return inputs is not None and len(inputs.shape) == 4 and max(inputs.shape[1:3]) > SHOWN


def _thumbnail(inputs: Inputs, index: int) -> str:
    """One picture; empty where its file can no longer be read."""
    if isinstance(inputs, ImageFiles):
        try:
            pixels = decode(inputs.paths[index], min(inputs.size, _SIDE), inputs.top)
        except DataError:
            return ""
    else:
        pixels = inputs[index]
        # One channel is grey, three are colours; of any other number the first is shown.
        pixels = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE))
    exact = max(image.size) <= _EXACT * (2 if image.mode == "L" else 1)
    image.save(buffer, "PNG" if exact else "JPEG", **({} if exact else {"quality": 78}))
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
