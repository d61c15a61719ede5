"""Everything that a training carries from step to step, and so everything that a checkpoint holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import ArrayLike

from nlx import target
from nlx.arguments import ArgumentError
from nlx.data.checks import memory
from nlx.data.dataset import Split
from nlx.methods.method import Method, Shapes
from nlx.models import Model
from nlx.training.averaging import average_in, with_average
from nlx.training.mesh import by_example, replicated
from nlx.training.placement import shardings

ORDER, REFRESH, HEADS = (int.from_bytes(name.encode()) for name in ("orde", "refr", "head"))
"""What is folded into a key for each use, far above any step, so that no two of them meet."""

_MEMORY_ROWS = 256  # per-example memory is padded to a multiple of this


class TrainState(NamedTuple):
    """State of a training.

    Attributes:
      step: steps done, int32 scalar. The position in the data follows from it.
      key: typed PRNG key that all draws of the training follow from, with the step or the epoch.
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


def step_key(state: TrainState) -> Array:
    """The key of a step's draws."""
    return jax.random.fold_in(_later(state.key), state.step)


def key_for(state: TrainState, use: int, number: ArrayLike) -> Array:
    """The key of draws between steps: for ``REFRESH`` after an epoch, or ``HEADS`` at a step."""
    return jax.random.fold_in(jax.random.fold_in(_later(state.key), use), number)


def _later(key: Array) -> Array:
    """What all draws after the start follow from; the first two of the three are for initial weights."""
    return jax.random.split(key, 3)[2]


def output_shapes(model: Model, inputs: jax.ShapeDtypeStruct) -> Shapes:
    """Shapes and dtypes of a model's outputs for a batch of stored inputs."""

    def outputs(key: Array, inputs: Array) -> dict[str, Array]:
        params, stats = model.init(key)
        return model.apply(params, stats, inputs, False, None)[0]

    shapes: Shapes = jax.eval_shape(outputs, jax.random.key(0), inputs)
    return shapes


def state_maker(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    split: Split,
    mesh: Mesh,
    shard_params: bool = False,
    groups: int = 1,
) -> Any:
    """The jitted function from a key to a state at step 0, placed on the mesh, for a training set of the split's form.

    Memory is spread over the mesh by index, wide parameters as :func:`nlx.training.placement.shardings` says, the rest
    is on every device.

    Raises:
      ArgumentError: the state would not fit into memory.
    """
    sample = jax.ShapeDtypeStruct((mesh.size, *split.inputs.shape[1:]), split.inputs.dtype)
    outputs = output_shapes(model, sample)
    size = memory_rows(len(split), mesh, groups)

    def make(key: Array) -> TrainState:
        model_key, method_key, _ = jax.random.split(key, 3)
        model_params, stats = model.init(model_key)
        method_params, memory = method.init(method_key, outputs, outputs["logits"].shape[-1], size)
        params = {"model": model_params, "method": method_params}
        return TrainState(jnp.zeros((), jnp.int32), key, params, stats, optimizer.init(params), memory, {})

    form = jax.eval_shape(make, jax.random.key(0))
    if not target.is_planned():  # its devices have memory of their own, and nothing is allocated
        _check_memory(abstract(make, mesh, shard_params), mesh)
    return jax.jit(make, out_shardings=state_shardings(form, mesh, shard_params), compiler_options=compile_soon(mesh))


def compile_soon(mesh: Mesh) -> dict[str, Any] | None:
    """Compiler options for a program that runs once, on a CPU: fewer passes; what the environment asks for stands.

    To draw the weights of a ResNet takes an instant, and to compile that with all passes many seconds.
    """
    level = "xla_backend_optimization_level"
    if mesh.devices.flat[0].platform != "cpu" or level in os.environ.get("XLA_FLAGS", ""):
        return None
    return {level: 1}


