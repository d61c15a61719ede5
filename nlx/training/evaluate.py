"""Passes over data without learning: posteriors of the training set, scores of a test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nlx.methods.method import Batch, Method, Posterior
from nlx.models import Model
from nlx.training.state import TrainState, batch_inputs, by_example, replicated
from nlx.training.step import Prepare, batch_for_method

Views = Callable[[Array], list[Array]]
"""Prepared inputs -> the views of them whose predictions are averaged (crops, flips)."""


class Evaluator:
    """Compiled passes, one trace each, whatever the length of the data (batches are padded to one shape)."""

    def __init__(self, model: Model, method: Method, prepare: Prepare, mesh: Mesh, views: Views | None = None):
        def posterior(state: TrainState, batch: Batch) -> Posterior:
            batch = jax.lax.with_sharding_constraint(batch, by_example(mesh))
            batch = batch_for_method(batch, prepare, None)
            outputs, _ = model.apply(state.params["model"], state.stats, batch_inputs(batch), False, None)
            rows = jax.tree.map(lambda m: m[batch["index"]], state.memory)
            return method.posterior(state.params["method"], rows, outputs, batch)

        def scores(state: TrainState, inputs: Array) -> Array:
            inputs = prepare(jax.lax.with_sharding_constraint(inputs, by_example(mesh)), None)
            logits = [
                model.apply(state.params["model"], state.stats, view, False, None)[0]["logits"]
                for view in (views(inputs) if views else [inputs])
            ]
            return jnp.mean(jnp.stack(logits), axis=0)

        # Results come back whole to every process, so that each can reduce and export them.
        self._posterior = jax.jit(posterior, out_shardings=replicated(mesh))
        self._scores = jax.jit(scores, out_shardings=replicated(mesh))

    def posterior(self, state: TrainState, batches: Iterable[tuple[Batch, int]]) -> Posterior:
        """The posterior of every example, as NumPy arrays in the order of the batches.

        Args:
          state: of the run.
          batches: (batch with ``noisy_label`` and ``index``, how many of its rows count) pairs.
        """
        parts = [(self._posterior(state, batch), count) for batch, count in batches]
        # Cut off on the host: each length would be another program on the device.
        whole = [jax.tree.map(lambda rows, count=count: np.asarray(rows)[:count], part) for part, count in parts]
        return jax.tree.map(lambda *rows: np.concatenate(rows), *whole)

    def scores(self, state: TrainState, batches: Iterable[tuple[Batch, int]]) -> np.ndarray:
        """The classifier's logits, float32 ``[n, K]``, in the order of the batches, averaged over views."""
        return np.concatenate([np.asarray(self._scores(state, batch_inputs(b)))[:n] for b, n in batches])
