"""Several processes as one run, joined before anything touches a device."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from pathlib import Path

import jax

from nlx.arguments import ArgumentError

_STARTED = {"SLURM_NTASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}
"""Variables that say how many processes there are, and what starts them."""

_PATIENCE = 24 * 3600  # seconds, for which those that are done wait for the one that writes; of one that dies they hear


def join(distributed: str) -> None:
    """Make this process one of all that run together.

    Args:
      distributed: ``auto``: where a launcher or a TPU says that there are several; ``no``; or where the first of them
        listens, which one this is and how many there are, ``ADDRESS:PORT,NUMBER,COUNT``.

    Raises:
      ArgumentError: they cannot be joined, or there should be several and this one is alone.
    """
    if distributed == "no" or jax.distributed.is_initialized():
        return
    told = re.fullmatch(r"(.+:\d+),(\d+),(\d+)", distributed)
    if told is None and distributed != "auto":
        raise ArgumentError(
            f"`distributed` must be auto, no or ADDRESS:PORT,NUMBER,COUNT such as localhost:9000,0,2, got {distributed}"
        )
    try:
        if told is not None:
            address, number, count = told.groups()
            jax.distributed.initialize(address, int(count), int(number), shutdown_timeout_seconds=_PATIENCE)
        elif _among_several():
            jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
        elif _has_tpu():
            with contextlib.suppress(ValueError):  # no slice that jax knows: the chips of this host alone
                jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"the processes cannot be joined by `distributed`={distributed} ({error}): give each of them "
            "ADDRESS:PORT,NUMBER,COUNT, or choose no"
        ) from error
    name = next(iter(_counted()), None)
    if distributed == "auto" and name and jax.process_count() == 1:
        raise ArgumentError(
            f"{name}={os.environ[name]} says that several processes run, and each would do all the work: start them by "
            f"{_STARTED[name]}, give each its `distributed`=ADDRESS:PORT,NUMBER,COUNT, or choose no"
        )


def _counted() -> list[str]:
    """The variables that say that there are several."""
    return [name for name in _STARTED if os.environ.get(name, "1") not in ("", "1")]


def _among_several() -> bool:
    """Whether a launcher tells jax where the other processes are."""
    where = {"SLURM_NTASKS": "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE": "OMPI_MCA_orte_hnp_uri"}
    in_kubernetes = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    return in_kubernetes or any(where.get(name) in os.environ for name in _counted())


def _has_tpu() -> bool:
    chips = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    wanted = "tpu" in (jax.config.values["jax_platforms"] or "tpu")
    return bool(chips) and wanted and importlib.util.find_spec("libtpu") is not None
