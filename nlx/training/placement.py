"""Which parameters are split over the devices, and how: one rule for parameters, moments and running means."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey, KeyPath

from nlx.training.mesh import DATA, MODEL

LEAST = 4 * 2**20
"""Bytes of an array that is worth splitting over ``data``."""


def shardings(tree: Any, mesh: Mesh, shard_params: bool, least: int = LEAST) -> Any:
    """Where each array of parameters, or of an optimizer's state of them, belongs on a mesh.

    - Where the mesh has the axis ``model``, last layers (all that is called ``head``) are split over it along their
      last axis, the classes, and a square ``transition`` of the method along its first: its rows, the true classes, as
      logits have them, stay whole for the projection onto the simplex.
    - Where ``shard_params``, an array of at least ``least`` bytes is split over ``data`` along the longest axis that
      divides and is not split yet.
    - All else, and what does not divide, is on every device.

    Args:
      tree: arrays or their abstract forms; the optimizer's states hold trees of the parameters' paths and shapes.
      mesh: see :func:`nlx.training.mesh.make_mesh`.
      shard_params: whether to split over ``data``.
      least: in bytes.

    Returns:
      A tree of that form, of shardings.
    """

    def one(path: KeyPath, leaf: Any) -> NamedSharding:
        axes: list[str | None] = [None] * len(leaf.shape)
        classes = _class_axis(path, leaf.shape)
        if classes is not None and leaf.shape[classes] % mesh.shape.get(MODEL, 1) == 0 and MODEL in mesh.shape:
            axes[classes] = MODEL
        if shard_params and math.prod(leaf.shape) * leaf.dtype.itemsize >= least:
            free = [i for i, size in enumerate(leaf.shape) if axes[i] is None and size % mesh.shape[DATA] == 0]
            if free:
                axes[max(free, key=lambda i: leaf.shape[i])] = DATA
        while axes and axes[-1] is None:  # as programs give them back
            axes.pop()
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map_with_path(one, tree)


def _class_axis(path: KeyPath, shape: tuple[int, ...]) -> int | None:
    """The axis of classes of an array that is as long as there are classes; None of others."""
    if DictKey("head") in path and shape:
        return len(shape) - 1
    square = len(shape) == 2 and shape[0] == shape[1]
    return 0 if square and DictKey("method") in path and DictKey("transition") in path else None


def is_split(tree: Any) -> bool:
    """Whether any sharding of a tree splits."""
    return not all(sharding.is_fully_replicated for sharding in jax.tree.leaves(tree))


def split_by_class(logits: Array, mesh: Mesh) -> Array:
    """Logits ``[B, ..., K]`` of a last layer that is split over ``model``: by class there, by example over ``data``.

    So features are gathered, which are small, and not the layer.
    """
    if MODEL not in mesh.shape or logits.shape[-1] % mesh.shape[MODEL]:
        return logits
    spec = PartitionSpec(DATA, *(None,) * (logits.ndim - 2), MODEL)
    return jax.lax.with_sharding_constraint(logits, NamedSharding(mesh, spec))
