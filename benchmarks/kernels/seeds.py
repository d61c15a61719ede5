"""Five seeds of a small network in one program, against the same five one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.timing import Row, against, interleaved
from nlx.data import Dataset, Split
from nlx.experiment.assembly import Assembly
from nlx.experiment.options import RunConfig
from nlx.experiment.recipe import Recipe, make_plan
from nlx.experiment.together import side_by_side, stack
from nlx.methods.plain import plain
from nlx.training.state import make_mesh
from nlx.training.step import epoch_order, run_steps

_SEEDS = 5
_SIZES = (
    # name, inputs, hidden widths, examples, batch
    ("64-32-32-10, batch 50", 64, (32, 32), 5_000, 50),
    ("64-512-512-10, batch 50 (digits)", 64, (512, 512), 1_000, 50),
    ("256-512-512-10, batch 128 (features)", 256, (512, 512), 5_120, 128),
)


def measure(rounds: int) -> list[Row]:
    """A row for each size, an epoch of all seeds."""
    rows = []
    for name, width, widths, size, batch_size in _SIZES:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 10, size, np.int32)
        train = Split(rng.normal(size=(size, width)).astype(np.float32), labels, labels)
        config = RunConfig(epochs=1, batch_size=batch_size, widths=widths, learning_rate=0.01)
        recipe: Recipe[RunConfig] = Recipe(lambda config, dataset, course: plain("cross_entropy"))
        dataset = Dataset("random", tuple("abcdefghij"), train, None)
        parts = Assembly(make_plan(config, recipe, dataset), make_mesh(jax.devices()[:1]))
        data = {"features": jnp.asarray(train.inputs), "noisy_label": jnp.asarray(labels)}
        keys = [jax.random.key(seed) for seed in range(_SEEDS)]
        orders = jnp.stack([epoch_order(key, 0, jnp.arange(size), size) for key in keys])
        steps = np.int32(size // batch_size)
        together, alone = side_by_side(parts.step, batch_size), run_steps(parts.step, batch_size)
        sides = _sides(parts, together, alone, data, orders, steps)
        ours, peer = (np.asarray(side()) for side in sides.values())
        np.testing.assert_allclose(ours, peer, rtol=1e-3, err_msg=name)
        rows.append(against(f"{_SEEDS} seeds of {name}: together / alone", interleaved(sides, rounds), "alone", None))
    return rows


def _sides(
    parts: Assembly, together: Any, alone: Any, data: dict[str, jax.Array], orders: jax.Array, steps: np.int32
) -> dict[str, Callable[[], Any]]:
    """Both give every seed's sum of the loss over the steps so far; states go on from call to call."""
    stacked = [stack([parts.start(seed) for seed in range(_SEEDS)])]
    single = [parts.start(seed) for seed in range(_SEEDS)]

    def ours() -> Any:
        stacked[0] = together(stacked[0], data, orders, np.int32(0), steps)
        return jnp.copy(stacked[0].sums["train_loss"])

    def one_by_one() -> Any:
        for i, state in enumerate(single):
            single[i] = jax.block_until_ready(alone(state, data, orders[i], np.int32(0), steps))
        return jnp.stack([state.sums["train_loss"] for state in single])

    return {"ours": ours, "alone": one_by_one}
