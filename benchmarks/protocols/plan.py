"""What a table at full size needs, found out without training: data, weights, memory and disk; and running it."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocols.common import table
from benchmarks.protocols.full import Full
from benchmarks.protocols.runner import Entry
from nlx.arguments import ArgumentError
from nlx.data import DataError, Dataset, ImageFiles, Split, load
from nlx.data.checks import memory
from nlx.data.sources.official import OFFICIAL
from nlx.experiment.defaults import crop_size
from nlx.experiment.main import run_recipe
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run import Run
from nlx.experiment.run_folder import write_json
from nlx.models import build
from nlx.models.pretrained import load_weights
from nlx.training.trainer import Trainer

GIB = 2**30
# Of the sets that no table of official layouts has: training and test pictures, classes, noisy words.
_ELSEWHERE = {"web": (97_836, 4_952, 20), "coco_captions": (82_783, 20_252, 73), "cifar10": (50_000, 10_000, 10)}
_AMT, _FEATURES = (7_354, 1_000, 4), 5_376
_WORDS = 1_000
_FLOPS = 4e14  # of a chip in bfloat16 at 40 % of an H100's peak; float32 convolutions run there in TF32, at half of it
_SHARE = 0.2  # trusted in data that are only counted
_KEPT = 3  # checkpoints on disk at a time, one of them being written


class Cost(NamedTuple):
    """What a row costs.

    Attributes:
      examples, steps: to train on, and of the whole run.
      batch: examples per step.
      state: bytes of parameters, optimizer and memory on each device.
      activations: bytes that are kept for the gradient of one step, on each device.
      disk: bytes of checkpoints and cleaned labels.
      hours: on paper, on so many devices.
    """

    examples: int
    steps: int
    batch: int
    state: int
    activations: int
    disk: int
    hours: float


class _Ready(Exception):
    """A recipe has all that it needs to train."""

    def __init__(self, trainer: Trainer, data: Dataset):
        self.trainer, self.data = trainer, data


class _Trial(Run):
    """A run that writes nothing and ends where the training would begin."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def observers(self, *_: Any, **__: Any) -> list[Any]:
        """Nobody looks on."""
        return []

    def restored(self, trainer: Trainer, data: Dataset, stages: Any) -> Any:
        """End here."""
        raise _Ready(trainer, data)


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
    """A data set of the size of the authors', without any of its pictures."""
    o = entry.options
    if o.dataset in OFFICIAL:
        about = OFFICIAL[o.dataset]
        sizes = about.train[0 if o.labels is None else about.labels.index(o.labels)], about.test, about.classes
    else:
        sizes = _AMT if o.dataset.startswith("npz:") else _ELSEWHERE[o.dataset]
    n, _, k = sizes
    several = o.dataset in ("web", "coco_captions", "voc2007", "voc2012")
    small = o.dataset.startswith(("cifar", "svhn"))
    if o.dataset.startswith("npz:"):
        inputs: Any = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (n, _FEATURES), (0, 0))
    else:
        inputs = ImageFiles(("",) * n, 32 if small else o.image_size)
    words = o.dataset == "coco_captions"
    label = np.resize(np.eye(k, dtype=np.uint8) if several else np.arange(k, dtype=np.int32), (n, k) if several else n)
    noisy = np.zeros((n, _WORDS), np.uint8) if words else label
    trusted = np.arange(n) < _SHARE * n if words or o.labels in ("verified", "clean") else None
    outlier = np.arange(n) % 2 == 0 if (o.noise or "").startswith("outlier") else None
    train = Split(inputs, noisy, label, trusted, outlier)
    names = tuple(map(str, range(_WORDS))) if words else None
    return Dataset(o.dataset, tuple(map(str, range(k))), train, None, names)


# Options that make no difference to what a step costs.
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
_COSTS: dict[str, Cost] = {}


def cost(entry: Entry, data: Dataset) -> Cost:
    """What a row costs on the devices there are; the recipe itself says what it would train.

    Raises:
      DataError, ArgumentError: data and options do not fit.
    """
    entry.options.check()
    about = {name: value for name, value in vars(entry.options).items() if name not in _FREE}
    key = f"{entry.train.__module__} {about} {len(data.train)} {data.input_shape} {data.num_classes}"
    if key not in _COSTS:
        _COSTS[key] = _traced(entry, data)
    return _COSTS[key]