def memory_rows(n: int, mesh: Mesh, groups: int = 1) -> int:
    """Rows of per-example memory: n and some more, since a sharded axis has to be a multiple of the mesh.

    Padded the same way on meshes of every usual size, a state that was saved on one can be loaded on another. Where
    batches take from groups, a multiple of the devices, these are as even as can be.
    """
    rows = math.lcm(_MEMORY_ROWS, mesh.size) if groups == 1 else groups
    return -(-n // rows) * rows


def bytes_of_device(forms: Any) -> int:
    """Bytes that placed arrays, or their abstract forms, take on each device."""
    leaves = jax.tree.leaves(forms)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _check_memory(form: TrainState, mesh: Mesh) -> None:
    size = bytes_of_device(form)
    here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") or memory() // max(1, len(here))
    if size > limit:
        path, most = max(jax.tree.leaves_with_path(form), key=lambda leaf: bytes_of_device(leaf[1]))
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        raise ArgumentError(
            f"the model, the method and the optimizer need {size / 2**30:,.0f} GiB of memory, and there are "
            f"{limit / 2**30:,.0f}: make {name} of {list(most.shape)} smaller, by `widths` or what else sets its size, "
            "or give fewer classes or examples, or several devices and `shard_params`"
        )


def state_shardings(state: TrainState, mesh: Mesh, shard_params: bool = False) -> TrainState:
    """Where each leaf of a state belongs on a mesh, as a tree of shardings of the state's shape."""
    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    params, opt_state = shardings((state.params, state.opt_state), mesh, shard_params)
    memory = jax.tree.map(lambda _: by_example(mesh), state.memory)
    return everywhere._replace(params=params, opt_state=opt_state, memory=memory)


def abstract(make: Callable[[Array], TrainState], mesh: Mesh, shard_params: bool = False) -> TrainState:
    """Shapes, dtypes and shardings of the states that a maker makes."""
    state = jax.eval_shape(make, jax.random.key(0))

    def form(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    forms: TrainState = jax.tree.map(form, state, state_shardings(state, mesh, shard_params))
    return forms


def fitting(state: TrainState, form: TrainState) -> TrainState:
    """The state, whose leaves must have the shapes of ``form``; sums are those of whatever stage it was left in.

    Raises:
      ArgumentError: it is of another training.
    """
    shapes, wanted = (jax.tree.map(jnp.shape, s._replace(sums={})) for s in (state, form))
    if shapes != wanted:
        raise ArgumentError("`state` is of another model, method, optimizer or data: start without it, or bring them")
    return state


def with_weights(state: TrainState, params: Any, stats: Any) -> TrainState:
    """The state with a backbone's parameters and statistics from elsewhere, placed as its own were."""

    def placed(new: Any, old: Array) -> Array:
        if isinstance(new, jax.Array):
            return new
        return jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])

    params, stats = (jax.tree.map(placed, *pair) for pair in ((params, state.params["model"]), (stats, state.stats)))
    opt_state = with_average(state.opt_state, params)
    return state._replace(params={**state.params, "model": params}, stats=stats, opt_state=opt_state)


def predicting_params(state: TrainState) -> dict[str, Any]:
    """The parameters that predictions are made with: the backbone's running mean, where the optimizer keeps one."""
    average = average_in(state.opt_state)
    return state.params if average is None else {**state.params, "model": average}


def for_prediction(state: TrainState) -> TrainState:
    """What predicting needs of a state: parameters and statistics."""
    params = predicting_params(state)
    return state._replace(key=jnp.zeros((), jnp.uint32), params=params, opt_state=(), memory=(), sums={})


def reinit_heads(state: TrainState, fresh: TrainState) -> TrainState:
    """A state with the last layers of backbone and method, all that is called ``head``, from another one.

    What the optimizer has gathered for them starts at 0 again.
    """

    def is_head(path: jax.tree_util.KeyPath) -> bool:
        return jax.tree_util.DictKey("head") in path

    params = jax.tree.map_with_path(lambda path, old, new: new if is_head(path) else old, state.params, fresh.params)
    gathered = jax.tree.map_with_path(lambda path, x: jnp.zeros_like(x) if is_head(path) else x, state.opt_state)
    return state._replace(params=params, opt_state=with_average(gathered, params["model"]))
