"""Everything that a run carries from step to step, and so everything that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nlx.methods.method import Batch, Method
from nlx.models import Model

_MEMORY_ROWS = 256  # per-example memory is padded to a multiple of this


class TrainState(NamedTuple):
    """State of a run.

    Attributes:
      step: steps done, int32 scalar. The position in the data follows from it.
      key: the run's typed PRNG key; a step's key is ``fold_in(key, step)``.
      params: ``{"model": backbone, "method": what the method trains}``.
      stats: the backbone's batch statistics.
      opt_state: optax's.
      memory: what the method keeps per training example, leaves ``[n, ...]`` padded to more rows, sharded by index.
      sums: sums of the metrics over the steps of the epoch so far, float32 scalars.
    """

    step: Array
    key: Array
    params: dict[str, Any]
    stats: Any
    opt_state: Any
    memory: Any
    sums: dict[str, Array]


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One axis, ``data``, over all devices of all processes (or over the given ones)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The leading axis, examples, spread over the mesh's ``data`` axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def init_state(
    key: Array,
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    size: int,
    mesh: Mesh,
) -> TrainState:
    """Make the first state of a run, already placed on the mesh.

    Args:
      key: typed PRNG key of the run.
      model: the backbone.
      method: the system to train.
      optimizer: for the backbone's and the method's parameters together.
      batch: an example batch, inputs as the model takes them; only its shapes matter.
      size: n, the number of training examples.
      mesh: where the state lives; memory is spread over it by index, the rest is on every device.

    Returns:
      The state at step 0.
    """

    def make(key: Array) -> TrainState:
        model_key, method_key, run_key = jax.random.split(key, 3)
        model_params, stats = model.init(model_key)
        # A sharded axis has to be a multiple of the mesh; padded the same way on meshes of every usual size, a state
        # that was saved on one can be loaded on another.
        rows = math.lcm(_MEMORY_ROWS, mesh.size)
        method_params, memory = method.init(method_key, batch, -(-size // rows) * rows)
        params = {"model": model_params, "method": method_params}

        def one_loss(params: dict[str, Any]) -> dict[str, Array]:
            outputs, _ = model.apply(params["model"], stats, batch_inputs(batch), False, None)
            rows = jax.tree.map(lambda m: m[batch["index"]], memory)
            return method.loss(params["method"], rows, outputs, batch, run_key, jnp.zeros((), jnp.int32))[1].metrics

        names = ["train_loss", *jax.eval_shape(one_loss, params)]
        sums = {name: jnp.zeros((), jnp.float32) for name in names}
        return TrainState(jnp.zeros((), jnp.int32), run_key, params, stats, optimizer.init(params), memory, sums)

    return jax.jit(make, out_shardings=state_shardings(jax.eval_shape(make, key), mesh))(key)


def redraw_heads(model: Model, method: Method, batch: Batch, mesh: Mesh) -> Callable[[TrainState], TrainState]:
    """A function that draws the last layers of backbone and method, all that is called ``head``, anew.

    What the optimizer has gathered for them starts at 0 again. The key follows from the run's and the step.
    """

    def is_head(path: jax.tree_util.KeyPath) -> bool:
        return jax.tree_util.DictKey("head") in path

    def draw(state: TrainState) -> TrainState:
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0x68656164), state.step)
        model_key, method_key = jax.random.split(key)
        fresh = {"model": model.init(model_key)[0], "method": method.init(method_key, batch, _MEMORY_ROWS)[0]}
        params = jax.tree.map_with_path(lambda path, old, new: new if is_head(path) else old, state.params, fresh)
        gathered = jax.tree.map_with_path(
            lambda path, leaf: jnp.zeros_like(leaf) if is_head(path) else leaf, state.opt_state
        )
        return state._replace(params=params, opt_state=gathered)

    def redraw(state: TrainState) -> TrainState:
        drawn: TrainState = jax.jit(draw, donate_argnums=0, out_shardings=state_shardings(state, mesh))(state)
        return drawn

    return redraw


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Where each leaf of a state belongs on a mesh, as a tree of shardings of the state's shape."""
    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    return everywhere._replace(memory=jax.tree.map(lambda _: by_example(mesh), state.memory))


def batch_inputs(batch: Batch) -> Array:
    """The inputs of a batch: its ``image`` or its ``features``."""
    return batch["image"] if "image" in batch else batch["features"]
