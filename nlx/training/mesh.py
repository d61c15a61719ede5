"""Where arrays live: a mesh of devices, how host arrays come onto it, and how split ones come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from nlx import target
from nlx.arguments import ArgumentError

DATA, MODEL = "data", "model"  # axes of a mesh


class Layout(NamedTuple):
    """How trainings lie on the devices where their trainers are not told.

    Attributes:
      model_devices: see :func:`make_mesh`.
      shard_params: see :class:`nlx.training.trainer.Trainer`.
      spread_data: likewise.
      shuffle_groups: likewise.
    """

    model_devices: int = 1
    shard_params: bool = False
    spread_data: bool = False
    shuffle_groups: int = 1


_layout: ContextVar[Layout] = ContextVar("layout", default=Layout())  # noqa: B039


def layout() -> Layout:
    """The layout of trainings that begin now."""
    return _layout.get()


@contextmanager
def laid_out(wanted: Layout) -> Iterator[None]:
    """Within it trainers that are given no mesh lay trainings out like this."""
    token = _layout.set(wanted)
    try:
        yield
    finally:
        _layout.reset(token)


def make_mesh(devices: list[jax.Device] | None = None, model_devices: int | None = None) -> Mesh:
    """All devices of all processes, or the given or planned ones, along ``data``, or along ``data`` and ``model``.

    Examples are spread over all of them whatever their axes. There is no axis ``model`` of length 1, so that
    trainings that split no layer by class have the programs of a mesh that knows of ``data`` alone.

    Args:
      devices: which.
      model_devices: how many neighbours share the last layer and a transition matrix between them, along ``model``; 1
        for no such axis. None for what the layout says, or 1 where devices are given.

    Raises:
      ArgumentError: the devices are no multiple of that.
    """
    if model_devices is None:
        model_devices = layout().model_devices if devices is None else 1
    devices = target.devices() if devices is None else devices
    if model_devices < 1 or len(devices) % model_devices:
        raise ArgumentError(f"`model_devices`={model_devices} does not divide {len(devices)} devices; take a divisor")
    shape = {DATA: len(devices) // model_devices, MODEL: model_devices}
    axes = (DATA, MODEL) if model_devices > 1 else (DATA,)
    kinds = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(shape[a] for a in axes), axes, axis_types=kinds, devices=devices)


def check_batch(batch_size: int, devices: int, groups: int = 1) -> None:
    """Raise an ArgumentError where a batch has no equal parts for the devices, or groups of examples are not theirs."""
    if batch_size % devices:
        raise ArgumentError(f"`batch_size`={batch_size} does not divide over {devices} devices; take a multiple")
    if groups > 1 and groups % devices:
        raise ArgumentError(f"`shuffle_groups`={groups} do not divide over {devices} devices; take a multiple, or 1")
    if batch_size % groups:
        raise ArgumentError(
            f"`batch_size`={batch_size} does not divide over {groups} `shuffle_groups`; take a multiple"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The leading axis, examples, spread over all of a mesh."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def to_device(arrays: dict[str, np.ndarray], sharding: Sharding) -> dict[str, Array]:
    """Host arrays, the same on every process, as global ones; each process uploads its own rows only."""

    def one(rows: np.ndarray) -> Array:
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    return {name: one(rows) for name, rows in arrays.items()}


def spread(arrays: dict[str, np.ndarray], mesh: Mesh, size: int | None = None) -> dict[str, Array]:
    """Host arrays ``[n, ...]``, the same on every process, spread by example.

    Zeros at the end make shares equal, or ``size`` rows in all, a multiple of the devices.
    """

    def one(rows: np.ndarray) -> Array:
        share = -(-(size or len(rows)) // mesh.size)

        def of_device(index: Any) -> np.ndarray:
            own = rows[index[0]]
            return np.pad(own, ((0, share - len(own)), *(((0, 0),) * (rows.ndim - 1)))) if len(own) < share else own

        return jax.make_array_from_callback((share * mesh.size, *rows.shape[1:]), by_example(mesh), of_device)

    return {name: one(rows) for name, rows in arrays.items()}


def on_host(tree: Any) -> Any:
    """Arrays as NumPy arrays, on every process; all of them ask, for what is split is brought together. Keys stay."""

    def one(leaf: Array) -> Array | np.ndarray:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = jax.jit(lambda x: x, out_shardings=replicated(leaf.sharding.mesh))(leaf)  # type: ignore[attr-defined]
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


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
