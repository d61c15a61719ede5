"""Passes over data without learning: posteriors, scores and features, and a method's look at the training set."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nlx.arguments import ArgumentError
from nlx.data.batches import eval_batches
from nlx.data.dataset import Split
from nlx.methods.method import Batch, Method, Posterior
from nlx.methods.top import shortened
from nlx.models import Model
from nlx.training.mesh import Share, by_example, replicated, to_device
from nlx.training.observers import poll
from nlx.training.rows import by_device, put_rows, take_rows
from nlx.training.state import REFRESH, TrainState, key_for, predicting_params
from nlx.training.step import vectors_as_floats

_BATCH, _EACH = 512, 128  # examples: over all devices, and on each at least


class Passes:
    """Compiled passes, one trace each, whatever the length of the data (batches are padded to one shape).

    Attributes:
      batch: examples of a batch, over all devices.
    """

    def __init__(self, model: Model, method: Method, mesh: Mesh):
        block = -(-_BATCH // mesh.size) * mesh.size

        def posterior(state: TrainState, batch: Batch) -> Posterior:
            batch = vectors_as_floats(jax.lax.with_sharding_constraint(batch, by_example(mesh)))
            params = predicting_params(state)["model"]
            outputs, _ = model.apply(params, state.stats, batch["inputs"], False, None)
            return method.posterior(state.params["method"], take_rows(state.memory, batch["index"]), outputs, batch)

        def short(state: TrainState, batch: Batch) -> Posterior:
            return shortened(posterior(state, batch), batch["noisy_label"])

        def scores(state: TrainState, inputs: Array) -> Array:
            inputs = jax.lax.with_sharding_constraint(inputs, by_example(mesh))
            outputs = model.apply_test(predicting_params(state)["model"], state.stats, inputs)
            if len(inputs) == block:
                return method.predict(state.params["method"], outputs)
            # Where scores are sampled, draws are by position: as in batches of one size, on however many devices.
            blocks = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), outputs)
            each = jax.vmap(lambda outputs: method.predict(state.params["method"], outputs))(blocks)
            return each.reshape(len(inputs), -1)

        def features(state: TrainState, inputs: Array) -> Array:
            inputs = jax.lax.with_sharding_constraint(inputs, by_example(mesh))
            outputs, _ = model.apply(predicting_params(state)["model"], state.stats, inputs, False, None)
            if "features" not in outputs:
                raise ArgumentError(f"{method.name} needs a model that returns `features` beside its logits")
            return outputs["features"].astype(jnp.float32)

        def extract(rows: Array, state: TrainState, inputs: Array, index: Array, count: Array) -> Array:
            found = jnp.where((index < count)[:, None], features(state, inputs), 0)
            written: Array = put_rows(rows, index, found, mesh)
            return written

        self._method, self._mesh, self.batch = method, mesh, block * max(1, _EACH * mesh.size // block)
        self._eager_features = features
        # Results come back whole to every process, so that each can reduce and export them.
        self._posterior, self._short = (jax.jit(f, out_shardings=replicated(mesh)) for f in (posterior, short))
        self._scores = jax.jit(scores, out_shardings=replicated(mesh))
        self._features = jax.jit(features, out_shardings=replicated(mesh))
        self._extract = jax.jit(extract, donate_argnums=0, out_shardings=by_example(mesh))
        self._refresh = None
        if method.refresh is not None:  # its memory is not donated: it may be left and done again
            self._refresh = jax.jit(method.refresh, out_shardings=by_example(mesh))

    def posterior(
        self, state: TrainState, split: Split, whole: bool = True, rows: np.ndarray | None = None
    ) -> Posterior:
        """The posterior of a split, or of some rows, as NumPy arrays: of all classes, or only of the likeliest."""
        program = self._posterior if whole or split.observed.ndim == 2 else self._short
        # One after the other, so that whoever interrupts waits for one at most. Cut off on the host: each length would
        # be another program on the device.
        parts = [
            jax.tree.map(lambda part, count=count: np.asarray(part)[:count], program(state, batch))
            for batch, count in self._batches(split, rows)
        ]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *parts)

    def scores(self, state: TrainState, split: Split) -> np.ndarray:
        """The method's scores, float32 ``[n, K]``."""
        return np.concatenate([np.asarray(self._scores(state, b["inputs"]))[:n] for b, n in self._batches(split)])

    def features(self, state: TrainState, split: Split) -> np.ndarray:
        """The backbone's features, float32 ``[n, F]``."""
        return np.concatenate([np.asarray(self._features(state, b["inputs"]))[:n] for b, n in self._batches(split)])

    def refresh(self, state: TrainState, split: Split, epochs: int) -> TrainState:
        """The state after ``epochs`` epochs with its memory refreshed, where the method wants that.

        Features are extracted batch by batch into one array, spread over the mesh by example as the memory is; every
        device extracts those of its own rows.
        """
        if self._refresh is None or not self._method.refresh_after(epochs):
            return state
        size = jax.tree.leaves(state.memory)[0].shape[0]
        sharding, share, count = by_example(self._mesh), Share(self._mesh, self.batch), np.int32(len(split))
        order = by_device(size, self._mesh.size, self.batch)
        rows: Array | None = None
        for at, (batch, _) in enumerate(self._batches(split, np.minimum(order, len(split) - 1))):
            if rows is None:
                width = jax.eval_shape(self._eager_features, state, batch["inputs"]).shape[-1]
                rows = jnp.zeros((size, width), jnp.float32, device=sharding)
            index = share.to_device({"index": order[at * self.batch + share.rows]})["index"]
            rows = self._extract(rows, state, batch["inputs"], index, count)
        labels = {"noisy_label": split.noisy_label, "trusted_label": split.trusted_label}
        padded = {
            name: np.pad(array, ((0, size - len(array)), *(((0, 0),) * (array.ndim - 1))), constant_values=-1)
            for name, array in labels.items()
            if array is not None
        }
        with jax.set_mesh(self._mesh):
            memory = self._refresh(key_for(state, REFRESH, epochs), state.memory, rows, to_device(padded, sharding))
        return state._replace(memory=memory)

    def _batches(self, split: Split, rows: np.ndarray | None = None) -> Iterator[tuple[Batch, int]]:
        """A split, or some rows, from front to back on the device: pairs of a batch and how many of its rows count."""
        share = Share(self._mesh, self.batch)
        for batch, count in eval_batches(split, self.batch, share.rows, rows=rows):
            poll()
            yield share.to_device(batch), count
