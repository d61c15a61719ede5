"""What a table at full size needs, found out without training: data, weights, memory and disk; and running it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.stages import Compiled, Lowered

from benchmarks.protocols.common import table
from benchmarks.protocols.full import Full
from benchmarks.protocols.runner import Entry
from nlx.arguments import ArgumentError
from nlx.data import DataError, Dataset, ImageFiles, Split, load
from nlx.data.sources.official import OFFICIAL
from nlx.experiment.defaults import crop_size
from nlx.experiment.main import run_recipe
from nlx.experiment.options import RecipeOptions
from nlx.experiment.plan import MIB, Plan, plan_of
from nlx.experiment.run import Run
from nlx.experiment.run_folder import write_json
from nlx.models import build
from nlx.models.pretrained import load_weights
from nlx.target import planned_for
from nlx.training.trainer import Trainer

GIB = 2**30
# Of the sets that no table of official layouts has: training and test pictures, classes, noisy words.
_ELSEWHERE = {"web": (97_836, 4_952, 20), "coco_captions": (82_783, 20_252, 73), "cifar10": (50_000, 10_000, 10)}
_AMT, _FEATURES = (7_354, 1_000, 4), 5_376
_WORDS = 1_000
_FLOPS = 4e14  # of a chip in bfloat16 at 40 % of an H100's peak; float32 convolutions run there in TF32, at half of it
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


def prepared_rows(full: Full, data_dir: Path, weights: Path, changes: dict[str, Any]) -> dict[str, Entry]:
    """The rows of a table with the folders of data and weights, and with changed options."""

    def settled(entry: Entry) -> Entry:
        o = entry.options
        arrays = o.dataset.removeprefix("npz:")
        named = {"dataset": f"npz:{data_dir / arrays}"} if o.dataset != arrays else {}
        known = {field.name for field in fields(o)}
        own = {name: value for name, value in changes.items() if name in known}
        init = own.pop("init", o.init)
        return entry.but(**{**named, "data_dir": data_dir, "init": None if init is None else weights / init, **own})

    return {name: settled(entry) for name, entry in full.rows.items()}


def command(options: RecipeOptions, recipe: str) -> str:
    """The command line of a recipe that has such options."""
    defaults = {field.name: field.default for field in fields(options)}
    given = {name: value for name, value in vars(options).items() if value != defaults[name]}

    def said(name: str, value: Any) -> str:
        return f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name}={value}"

    parts = [f"python recipes/{recipe.rpartition('.')[2]}.py", *(said(*pair) for pair in given.items())]
    return " ".join(parts)


def counted(entry: Entry) -> Dataset:
    """A data set of the size of the authors', without any of its pictures, in memory where a run would have them."""
    o = entry.options
    if o.dataset in OFFICIAL:
        about = OFFICIAL[o.dataset]
        sizes = about.train[0 if o.labels is None else about.labels.index(o.labels)], about.test, about.classes
    else:
        sizes = _AMT if o.dataset.startswith("npz:") else _ELSEWHERE[o.dataset]
    n, tests, k = sizes
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


def read(options: RecipeOptions) -> Dataset:
    """The data that a row needs, as its run would have them; noise is left aside, which would look at all pictures.

    Raises:
      DataError, OSError: they are not there, or not as they should be.
    """
    if options.dataset == "web" and not (options.data_dir / "web" / "labels.csv").is_file():
        raise DataError(
            f"{options.data_dir / 'web' / 'labels.csv'}: no such file: lay WEB out as docs/full_size.md says."
        )
    outliers = (options.noise or "").startswith("outlier")
    return load(
        options.dataset,
        test=options.test,
        labels=options.labels,
        data_dir=options.data_dir,
        noise=options.noise if outliers else None,
        image_size=options.image_size,
        in_memory_gib=options.in_memory_gib,
    )


def check_weights(options: RecipeOptions, data: Dataset) -> None:
    """Refuse weights that are not there or not those of the row's backbone.

    Raises:
      ArgumentError, OSError: so it is.
    """
    if options.init is not None:
        side = crop_size(options, data) or data.input_shape[0]
        shape = (side, side, 3)
        params, stats = jax.eval_shape(build(str(options.model), shape, data.num_classes).init, jax.random.key(0))
        load_weights(str(options.model), params, stats, Path(options.init), shape)


