"""The training step, and many of them in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from nlx.methods.method import Aux, Batch, Method
from nlx.models import Model
from nlx.training.state import TrainState, batch_inputs, by_example

Prepare = Callable[[Array, Array | None], Array]
"""(raw inputs, key or None for evaluation) -> float inputs of the model."""

Step = Callable[[TrainState, Batch], TrainState]


def make_step(
    model: Model, method: Method, optimizer: optax.GradientTransformation, prepare: Prepare, mesh: Mesh
) -> Step:
    """The step as a pure function, not yet jitted: state and raw batch in, state out.

    A batch holds ``image`` or ``features`` as stored, ``noisy_label``, ``index`` and, where some labels are trusted,
    ``trusted_label``; its leading axis is spread over the mesh. Losses, gradients and batch statistics are those of the
    whole batch, whatever the number of devices.
    """

    def step(state: TrainState, batch: Batch) -> TrainState:
        if unknown := set(batch) - {"image", "features", "noisy_label", "trusted_label", "index"}:
            raise ValueError(f"a training batch may not hold {sorted(unknown)}: true labels are for evaluation only")
        batch = jax.lax.with_sharding_constraint(batch, by_example(mesh))
        key = jax.random.fold_in(state.key, state.step)
        augment_key, model_key, method_key = jax.random.split(key, 3)
        batch = batch_for_method(batch, prepare, augment_key)
        rows = jax.tree.map(lambda m: m[batch["index"]], state.memory)

        def objective(params: dict[str, Any]) -> tuple[Array, tuple[Any, Array, Aux]]:
            outputs, stats = model.apply(params["model"], state.stats, batch_inputs(batch), True, model_key)
            losses, aux = method.loss(params["method"], rows, outputs, batch, method_key, state.step)
            return jnp.mean(losses), (stats, losses, aux)

        grads, (stats, losses, aux) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = {**params, "method": method.project(params["method"])}
        memory = state.memory
        if aux.memory is not None:
            memory = jax.tree.map(lambda m, new: m.at[batch["index"]].set(new), memory, aux.memory)
        metrics = {"train_loss": losses, **aux.metrics}
        sums = {name: state.sums[name] + jnp.mean(value, dtype=jnp.float32) for name, value in metrics.items()}
        return TrainState(state.step + 1, state.key, params, stats, opt_state, memory, sums)

    return step


def batch_for_method(batch: Batch, prepare: Prepare, key: Array | None) -> Batch:
    """A batch as models and methods see it: inputs prepared, label vectors as float32."""
    name = "image" if "image" in batch else "features"
    labels = batch["noisy_label"]
    if labels.ndim == 2:
        labels = labels.astype(jnp.float32)
    return {**batch, name: prepare(batch[name], key), "noisy_label": labels}


def run_steps(step: Step, batch_size: int) -> Callable[[TrainState, Batch, Array, ArrayLike, ArrayLike], TrainState]:
    """Many steps over a training set that lives on the device, in one program and one trace.

    Returns a jitted function ``(state, data, order, start, count) -> state`` that consumes (donates) its state. It
    takes ``count`` steps, beginning with the ``start``-th batch of the epoch's ``order`` (int32 ``[n]``); both are
    traced, so that a run stops and reports wherever it likes without a second compilation. No batch leaves the device.
    """

    def run(state: TrainState, data: Batch, order: Array, start: ArrayLike, count: ArrayLike) -> TrainState:
        def one(i: Array, state: TrainState) -> TrainState:
            index = jax.lax.dynamic_slice_in_dim(order, (start + i) * batch_size, batch_size)
            return step(state, {"index": index, **{name: rows[index] for name, rows in data.items()}})

        return jax.lax.fori_loop(0, count, one, state)

    return jax.jit(run, donate_argnums=0)


def epoch_order(key: Array, epoch: int, rows: Array, length: int) -> Array:
    """The order in which an epoch visits its rows: a permutation of them, int32, padded to ``[length]``."""
    # The epoch's key must not meet a step's, which are folded in from 0 upward.
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, 0x6F726465), epoch), rows)
    return jnp.pad(order, (0, length - rows.shape[0]))
