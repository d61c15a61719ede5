"""What a run would take, told without training anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from nlx import target
from nlx.data.checks import memory
from nlx.data.dataset import Dataset
from nlx.experiment.defaults import Training
from nlx.methods.top import COUNT
from nlx.training.costs import Costs, costs_of
from nlx.training.stages import Stage, Stages
from nlx.training.trainer import Trainer

MIB = 2**20
_LABELS = 24  # bytes of an example in labels.parquet beside its probabilities, about
_KEPT = 3  # checkpoints at a time, one of them being written


class Planned(Exception):
    """The plan is told, and there is nothing more to do."""


class Plan(NamedTuple):
    """What a run would take.

    Attributes:
      about: what would train, on what and for how long.
      costs: of a step, on each device.
      limit: bytes of memory that a device has; None where it is not known.
      steps: of the whole run.
      disk: bytes of checkpoints, the model, and labels with one posterior.
    """

    about: str
    costs: Costs
    limit: int | None
    steps: int
    disk: int

    @property
    def fits(self) -> bool | None:
        """Whether a device has the memory; None where its limit is not known."""
        return None if self.limit is None else self.costs.bytes <= self.limit

    @property
    def sentences(self) -> list[str]:
        """All of it, to be read."""
        found = self.costs
        parts = {name: size for name, size in {**found.parts, "a step": found.working}.items() if size}
        each = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in parts.items())
        if found.between:
            each += f" or between epochs {found.between / MIB:,.1f}"
        fits = (
            "" if self.limit is None else f"; {self.limit / MIB:,.0f} are there" + ": it does NOT fit" * (not self.fits)
        )
        told = [self.about, f"memory of each device, MiB: {found.bytes / MIB:,.1f} ({each}){fits}"]
        if math.isfinite(found.flops):
            whole = found.flops * self.steps / 1e12
            told.append(
                f"each device computes, GFLOP: {found.flops / 1e9:,.2f} a step; TFLOP: {whole:,.1f} in all steps"
            )
        return [*told, f"on disk, MiB: {self.disk / MIB:,.0f} (checkpoints, model, labels with one posterior)"]


def plan_of(
    trainer: Trainer,
    data: Dataset,
    training: Training,
    stages: int | Stage | Sequence[Stage],
    whole: bool,
    compiling: Callable[[Lowered], Compiled] = Lowered.compile,
) -> Plan:
    """What training takes on each device and on disk, by compiling a step.

    Args:
      trainer: what would train.
      data: on what.
      training: how.
      stages: when.
      whole: whether probabilities of all classes are kept.
      compiling: compiles the step, or has done so before.

    Raises:
      ArgumentError: the compiler finds that the step does not fit into a device.
    """
    mesh, split, found = trainer.mesh, data.train, costs_of(trainer, data.train, compiling)
    plan = Stages(stages, len(split), trainer.batch_size)
    epochs = sum(stage.epochs for stage in plan.all)
    about = (
        f"{trainer.method.name} on {data.name}: {len(split):,} examples, {data.num_classes:,} classes, "
        f"{training.model}; {epochs} epochs, {plan.total:,} steps of {trainer.batch_size:,} examples "
        f"on {mesh.size} x {mesh.devices.flat[0].device_kind}"
    )
    kept = 4 * data.num_classes if whole else 6 * COUNT
    form = trainer.abstract_state(split)
    disk = _KEPT * _bytes(form) + _bytes((form.params, form.stats)) + len(split) * (_LABELS + kept)
    return Plan(about, found, _limit(mesh), plan.total, disk)


_PREALLOCATED = 0.75  # of a GPU's memory, by jax's default


def _bytes(forms: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(forms))


def _limit(mesh: Mesh) -> int | None:
    """Bytes of a device that is here, those of a CPU sharing its memory, or of an H100 that is not."""
    if "H100" in mesh.devices.flat[0].device_kind and target.is_planned():
        return round(_PREALLOCATED * target.H100_MEMORY)
    here = [device for device in mesh.devices.flat if device in jax.local_devices()]
    if not here:
        return None
    return (here[0].memory_stats() or {}).get("bytes_limit") or memory() // len(here)
