"""Several seeds trained in one program, against one after the other: small networks, and ResNets on an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.kernels.step import prepared
from benchmarks.kernels.timing import Row, against, each_round, interleaved, paired
from nlx.data import Split
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.state import TrainState
from nlx.training.step import run_steps
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
    return rows if jax.default_backend() == "cpu" else [*rows, *of_pictures(rounds)]


def of_pictures(rounds: int, name: str = "preact18", batch_size: int = 128, steps: int = 10) -> list[Row]:
    """A row of members of a ResNet whose convolutions run side by side, against one after the other in one program."""
    rng = np.random.default_rng(0)
    n, shape = steps * batch_size, (32, 32, 3)
    data = {"inputs": rng.normal(size=(n, *shape)).astype(np.float32), "noisy_label": rng.integers(0, 10, n, np.int32)}
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    method = plain(cross_entropy, "plain")
    state, program, rows = prepared(method, build(name, shape, 10, dtype=dtype), data, batch_size)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * _SEEDS), state)
    order = rows.pop("index")
    orders = jnp.stack([jax.random.permutation(jax.random.key(seed), order) for seed in range(_SEEDS)])
    many = run_steps(program.step, batch_size)

    def loss(state: TrainState, order: jax.Array) -> jax.Array:
        return many(state, rows, order, 0, steps).sums["train_loss"] / steps

    side_by_side = jax.jit(jax.vmap(loss))
    in_turn = jax.jit(lambda states, orders: jax.lax.map(lambda each: loss(*each), (states, orders)))
    sides = {"ours": lambda: side_by_side(states, orders), "in turn": lambda: in_turn(states, orders)}
    ours, peer = (np.asarray(side()) for side in sides.values())
    np.testing.assert_allclose(ours, peer, rtol=0.05, err_msg=name)
    about = f"{_SEEDS} seeds of {name} at 32 pixels, batch {batch_size}, {steps} steps, {np.dtype(dtype)}"
    return [paired(f"{about}: side by side / one after the other", each_round(sides, rounds), "in turn", None, "ours")]


def _sides(trainer: Trainer, split: Split) -> dict[str, Callable[[], Any]]:
    """Both train every seed for an epoch from the start, and give the mean loss of each."""
    keys = [jax.random.key(seed) for seed in range(_SEEDS)]

    def together() -> Any:
        return trainer.fit_many(split, jnp.stack(keys), 1).history[0]["train_loss"]

    def one_by_one() -> Any:
        return [trainer.fit(split, key, 1).history[0]["train_loss"] for key in keys]

    return {"ours": together, "alone": one_by_one}
