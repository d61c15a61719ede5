"""What a run would take, told without training anything."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax

from nlx import target
from nlx.data.checks import memory
from nlx.data.dataset import Dataset
from nlx.experiment.defaults import Training
from nlx.training.costs import Costs, costs_of
from nlx.training.stages import Stages
from nlx.training.trainer import Trainer

MIB = 2**20
_LABELS = 24  # bytes of an example in labels.parquet beside its probabilities, about
_KEPT = 2  # checkpoints at a time


class Planned(Exception):
    """The plan is told, and there is nothing more to do."""


def plan_of(trainer: Trainer, data: Dataset, training: Training) -> Iterator[str]:
    """Sentences on what training takes on each device and on disk, by compiling a step."""
    mesh, split, found = trainer.mesh, data.train, costs_of(trainer, data.train)
    device, steps = mesh.devices.flat[0], Stages(training.epochs, len(split), trainer.batch_size).total
    yield (
        f"{trainer.method.name} on {data.name}: {len(split):,} examples, {data.num_classes:,} classes, "
        f"{training.model}; {training.epochs} epochs, {steps:,} steps of {trainer.batch_size:,} examples "
        f"on {mesh.size} x {device.device_kind}"
    )
    parts = {name: size for name, size in {**found.parts, "a step": found.working}.items() if size}
    each = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in parts.items())
    limit = _limit(device)
    fits = "" if limit is None else f"; {limit / MIB:,.0f} are there" + ": it does NOT fit" * (found.bytes > limit)
    yield f"memory of each device, MiB: {found.bytes / MIB:,.1f} ({each}){fits}"
    if math.isfinite(found.flops):
        all_steps = found.flops * steps / 1e12
        yield f"each device computes, GFLOP: {found.flops / 1e9:,.2f} a step; TFLOP: {all_steps:,.1f} in all steps"
    disk = _on_disk(found, len(split), data.num_classes, mesh.size)
    yield f"on disk, MiB: {disk / MIB:,.0f} (checkpoints and labels)"


def _limit(device: jax.Device) -> int | None:
    """Bytes of a device that is here."""
    if target.is_planned() and device not in jax.devices():
        return None
    return (device.memory_stats() or {}).get("bytes_limit") or memory()


def _on_disk(found: Costs, n: int, num_classes: int, devices: int) -> int:
    state = found.parts["weights"] + found.parts["optimizer"] + found.parts["examples"] * devices
    return _KEPT * state + n * (_LABELS + 4 * num_classes)
