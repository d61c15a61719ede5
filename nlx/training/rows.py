"""Rows of arrays ``[n, ...]`` that belong to a batch: read and written wherever they lie, or on their own devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec


def take_rows(tree: Any, index: Array, mesh: Mesh | None = None) -> Any:
    """The rows of a batch from a tree of arrays by example.

    Args:
      tree: leaves ``[n, ...]``.
      index: rows, int32 ``[B]``.
      mesh: over which both are spread, where every device holds the rows that its part of the batch names, see
        :class:`nlx.training.order.Groups`: nothing is sent then. None where rows lie anywhere.
    """
    return jax.tree.map(lambda m: _own(mesh, lambda m, i: m[i])(m, index), tree)


def put_rows(tree: Any, index: Array, new: Any, mesh: Mesh | None = None) -> Any:
    """The tree with a batch's rows replaced; None in ``new`` for leaves that stay. Other arguments as above."""
    put = _own(mesh, lambda m, i, rows: m.at[i].set(rows))
    return jax.tree.map(lambda m, rows: m if rows is None else put(m, index, rows), tree, new)


def by_device(size: int, devices: int, batch_size: int) -> np.ndarray:
    """All rows of arrays that are spread over devices, in batches of which each device has its own.

    Args:
      size: rows, a multiple of the devices.
      devices: over which they and every batch are spread.
      batch_size: B, likewise.

    Returns:
      Rows, int32 ``[batches * B]``; where a device has no more, its last one again.

    Examples:
      >>> by_device(6, 2, 4)
      array([0, 1, 3, 4, 2, 2, 5, 5], dtype=int32)
    """
    own, each = size // devices, batch_size // devices
    place = np.minimum(np.arange(-(-own // each) * each), own - 1).reshape(-1, 1, each)
    return (place + own * np.arange(devices)[:, None]).astype(np.int32).reshape(-1)


def _own(mesh: Mesh | None, change: Callable[..., Array]) -> Callable[..., Array]:
    """A function of an array, rows of it, and more; on each device by itself where there is a mesh."""
    if mesh is None:
        return change

    def here(m: Array, index: Array, *more: Array) -> Array:
        return change(m, index - jax.lax.axis_index(mesh.axis_names) * m.shape[0], *more)

    spread = PartitionSpec(mesh.axis_names)
    return jax.shard_map(here, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)
