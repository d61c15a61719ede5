"""Where arrays live: a mesh of devices, and how host arrays come onto it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from nlx import target


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One axis, ``data``, over all devices of all processes, or over the given or planned ones."""
    devices = target.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The leading axis, examples, spread over the mesh's ``data`` axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_device(arrays: dict[str, np.ndarray], sharding: Sharding) -> dict[str, Array]:
    """Host arrays, the same on every process, as global ones; each process uploads its own rows only."""

    def one(rows: np.ndarray) -> Array:
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    return {name: one(rows) for name, rows in arrays.items()}


class Share:
    """Which rows of a batch lie on the devices of this process, and so are read here and nowhere else.

    Args:
      mesh: over which batches are spread.
      size: B, over all processes.

    Attributes:
      rows: their positions in the batch, ascending, int ``[m]``.
    """

    def __init__(self, mesh: Mesh, size: int):
        self._sharding, self._size = by_example(mesh), size
        places = self._sharding.addressable_devices_indices_map((size,)).values()
        self.rows = np.unique(np.concatenate([np.arange(size)[place] for place in places if place is not None]))

    def to_device(self, arrays: dict[str, np.ndarray]) -> dict[str, Array]:
        """These rows of a batch, ``[m, ...]``, as the process's part of global arrays ``[B, ...]``."""

        def one(rows: np.ndarray) -> Array:
            def of_device(index: Any) -> np.ndarray:
                begin, end, _ = index[0].indices(self._size)
                first = np.searchsorted(self.rows, begin)
                return rows[first : first + end - begin]

            return jax.make_array_from_callback((self._size, *rows.shape[1:]), self._sharding, of_device)

        return {name: one(rows) for name, rows in arrays.items()}


def agree(count: int, flag: bool) -> tuple[int, bool]:
    """What all processes do next: the first one's count, and the flag if any raised it.

    Programs of different lengths on different processes would wait for each other for ever.
    """
    if jax.process_count() == 1:
        return count, flag
    every = multihost_utils.process_allgather(np.array([count, flag], np.int32))
    return int(every[0, 0]), bool(every[:, 1].any())
