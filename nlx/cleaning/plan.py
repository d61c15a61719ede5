"""What cleaning is going to do, and how long it may take here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlx.cleaning.bayes import HeldOut, by_em
from nlx.cleaning.clean import affordable
from nlx.cleaning.estimates import ENOUGH
from nlx.cleaning.linear import fits, trials
from nlx.cleaning.neighbours import NEIGHBOURS, neighbours

_SIZE, _ROWS, _BATCH = 1024, 1024, 256  # of what is tried: a product, neighbours and a step
_LEAST_STEPS, _PASSES = 400, 8  # of linear models
_ESTIMATED, _BELIEVED = 200, 30  # passes of Bayes' rule over some probabilities, and over all
_COMPILED, _MORE = 60, 60  # programs as long as the one tried; those of networks
_NETWORKS = 30  # times the work of a linear model's step
_PRODUCTS = {"patches": 1e8, "frozen": 4e9}  # for the features of a picture
_CENTRES = 3e10  # for the patterns of patches
_MADE = {
    "patches": "1,024 features of each picture from patches of them all, no pretrained network",
    "frozen": "features of each picture at 224 pixels by the frozen network",
}


def planned(
    shape: tuple[int, ...], classes: int, made: Literal["patches", "frozen"] | None, network: bool, folds: int
) -> str:
    """A sentence on models and time for inputs ``[n, ...]``; ``made`` is how pictures get features, None for others.

    The time follows from a few steps of training, a search for neighbours among a thousand examples and a product of
    matrices, which are tried here and now.
    """
    n, width = shape[0], 1024 if made else int(np.prod(shape[1:]))
    near = affordable(n, width)
    rows = np.random.default_rng(0).standard_normal((min(n, _ROWS), width), np.float32)
    models = jnp.zeros((folds, width, classes))
    compiled, step = _seconds(lambda: _step(models, rows[:_BATCH]))
    steps = max(_PASSES * n // _BATCH, _LEAST_STEPS)
    again = fits(n, classes, folds)
    stored = trials(n, classes, folds) + 1 / folds  # of the model that is kept for new data
    seconds = _COMPILED * compiled + (again + stored) * steps * step
    held_out = HeldOut(np.full((len(rows), classes), 1 / classes, np.float32), np.arange(len(rows)) % classes)
    believed = _seconds(lambda: by_em(held_out, jnp.full((classes, classes), 1 / classes), 1.0, 1).matrix)[1]
    seconds += believed * (_ESTIMATED * min(n, ENOUGH // classes) + _BELIEVED * n) / len(rows)
    if near and len(rows) > 1:
        seconds += _seconds(lambda: neighbours(rows, min(NEIGHBOURS, len(rows) - 1)))[1] * (n / len(rows)) ** 2
    if made:
        square = jnp.ones((_SIZE, _SIZE))
        products = n * _PRODUCTS[made] + _CENTRES
        seconds += _seconds(lambda: square @ square)[1] * products / _SIZE**3
    if network:
        seconds += _MORE * compiled + _NETWORKS * steps * step
    settings = "" if again == 1 else " in the best of three settings"
    does = [
        f"linear models in {folds} folds{settings}",
        "15 nearest neighbours" if near else "no neighbours, being too many",
    ]
    does += ["three small networks"] if network else []
    said = f"{_MADE[made]}; " if made else ""
    return f"{said}{', '.join(does)}; about {_words(seconds)}"


@jax.jit
def _step(models: Array, rows: Array) -> Array:
    """Of gradient descent, of all models on the same rows."""

    def loss(weights: Array) -> Array:
        return jnp.mean(jax.nn.logsumexp(rows @ weights, axis=1))

    return models - 0.1 * jax.vmap(jax.grad(loss))(models)


def _seconds(run: Callable[[], Array | np.ndarray]) -> tuple[float, float]:
    """Seconds to compile, and then to run."""
    times = [time.perf_counter()]
    for _ in range(4):
        jax.block_until_ready(run())
        times.append(time.perf_counter())
    again = float(np.median(np.diff(times)[1:]))
    return max(times[1] - times[0] - again, 0.0), again


def _words(seconds: float) -> str:
    return f"{10 * max(1, round(seconds / 10))} seconds" if seconds < 90 else f"{round(seconds / 60)} minutes"
