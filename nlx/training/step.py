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

from nlx.arguments import ArgumentError
from nlx.methods.method import KNOWN_OUTLIER, Batch, Memory, Method, Metrics
from nlx.models import Model
from nlx.models.mixing import SHARE
from nlx.training.mesh import by_example
from nlx.training.placement import is_split, split_by_class
from nlx.training.rows import put_rows, take_rows
from nlx.training.state import TrainState, state_shardings, step_key

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""(state, batch) -> (state, means of the metrics over the batch)."""

_ALLOWED = {"inputs", "noisy_label", "trusted_label", "index"}


def make_step(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None,
    *,
    loss_of: Method | None = None,
    rate: Callable[[Array], ArrayLike] | None = None,
    shard_params: bool = False,
    local: bool = False,
) -> Step:
    """The step as a pure function, not yet jitted: state and batch in, state and metrics out.

    A batch holds ``inputs`` as stored, ``noisy_label``, ``index`` and, where some labels are trusted,
    ``trusted_label``; its leading axis is spread over the mesh. Losses, gradients and batch statistics are those of the
    whole batch, whatever the number of devices.

    Args:
      model: the backbone.
      method: whose parameters and memory the state holds.
      optimizer: of ``{"model": ..., "method": ...}``.
      mesh: where it runs; None for on each device by itself, inside ``jax.shard_map``.
      loss_of: a method whose loss takes the place of ``method``'s, as a stage may want.
      rate: step -> factor on the optimizer's updates; None for 1.
      shard_params: whether wide parameters are split over the mesh, see :func:`nlx.training.placement.shardings`.
      local: whether every device holds the memory of its part of a batch, see :func:`nlx.training.rows.take_rows`.
    """
    at = mesh if local else None
    loss, outliers = (loss_of or method).loss, (loss_of or method).outliers

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if unknown := set(batch) - _ALLOWED:
            raise ValueError(f"a training batch may not hold {sorted(unknown)}: true labels are for evaluation only")
        if mesh is not None:
            batch = jax.lax.with_sharding_constraint(batch, by_example(mesh))
        batch = vectors_as_floats(batch)
        model_key, _, method_key = jax.random.split(step_key(state), 3)
        rows = take_rows(state.memory, batch["index"], at)

        def objective(params: dict[str, Any]) -> tuple[Array, tuple[Any, Array, Memory, Metrics]]:
            outputs, stats = model.apply(params["model"], state.stats, batch["inputs"], True, model_key)
            if mesh is not None:
                outputs = {**outputs, "logits": split_by_class(outputs["logits"], mesh)}
            share = outputs.get(SHARE)
            if share is not None and jax.tree.leaves(rows):
                raise ArgumentError(f"{method.name} keeps something for each example: leave out `mix`")
            losses, new_rows, metrics = loss(method_key, params["method"], rows, outputs, batch, state.step)
            if share is not None:  # the inputs are pairs
                other = jax.tree.map(lambda x: x[::-1], batch)
                others = loss(method_key, params["method"], rows, outputs, other, state.step)[0]
                losses = share * losses + (1 - share) * others
            # What came back as it was is not to be written.
            written = jax.tree.map(lambda old, new: None if new is old else new, rows, new_rows)
            mean = jnp.mean(losses) if outliers else _mean_of_classes(losses, batch)
            return mean, (stats, mean, written, metrics)

        grads, (stats, mean, written, metrics) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if rate is not None:
            updates = jax.tree.map(lambda u: u * jnp.asarray(rate(state.step), u.dtype), updates)
        params = optax.apply_updates(state.params, updates)
        frozen = {name: value for name, value in state.params["method"].items() if name in method.frozen}
        params = {**params, "method": {**method.project(params["method"]), **frozen}}
        memory = put_rows(state.memory, batch["index"], written, at)
        means = {name: jnp.mean(value, dtype=jnp.float32) for name, value in {"train_loss": mean, **metrics}.items()}
        new = TrainState(state.step + 1, state.key, params, stats, opt_state, memory, state.sums)
        if mesh is not None and is_split((placed := state_shardings(new, mesh, shard_params)).params):
            # As it came, so that no step compiles anew: the partitioner would choose. With nothing split it cannot.
            new = jax.lax.with_sharding_constraint(new, placed)
        return new, means

    return step


def _mean_of_classes(losses: Array, batch: Batch) -> Array:
    """Mean over the examples that may be of a class; 0 where all are known outliers."""
    trusted = batch.get("trusted_label")
    if trusted is None or trusted.ndim > 1:
        return jnp.mean(losses)
    counts = trusted != KNOWN_OUTLIER
    return jnp.sum(jnp.where(counts, losses, 0.0)) / jnp.maximum(jnp.sum(counts, dtype=losses.dtype), 1)


def vectors_as_floats(batch: Batch) -> Batch:
    """A batch as methods see it: label vectors are float32."""
    labels = batch["noisy_label"]
    return batch if labels.ndim == 1 else {**batch, "noisy_label": labels.astype(jnp.float32)}


def summed(step: Step) -> Callable[[TrainState, Batch], TrainState]:
    """The step, with its metrics added to the state's sums."""

    def one(state: TrainState, batch: Batch) -> TrainState:
        state, means = step(state, batch)
        return state._replace(sums={name: state.sums[name] + value for name, value in means.items()})

    return one


def run_steps(
    step: Step, batch_size: int, local: Mesh | None = None
) -> Callable[[TrainState, Batch, Array, ArrayLike, ArrayLike], TrainState]:
    """Many steps over a training set that lives on the device, in one program and one trace, not yet jitted.

    Returns a function ``(state, data, order, start, count) -> state``. It takes ``count`` steps, beginning with the
    ``start``-th batch of the epoch's ``order`` (int32 ``[n]``); both are traced, so that a training stops and reports
    wherever it likes without a second compilation. No batch leaves the device. ``local`` is the mesh over which the
    data are spread, where every device holds the data of its part of a batch.
    """
    take = summed(step)

    def run(state: TrainState, data: Batch, order: Array, start: ArrayLike, count: ArrayLike) -> TrainState:
        def one(i: Array, state: TrainState) -> TrainState:
            index = jax.lax.dynamic_slice_in_dim(order, (start + i) * batch_size, batch_size)
            return take(state, {"index": index, **take_rows(data, index, local)})

        return jax.lax.fori_loop(0, count, one, state)

    return run
