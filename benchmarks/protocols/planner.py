"""What rows at full size take: the recipe itself says what it would train, and a step of that is compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.stages import Compiled, Lowered

from benchmarks.protocols.runner import Entry
from nlx.arguments import ArgumentError
from nlx.data import Dataset, ImageFiles, Split
from nlx.data.sources.counts import COUNTS
from nlx.experiment.options import RecipeOptions
from nlx.experiment.plan import Plan, plan_of
from nlx.experiment.run import Run
from nlx.target import planned_for
from nlx.training.trainer import Trainer

GIB = 2**30
_FEATURES = 5_376  # of AMT
_WORDS = 1_000
_FLOPS = 1.06e14  # a second, of a ResNet-50's step in bfloat16 as measured on an H100; float32 is taken as half of it
_SHARE = 0.2  # trusted in data that are only counted


class Needs(NamedTuple):
    """What a row takes.

    Attributes:
      plan: what its recipe's ``--plan`` says.
      examples: to train on.
      hours: on paper, on the devices that it is planned for.
    """

    plan: Plan
    examples: int
    hours: float


class _Ready(Exception):
    """A recipe has all that it needs to train."""

    def __init__(self, trainer: Trainer, data: Dataset, plan: Plan):
        self.trainer, self.data, self.plan = trainer, data, plan


class _Trial(Run):
    """A run that writes nothing and ends where the training would begin."""

    def __init__(self, options: RecipeOptions, data: Dataset, compiling: Callable[[str, Lowered], Compiled]):
        super().__init__(replace(options, run_dir=None), data=data, pictures=False)
        self._compiling = compiling

    def warn(self, text: str) -> None:
        """Say nothing."""

    def observers(self, *_: Any, **__: Any) -> list[Any]:
        """Nobody looks on."""
        return []

    def restored(self, trainer: Trainer, data: Dataset, stages: Any) -> Any:
        """End here."""
        what = f"{trainer.method.name}, {self._training.model}, {trainer.batch_size} examples"
        compiling = partial(self._compiling, what)
        raise _Ready(trainer, data, plan_of(trainer, data, self._training, stages, self._whole(data), compiling))


def counted(entry: Entry) -> Dataset | None:
    """A data set of the size of the authors', without any of its pictures, in memory where a run would have them.

    None for one that is in no table.
    """
    o = entry.options
    name = "npz:amt.npz" if o.dataset.startswith("npz:") else o.dataset
    if name not in COUNTS:
        return None
    about = COUNTS[name]
    n, tests, k = about.of(o.labels), about.test, about.classes
    several = o.dataset in ("web", "coco_captions", "voc2007", "voc2012")
    small = o.dataset.startswith(("cifar", "svhn"))
    side = 32 if small else o.image_size
    if o.dataset.startswith("npz:"):
        inputs: Any = np.broadcast_to(np.float32(0), (n, _FEATURES))
    elif small or (n + tests) * 3 * side**2 <= o.in_memory_gib * GIB:
        inputs = np.broadcast_to(np.uint8(0), (n, side, side, 3))
    else:
        inputs = ImageFiles(("",) * n, side)
    words = o.dataset == "coco_captions"
    label = np.resize(np.eye(k, dtype=np.uint8) if several else np.arange(k, dtype=np.int32), (n, k) if several else n)
    noisy = np.zeros((n, _WORDS), np.uint8) if words else label
    trusted = np.arange(n) < _SHARE * n if words or o.labels in ("verified", "clean") else None
    outlier = np.arange(n) % 2 == 0 if (o.noise or "").startswith("outlier") else None
    train = Split(inputs, noisy, label, trusted, outlier)
    names = tuple(map(str, range(_WORDS))) if words else None
    return Dataset(o.dataset, tuple(map(str, range(k))), train, None, names)


# Options that make no difference to what a step takes.
_FREE = {
    "noise",
    "test",
    "init",
    "data_dir",
    "regularizer",
    "members",
    "prototypes",
    "select",
    "transition",
    "noise_seed",
}


class Planner:
    """Finds out what rows take, by compiling a step of each; a program that several share is compiled once.

    Args:
      devices: that programs are made for; they need not be here.
      say: told what is being compiled.
    """

    def __init__(self, devices: list[jax.Device], say: Callable[[str], None]):
        self.devices, self._say = devices, say
        self._needs: dict[str, Needs | ArgumentError] = {}
        self._compiled: dict[str, Compiled] = {}

    def __call__(self, entry: Entry, data: Dataset) -> Needs:
        """What a row takes; the recipe itself says what it would train.

        Args:
          entry: the row.
          data: that it trains on.

        Raises:
          DataError, ArgumentError: data and options do not fit, or the step not into a device.
        """
        entry.options.check()
        about = {name: value for name, value in vars(entry.options).items() if name not in _FREE}
        key = f"{entry.train.__module__} {about} {len(data.train)} {data.input_shape} {data.num_classes}"
        if key not in self._needs:
            try:
                with planned_for(self.devices):
                    self._needs[key] = self._found(entry, data)
            except ArgumentError as error:
                self._needs[key] = error
        if isinstance(found := self._needs[key], ArgumentError):
            raise found
        return found

    def _found(self, entry: Entry, data: Dataset) -> Needs:
        run = _Trial(entry.options, data, self._compile)
        try:
            entry.train(entry.options, run)
            raise AssertionError("a recipe asks its run for the state to begin with")
        except _Ready as ready:
            found = ready
        peak = _FLOPS if run._training.dtype == "bfloat16" else _FLOPS / 2
        hours = 3 * _forward(found.trainer, found.data.train) * found.plan.steps / peak / 3600
        return Needs(found.plan, len(found.data.train), hours)

    def _compile(self, what: str, lowered: Lowered) -> Compiled:
        text = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        if text not in self._compiled:
            self._say(f"compiling a step of {what}")
            self._compiled[text] = lowered.compile()
        return self._compiled[text]


def _forward(trainer: Trainer, train: Split) -> float:
    """Operations of the backbone's forward pass over the part of a batch that a device has."""
    params, stats = jax.eval_shape(trainer.model.init, jax.random.key(0))
    share = trainer.batch_size // trainer.mesh.size
    inputs = jax.ShapeDtypeStruct((share, *train.inputs.shape[1:]), train.inputs.dtype)

    def scores(params: Any, stats: Any, inputs: Any) -> jax.Array:
        outputs, _ = trainer.model.apply(params, stats, inputs, True, jax.random.key(0))
        return outputs["logits"]

    analysis: Any = jax.jit(scores).lower(params, stats, inputs).cost_analysis()
    return float(analysis["flops"])