def dry_run(
    name: str, full: Full, rows: dict[str, Entry], run_dir: Path, planner: Planner
) -> tuple[list[str], list[str]]:
    """What a table would do, and what it lacks.

    Args:
      name: of the table.
      full: its figures.
      rows: what would run.
      run_dir: where runs would be kept.
      planner: finds out what rows take.

    Returns:
      Lines of Markdown; and sentences on what is missing, none where the table can begin.
    """
    missing: dict[str, None] = {}
    found: dict[str, Dataset | None] = {}
    lines, total = [], 0
    for label, entry in rows.items():
        o = entry.options
        wanted = f"{o.dataset} {o.test} {o.labels} {o.image_size}" + f" {o.noise}" * bool(o.known_outliers)
        if wanted not in found:
            found[wanted] = None
            with told(missing):
                found[wanted] = read(o)
        data = found[wanted] or counted(entry)
        with told(missing):
            check_weights(o, data)
        needs = None
        with told(missing, f"{label}: "):
            needs = planner(entry, data)
        if needs is not None:
            total += needs.plan.disk * o.seeds
            if needs.plan.fits is False:
                missing[does_not_fit(label, needs.plan)] = None
        paper = str(full.paper.get(label, "–"))
        lines.append([label, *shown(needs), paper, f"`{command(o, entry.train.__module__)}`"])
    free = shutil.disk_usage(next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())).free
    if total > free:
        missing[f"runs need {total / GIB:.1f} GiB on disk, and {run_dir} has {free / GIB:.1f}: make room"] = None
    head = ["row", "examples", "steps", "MiB a device", "of it a step", "fits", "hours on paper", "paper", "command"]
    chips = f"{len(planner.devices)} x {planner.devices[0].device_kind}"
    text = [f"# {name}, full size, on {chips}", "", full.remark or "As the paper has it.", "", *table(head, lines), ""]
    return text, list(missing)


def does_not_fit(label: str, plan: Plan) -> str:
    """A sentence on a row that needs more memory than a device has."""
    needed, there = (size / MIB for size in (plan.costs.bytes, plan.limit or 0))
    return (
        f"{label} needs {needed:,.1f} MiB on each device, there are {there:,.1f}: take more devices, --remat, or "
        "--accumulate with a smaller --batch_size"
    )


@contextlib.contextmanager
def told(missing: dict[str, None], before: str = "") -> Iterator[None]:
    """Note what the user has to change, instead of raising it."""
    try:
        yield
    except FileNotFoundError as error:
        missing[f"{error.filename}: no such file"] = None
    except (DataError, ArgumentError, OSError) as error:
        missing[f"{before}{error}"] = None


def shown(needs: Needs | None) -> list[str]:
    """What a row takes, as a table has it."""
    if needs is None:
        return ["–"] * 6
    plan = needs.plan
    return [
        f"{needs.examples:,}",
        f"{plan.steps:,}",
        f"{plan.costs.bytes / MIB:,.1f}",
        f"{plan.costs.working / MIB:,.1f}",
        {True: "yes", False: "no", None: "–"}[plan.fits],
        f"{needs.hours:.2g}",
    ]


def ended(run_dir: Path, name: str, label: str) -> bool:
    """Whether a row has been run."""
    return (folder_of(run_dir, name, label) / "summary.json").is_file()


def folder_of(run_dir: Path, name: str, label: str) -> Path:
    """Where a row of a table is kept."""
    return run_dir / name / "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


def run_table(name: str, full: Full, rows: dict[str, Entry], run_dir: Path, results: Path) -> list[str]:
    """Run all rows, or go on with those that were stopped, and write the table.

    Returns:
      The page, line by line; it is written as ``NAME-full.md`` and ``.json`` as well.
    """
    found: dict[str, Any] = {}
    for label, entry in rows.items():
        folder = folder_of(run_dir, name, label)
        if not ended(run_dir, name, label):
            resume = (folder / "config.json").is_file()
            run_recipe(replace(entry.options, run_dir=folder, resume=resume), entry.train)
        found[label] = json.loads((folder / "summary.json").read_text())["last"]

    def figure(label: str) -> str:
        value = found[label].get(full.measure)
        return "–" if value is None else f"{100 * (value['mean'] if isinstance(value, dict) else value):.2f}"

    lines = [[label, str(full.paper.get(label, "–")), figure(label)] for label in rows]
    page = [f"# {name}, full size", "", full.remark or "As the paper has it.", ""]
    page += [*table(["row", f"paper, {full.measure}", "here"], lines), ""]
    write_json(results / f"{name}-full.json", found)
    (results / f"{name}-full.md").write_text("\n".join(page))
    return page
