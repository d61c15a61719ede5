"""Several seeds of a small network trained in one program, against one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.kernels.timing import Row, against, interleaved
from nlx.data import Split
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

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
        split = Split(rng.normal(size=(size, width)).astype(np.float32), labels, None)
        model = build("mlp", (width,), 10, widths=widths)
        mesh = make_mesh(jax.devices()[:1])
        trainer = Trainer(model, plain(cross_entropy), optax.sgd(0.01, momentum=0.9), batch_size=batch_size, mesh=mesh)
        sides = _sides(trainer, split)
        ours, peer = (np.asarray(side()) for side in sides.values())
        np.testing.assert_allclose(ours, peer, rtol=1e-3, err_msg=name)
        rows.append(against(f"{_SEEDS} seeds of {name}: together / alone", interleaved(sides, rounds), "alone", None))
    return rows


def _sides(trainer: Trainer, split: Split) -> dict[str, Callable[[], Any]]:
    """Both train every seed for an epoch from the start, and give the mean loss of each."""
    keys = [jax.random.key(seed) for seed in range(_SEEDS)]

    def together() -> Any:
        return trainer.fit_many(split, jnp.stack(keys), 1).history[0]["train_loss"]

    def one_by_one() -> Any:
        return [trainer.fit(split, key, 1).history[0]["train_loss"] for key in keys]

    return {"ours": together, "alone": one_by_one}