def _traced(entry: Entry, data: Dataset) -> Cost:
    run = _Trial(replace(entry.options, run_dir=None), data=data, pictures=False)
    try:
        entry.train(entry.options, run)
        raise AssertionError("a recipe asks its run for the state to begin with")
    except _Ready as ready:
        trainer, train = ready.trainer, ready.data.train
    epochs, batch = run._training.epochs, trainer.batch_size
    mesh = trainer.mesh.size
    state = trainer.abstract_state(train)
    held = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))
    params = state.params["model"]
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, state.stats))
    inputs = jax.ShapeDtypeStruct((batch // mesh, *train.inputs.shape[1:]), train.inputs.dtype)

    def loss(params: Any, stats: Any, inputs: Any) -> jax.Array:
        outputs, _ = trainer.model.apply(params, stats, inputs, True, jax.random.key(0))
        return jnp.sum(outputs["logits"])

    kept = jax.eval_shape(lambda p, s, x: jax.vjp(lambda p: loss(p, s, x), p)[1], *plain, inputs)
    activations = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(kept))
    analysis: Any = jax.jit(loss).lower(*plain, inputs).cost_analysis()
    flops = analysis["flops"]
    steps = epochs * (len(train) // batch)
    peak = _FLOPS if entry.options.dtype == "bfloat16" else _FLOPS / 2
    disk = _KEPT * held + 3 * 4 * len(train) * data.num_classes
    return Cost(len(train), steps, batch, held + _size(params), activations, disk, 3 * flops * steps / peak / 3600)


def _size(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def read(options: RecipeOptions) -> Dataset:
    """The data that a row needs, pictures staying on disk; noise is left aside, which would look at all of them.

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
        in_memory_gib=0.0,
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


def dry_run(name: str, full: Full, rows: dict[str, Entry], run_dir: Path) -> tuple[list[str], list[str]]:
    """What a table would do, and what it lacks.

    Args:
      name: of the table.
      full: its figures.
      rows: what would run.
      run_dir: where runs would be kept.

    Returns:
      Lines of Markdown; and sentences on what is missing, none where the table can begin.
    """
    missing: dict[str, None] = {}
    found: dict[str, Dataset | None] = {}
    lines, total = [], 0
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") or memory()
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
        spent = cost(entry, data)
        total += spent.disk
        if spent.state + spent.activations > limit:
            missing[
                f"{label} needs {(spent.state + spent.activations) / GIB:.1f} GiB on each device, there are "
                f"{limit / GIB:.1f}: take more devices, --remat, or --accumulate with a smaller --batch_size"
            ] = None
        lines.append([label, *shown(spent), str(full.paper.get(label, "–")), f"`{command(o, entry.train.__module__)}`"])
    free = shutil.disk_usage(next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())).free
    if total > free:
        missing[f"runs need {total / GIB:.1f} GiB on disk, and {run_dir} has {free / GIB:.1f}: make room"] = None
    head = ["row", "examples", "steps", "GiB a device", "of it for gradients", "hours on paper", "paper", "command"]
    chips = f"on {jax.device_count()} devices ({jax.devices()[0].device_kind})"
    text = [f"# {name}, full size, {chips}", "", full.remark or "As the paper has it.", "", *table(head, lines), ""]
    return text, list(missing)


@contextlib.contextmanager
def told(missing: dict[str, None]) -> Iterator[None]:
    """Note what the user has to change, instead of raising it."""
    try:
        yield
    except FileNotFoundError as error:
        missing[f"{error.filename}: no such file"] = None
    except (DataError, ArgumentError, OSError) as error:
        missing[str(error)] = None


def shown(cost: Cost) -> list[str]:
    """Costs as a table has them."""
    whole = (cost.state + cost.activations) / GIB
    return [
        f"{cost.examples:,}",
        f"{cost.steps:,}",
        f"{whole:.2g}",
        f"{cost.activations / GIB:.2g}",
        f"{cost.hours:.2g}",
    ]


def run_table(name: str, full: Full, rows: dict[str, Entry], run_dir: Path, results: Path) -> list[str]:
    """Run all rows, or go on with those that were stopped, and write the table.

    Returns:
      The page, line by line; it is written as ``NAME-full.md`` and ``.json`` as well.
    """
    found: dict[str, Any] = {}
    for label, entry in rows.items():
        folder = run_dir / name / "".join(c if c.isalnum() or c in ".-" else "_" for c in label)
        summary = folder / "summary.json"
        if not summary.is_file():
            resume = (folder / "config.json").is_file()
            run_recipe(replace(entry.options, run_dir=folder, resume=resume), entry.train)
        found[label] = json.loads(summary.read_text())["last"]

    def figure(label: str) -> str:
        value = found[label].get(full.measure)
        return "–" if value is None else f"{100 * (value['mean'] if isinstance(value, dict) else value):.2f}"

    lines = [[label, str(full.paper.get(label, "–")), figure(label)] for label in rows]
    page = [f"# {name}, full size", "", full.remark or "As the paper has it.", ""]
    page += [*table(["row", f"paper, {full.measure}", "here"], lines), ""]
    write_json(results / f"{name}-full.json", found)
    (results / f"{name}-full.md").write_text("\n".join(page))
    return page
