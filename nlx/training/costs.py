"""What a training takes, known by compiling its step; nothing is allocated, and its devices need not be here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.stages import Compiled, Lowered

from nlx.arguments import ArgumentError
from nlx.data.dataset import ImageFiles, Split
from nlx.training.feed import batch_shapes, make_program
from nlx.training.mesh import by_example, replicated
from nlx.training.state import bytes_of_device, output_shapes
from nlx.training.step import make_step
from nlx.training.trainer import Trainer

_FULL = "RESOURCE_EXHAUSTED: "  # begins what XLA says of memory


class Costs(NamedTuple):
    """What a step takes on each device.

    Attributes:
      parts: bytes by what they are for: ``weights`` of backbone and method, ``optimizer``, ``examples`` (the method's
        memory of them, spread over the devices), ``data`` (the training set, where it stays on the device).
      working: bytes that a step takes beside these: activations, gradients, its batch.
      between: bytes that a method which looks at all examples between epochs takes beside the parts: their features,
        and its memory once more, as the old one stays until the new one is whole; 0 of others.
      flops: of a step, as the compiler counts them, the body of a loop once; NaN where it does not.
    """

    parts: dict[str, int]
    working: int
    between: int
    flops: float

    @property
    def bytes(self) -> int:
        """All that is there at once, at most."""
        return sum(self.parts.values()) + max(self.working, self.between)


def costs_of(trainer: Trainer, split: Split, compiling: Callable[[Lowered], Compiled] = Lowered.compile) -> Costs:
    """Compile a step for the devices of a trainer's mesh, which need not be here, and read what it takes.

    Args:
      trainer: what would train.
      split: training set, of which only the form matters.
      compiling: compiles the step, or has done so before.

    Raises:
      ArgumentError: the compiler finds that the step does not fit into a device, as those of TPUs do.
    """
    mesh, batch_size, state = trainer.mesh, trainer.batch_size, trainer.abstract_state(split)
    about = (trainer.model, trainer.method, trainer.optimizer, mesh)
    local = trainer.shuffle_groups > 1
    program = make_program(make_step(*about, shard_params=trainer.shard_params, local=local), batch_size)
    batch = {
        name: jax.ShapeDtypeStruct(form.shape, form.dtype, sharding=by_example(mesh))
        for name, form in batch_shapes(split, batch_size).items()
    }
    total: Any = jax.ShapeDtypeStruct((), np.float32, sharding=replicated(mesh))
    named = jax.eval_shape(program.step, state, batch)[1]
    one: Any = program.one
    try:
        compiled = compiling(one.lower(state._replace(sums=dict.fromkeys(named, total)), batch))
    except jax.errors.JaxRuntimeError as error:
        if not (why := str(error).partition("\n")[0]).startswith(_FULL):
            raise
        raise ArgumentError(
            f"a step does not fit into a {mesh.devices.flat[0].device_kind}: {why.removeprefix(_FULL)} take more "
            "devices, `remat`, or `accumulate` with a smaller `batch_size`"
        ) from error
    memory: Any = compiled.memory_analysis()
    given = memory.output_size_in_bytes - memory.alias_size_in_bytes
    parts = {
        "weights": bytes_of_device((state.params, state.stats)),
        "optimizer": bytes_of_device(state.opt_state),
        "examples": bytes_of_device(state.memory),
        "data": 0
        if isinstance(split.inputs, ImageFiles)
        else _resident(split, mesh.size if trainer.spread_data else 1),
    }
    held = sum(size for name, size in parts.items() if name != "data")
    working = max(0, memory.argument_size_in_bytes - held) + memory.temp_size_in_bytes + given
    analysis: Any = compiled.cost_analysis() or {}
    return Costs(parts, working, _between(trainer, split, parts["examples"]), float(analysis.get("flops", math.nan)))


def _between(trainer: Trainer, split: Split, kept: int) -> int:
    if trainer.method.refresh is None:
        return 0
    sample = jax.ShapeDtypeStruct((1, *split.inputs.shape[1:]), split.inputs.dtype)
    width = output_shapes(trainer.model, sample)["features"].shape[-1]
    return kept + 4 * width * -(-len(split) // trainer.mesh.size)


def _resident(split: Split, shares: int) -> int:
    """Bytes of a training set on each device, which has one of so many shares."""
    arrays = (split.inputs, split.noisy_label, split.trusted_label)
    rows = -(-len(split) // shares)
    return sum(rows * a.nbytes // len(a) for a in arrays if isinstance(a, np.ndarray))
