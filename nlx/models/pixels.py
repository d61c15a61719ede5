"""The mean and deviation of the pixels that a network was trained on elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nlx.arguments import ArgumentError
from nlx.models.naming import of_transformers
from nlx.models.own import file_of, of_a_run, told_beside
from nlx.models.stored import header_of

Pixels = tuple[np.ndarray, np.ndarray]

CLIP = (
    255 * np.array([0.48145466, 0.4578275, 0.40821073], np.float32),
    255 * np.array([0.26862954, 0.26130258, 0.27577711], np.float32),
)
_HALF = (np.full(3, 127.5, np.float32), np.full(3, 127.5, np.float32))


def pixels_of(path: Path, imagenet: Pixels) -> Pixels | None:
    """Mean and standard deviation of the channels that a network with such weights expects.

    What timm's config.json says that lies beside the file; else, by the names in it, CLIP's for its image towers,
    127.5 for timm's ViTs and PreAct-ResNets, as most of these have it there, and ImageNet's for all others. Of a run
    and an orbax checkpoint, what ``pixels`` is in the config.json that lies there: of a run, what it began with.

    Args:
      path: of weights, as for :func:`nlx.models.pretrained.load_weights`.
      imagenet: ImageNet's, of pixels from 0 to 255, which come back where there is no file.

    Returns:
      float32 ``[3]`` each, of pixels from 0 to 255; None for a run that began with no weights, or whose own did, and
      for a checkpoint of which nothing is said.

    Raises:
      ArgumentError: it cannot be fetched, or is no file of weights, or config.json has other ``pixels``.
      OSError: it cannot be read.
    """
    file = file_of(path)
    if not file.exists():
        return imagenet
    config = told_beside(file)
    if of_a_run(file):
        return None if config.get("pixels") is None else _told(config["pixels"], path)
    if "mean" in (about := config.get("pretrained_cfg", {})):
        return _pair(*([255 * value for value in about[key]] for key in ("mean", "std")))
    names = header_of(file)
    if "norm_pre.weight" in names or of_transformers(names):
        return CLIP
    plain = "cls_token" in names and "blocks.0.ls1.gamma" not in names
    return _HALF if plain or "stem.conv.weight" in names else imagenet


def _told(pixels: Any, path: Path) -> Pixels:
    try:
        pair = _pair(*pixels)
        if [part.shape for part in pair] == [(3,), (3,)] and np.isfinite(pair).all() and (pair[1] > 0).all():
            return pair
    except (TypeError, ValueError):
        pass
    raise ArgumentError(f"{path}: `pixels` in its config.json must be three means and three deviations above 0")


def _pair(mean: list[float], scale: list[float]) -> Pixels:
    return np.array(mean, np.float32), np.array(scale, np.float32)
