"""Passes over data without learning: posteriors of the training set, scores of a test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nlx.data import Split
from nlx.methods.method import Batch, Memory, Method, Posterior
from nlx.models import Model
from nlx.training.feed import in_order, place
from nlx.training.state import TrainState, batch_inputs, by_example, replicated
from nlx.training.step import Prepare, batch_for_method

Views = Callable[[Array], list[Array]]
"""Prepared inputs -> the views of them whose predictions are averaged (crops, flips)."""


def _extractor(model: Model, prepare: Prepare, mesh: Mesh) -> Callable[[TrainState, Array], Array]:
    """(state, raw inputs) -> the backbone's features, as they are when nothing is learnt."""

    def features(state: TrainState, inputs: Array) -> Array:
        inputs = prepare(jax.lax.with_sharding_constraint(inputs, by_example(mesh)), None)
        return model.apply(state.params["model"], state.stats, inputs, False, None)[0]["features"]

    return features


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
            each = []
            for view in views(inputs) if views else [inputs]:
                outputs, _ = model.apply(state.params["model"], state.stats, view, False, None)
                each.append(method.predict(state.params["method"], outputs))
            return jnp.mean(jnp.stack(each), axis=0)

        # Results come back whole to every process, so that each can reduce and export them.
        self._posterior = jax.jit(posterior, out_shardings=replicated(mesh))
        self._scores = jax.jit(scores, out_shardings=replicated(mesh))
        self._features = jax.jit(_extractor(model, prepare, mesh), out_shardings=replicated(mesh))

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
        """The method's scores, float32 ``[n, K]``, in the order of the batches, averaged over views."""
        return np.concatenate([np.asarray(self._scores(state, batch_inputs(b)))[:n] for b, n in batches])

    def features(self, state: TrainState, batches: Iterable[tuple[Batch, int]]) -> np.ndarray:
        """The backbone's features, float32 ``[n, F]``, in the order of the batches."""
        return np.concatenate([np.asarray(self._features(state, batch_inputs(b)))[:n] for b, n in batches])


class Refresher:
    """Lets a method look at the whole training set between epochs, as self-learning does to correct labels.

    Features are extracted batch by batch into one array, spread over the mesh by example as the memory is.
    """

    def __init__(self, model: Model, method: Method, prepare: Prepare, mesh: Mesh, split: Split, batch_size: int):
        assert method.refresh is not None
        self._split, self._batch_size, self._mesh = split, batch_size, mesh
        self._wanted, self._width = method.refresh_after, model.num_features

        features = _extractor(model, prepare, mesh)

        def extract(found: Array, state: TrainState, inputs: Array, index: Array) -> Array:
            return found.at[index].set(features(state, inputs))

        def refresh(memory: Memory, features: Array, labels: Batch, key: Array) -> Memory:
            assert method.refresh is not None
            return method.refresh(memory, features, labels, key)

        self._extract = jax.jit(extract, donate_argnums=0, out_shardings=by_example(mesh))
        self._refresh = jax.jit(refresh, donate_argnums=0, out_shardings=by_example(mesh))

    def __call__(self, state: TrainState, epochs: int) -> TrainState:
        """The state after ``epochs`` epochs with its memory refreshed, where the method wants that."""
        if not self._wanted(epochs):
            return state
        rows = jax.tree.leaves(state.memory)[0].shape[0]
        features = jnp.zeros((rows, self._width), jnp.float32, device=by_example(self._mesh))
        for batch, _ in in_order(self._split, self._batch_size, self._mesh):
            features = self._extract(features, state, batch_inputs(batch), batch["index"])
        labels = {"noisy_label": self._split.noisy_label, "trusted_label": self._split.trusted_label}
        padded = {
            name: np.pad(array, ((0, rows - len(array)), *(((0, 0),) * (array.ndim - 1))), constant_values=-1)
            for name, array in labels.items()
            if array is not None
        }
        # A key of its own: a step's is folded in from 0 upward.
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0x72656672), epochs)
        memory = self._refresh(state.memory, features, place(padded, by_example(self._mesh)), key)
        return state._replace(memory=memory)
