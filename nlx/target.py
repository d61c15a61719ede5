"""Which devices programs are made for: those that are here, or others that a run is only planned for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

from nlx.arguments import ArgumentError

H100_MEMORY = 84_978_434_048  # bytes
_H100 = f"""
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info {{ major: 9 minor: 8 }}
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132
  fpus_per_core: 128
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  l2_cache_size: 52428800
  device_memory_size: {H100_MEMORY}
  memory_bandwidth: 3352320000000
  clock_rate_ghz: 1.98
}}
"""  # what the card says of itself, without which its compiler asks a driver

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
    """The devices of ``here``, of a TPU slice such as ``v5e:2x4``, ``h100:8``, or ``cpu:8`` for so many forced ones.

    Raises:
      ArgumentError: a compiler is missing, such a slice is not known, or there are fewer CPU devices.
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
        if kind == "h100" and form.isdigit() and int(form):
            cards: dict[str, Any] = {"topology": f"1x1x{int(form)}", "target_config": _H100}
            return list(topologies.get_topology_desc("h100", platform="cuda", **cards).devices)
        whole = {"chip_config_name": "megacore"} if kind == "v4" else {}  # both cores of a chip as one device
        return list(topologies.get_topology_desc(topology, platform="tpu", **whole).devices)
    except (RuntimeError, ValueError, NotImplementedError, KeyError) as error:
        why = str(error).partition("\n")[0]
        if kind == "h100" and form.isdigit():
            compiler = " ".join(f"jax-cuda12-{part}=={jax.__version__}" for part in ("plugin", "pjrt"))
            raise ArgumentError(
                f"{topology} needs the compiler for GPUs: pip install --no-deps {compiler} ({why})"
            ) from error
        raise ArgumentError(
            f"{topology} is neither here, nor cpu:N or h100:N, nor a TPU slice such as v5e:2x4, for which "
            f"pip install 'nlx[tpu]' is needed as well ({why})"
        ) from error
