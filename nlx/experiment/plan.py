"""What a run would take, told without training anything."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from nlx.data.checks import memory
from nlx.data.dataset import Dataset
from nlx.experiment.defaults import Training
from nlx.methods.top import COUNT
from nlx.training.costs import costs_of
from nlx.training.stages import Stages
from nlx.training.trainer import Trainer

MIB = 2**20
_LABELS = 24  # bytes of an example in labels.parquet beside its probabilities, about
_KEPT = 2  # checkpoints at a time


class Planned(Exception):
    """The plan is told, and there is nothing more to do."""


def plan_of(trainer: Trainer, data: Dataset, training: Training, plan: Stages, whole: bool) -> Iterator[str]:
    """Sentences on what training takes on each device and on disk, by compiling a step.

    Args:
      trainer: what would train.
      data: on what.
      training: how.
      plan: when.
      whole: whether probabilities of all classes are kept.
    """
    mesh, split, found = trainer.mesh, data.train, costs_of(trainer, data.train)
    device, steps, epochs = mesh.devices.flat[0], plan.total, sum(stage.epochs for stage in plan.all)
    yield (
        f"{trainer.method.name} on {data.name}: {len(split):,} examples, {data.num_classes:,} classes, "
        f"{training.model}; {epochs} epochs, {steps:,} steps of {trainer.batch_size:,} examples "
        f"on {mesh.size} x {device.device_kind}"
    )
    parts = {name: size for name, size in {**found.parts, "a step": found.working}.items() if size}
    each = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in parts.items())
    limit = _limit(mesh)
    fits = "" if limit is None else f"; {limit / MIB:,.0f} are there" + ": it does NOT fit" * (found.bytes > limit)
    yield f"memory of each device, MiB: {found.bytes / MIB:,.1f} ({each}){fits}"
    if math.isfinite(found.flops):
        all_steps = found.flops * steps / 1e12
        yield f"each device computes, GFLOP: {found.flops / 1e9:,.2f} a step; TFLOP: {all_steps:,.1f} in all steps"
    kept = 4 * data.num_classes if whole else 6 * COUNT
    state = found.parts["weights"] + found.parts["optimizer"] + found.parts["examples"] * mesh.size
    disk = _KEPT * state + found.parts["weights"] + len(split) * (_LABELS + kept)
    yield f"on disk, MiB: {disk / MIB:,.0f} (checkpoints, model, labels with one posterior)"


def _limit(mesh: Mesh) -> int | None:
    """Bytes of a device that is here; those of a CPU share its memory."""
    here = [device for device in mesh.devices.flat if device in jax.local_devices()]
    if not here:
        return None
    return (here[0].memory_stats() or {}).get("bytes_limit") or memory() // len(here)
