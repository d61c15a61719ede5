"""What cleaning is going to do, and how long it may take here."""

from __future__ import annotations

import time
from typing import Literal

import jax.numpy as jnp
import numpy as np

from nlx.cleaning.clean import affordable

_START, _SIZE = 6.0, 1024  # seconds to compile; rows of a product that shows how fast this machine is
_PRODUCTS = {"patches": 6e7, "frozen": 4e9}  # for the features of a picture
_MADE = {
    "patches": "1,024 features of each picture from patches of them all, no pretrained network",
    "frozen": "features of each picture at 224 pixels by the frozen network",
}
_LINEAR, _NETWORK = 5e-9, 2e-7  # seconds a number: of each input in linear models, of each example in networks


def planned(shape: tuple[int, ...], made: Literal["patches", "frozen"] | None, network: bool, folds: int) -> str:
    """A sentence on models and time for inputs ``[n, ...]``; ``made`` is how pictures get features, None for others."""
    n, width = shape[0], 1024 if made else int(np.prod(shape[1:]))
    near = affordable(n, width)
    square = jnp.ones((_SIZE, _SIZE), jnp.float32)
    (square @ square).block_until_ready()
    began = time.perf_counter()
    (square @ square).block_until_ready()
    each = (time.perf_counter() - began) / _SIZE**3  # seconds a product
    seconds = _START + _LINEAR * max(8 * n, 102_400) * width * folds / 5
    seconds += 2 * each * n * n * width if near else 0
    seconds += 2 * each * n * _PRODUCTS[made] if made else 0
    seconds += 15 + _NETWORK * max(8 * n, 51_200) * width if network else 0
    does = [f"linear models in {folds} folds", "15 nearest neighbours" if near else "no neighbours, being too many"]
    does += ["three small networks"] if network else []
    said = f"{_MADE[made]}; " if made else ""
    return f"{said}{', '.join(does)}; about {_words(seconds)}"


def _words(seconds: float) -> str:
    return f"{10 * max(1, round(seconds / 10))} seconds" if seconds < 90 else f"{round(seconds / 60)} minutes"
