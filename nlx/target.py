"""Which devices programs are made for: those that are here, or others that a run is only planned for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

from nlx.arguments import ArgumentError

_planned: ContextVar[list[jax.Device] | None] = ContextVar("planned", default=None)


def devices() -> list[jax.Device]:
    """All devices of all processes, or those that are planned for."""
    return _planned.get() or jax.devices()


def platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``."""
    planned = _planned.get()
    return planned[0].platform if planned else jax.default_backend()


def is_planned() -> bool:
    """Whether programs are only compiled."""
    return _planned.get() is not None


@contextmanager
def planned_for(those: list[jax.Device] | None) -> Iterator[None]:
    """Within it programs are made for those devices and may not run; None for nothing of the kind."""
    token = _planned.set(those)
    try:
        yield
    finally:
        _planned.reset(token)


def devices_of(topology: str) -> list[jax.Device]:
    """The devices of ``here``, of a TPU slice such as ``v5e:2x4``, or ``cpu:8`` for so many forced ones.

    Raises:
      ArgumentError: libtpu is missing, such a slice is not known, or there are fewer CPU devices.
    """
    if topology == "here":
        return jax.devices()
    kind, _, form = topology.partition(":")
    if kind == "cpu" and form.isdigit() and int(form):
        if len(found := jax.devices("cpu")) < int(form):
            raise ArgumentError(f"{topology} needs so many devices: set JAX_NUM_CPU_DEVICES={form}")
        return found[: int(form)]
    from jax.experimental import topologies  # of no use to those who import primitives

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        whole = {"chip_config_name": "megacore"} if kind == "v4" else {}  # both cores of a chip as one device
        return list(topologies.get_topology_desc(topology, platform="tpu", **whole).devices)
    except (RuntimeError, ValueError, NotImplementedError, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise ArgumentError(
            f"{topology} is neither here, nor cpu:N, nor a TPU slice such as v5e:2x4, for which pip install 'nlx[tpu]' "
            f"is needed as well ({why})"
        ) from error
