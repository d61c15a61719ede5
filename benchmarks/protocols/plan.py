"""What a table at full size needs, found out without training: data, weights, memory and disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax

from benchmarks.protocols.changes import changed
from benchmarks.protocols.common import table
from benchmarks.protocols.full_rows import Full
from benchmarks.protocols.full_run import labels_of
from benchmarks.protocols.planner import GIB, Needs, Planner, counted
from benchmarks.protocols.runner import Entry
from nlx.arguments import ArgumentError
from nlx.data import DataError, Dataset, load
from nlx.data.loading import FOREIGN
from nlx.experiment.defaults import crop_size
from nlx.experiment.options import RecipeOptions
from nlx.experiment.plan import MIB, Plan
from nlx.models import build
from nlx.models.pretrained import load_weights


def prepared_rows(
    name: str, full: Full, changes: dict[str, str], *, data_dir: Path, weights: Path, run_dir: Path
) -> dict[str, Entry]:
    """The rows of a table with the folders of data, weights and other rows' runs, and with changed options.

    Raises:
      ArgumentError: a change that an option cannot take.
    """

    def settled(entry: Entry) -> Entry:
        o = entry.options
        arrays = o.dataset.removeprefix("npz:")
        named = {"dataset": f"npz:{data_dir / arrays}"} if o.dataset != arrays else {}
        own = changed(entry, changes)
        init = own.pop("init", o.init)
        if init is not None and Path(init).name == str(init) and not str(init).startswith("timm:"):
            init = weights / init
        return entry.but(**{**named, "data_dir": data_dir, "init": init, **own})

    rows = {label: settled(entry) for label, entry in full.rows.items()}
    for label, entry in rows.items():
        other = str(getattr(entry.options, "transition", None)).removeprefix("anchors:")
        if other in rows:
            rows[label] = entry.but(transition=f"anchors:{labels_of(run_dir, name, other, rows[other])}")
    return rows


def as_planned(entry: Entry, run_dir: Path) -> Entry:
    """A row itself, or without its matrix, which is small, where that comes of another row that has not been run."""
    kind, _, path = str(getattr(entry.options, "transition", None)).partition(":")
    waits = kind == "anchors" and run_dir in Path(path).parents and not Path(path).is_file()
    return entry.but(loss="cross_entropy", transition=None) if waits else entry


def command(options: RecipeOptions, recipe: str) -> str:
    """The command line of a recipe that has such options."""
    defaults = {field.name: field.default for field in fields(options)}
    given = {name: value for name, value in vars(options).items() if value != defaults[name]}

    def said(name: str, value: Any) -> str:
        return f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name}={value}"

    parts = [f"python recipes/{recipe.rpartition('.')[2]}.py", *(said(*pair) for pair in given.items())]
    return " ".join(parts)


def read(options: RecipeOptions) -> Dataset:
    """The data that a row needs, as its run would have them; noise is left aside, which would look at all pictures.

    Raises:
      DataError, OSError: they are not there, or not as they should be; or foreign pictures are not.
    """
    arrays = Path(options.dataset.removeprefix("npz:"))
    if arrays.name == "amt.npz" and not arrays.is_file():
        raise DataError(
            f"{arrays}: no such file: save the features of AMT and SD4 there with np.savez, features [n, 5376], "
            "noisy_label, test_features and test_label."
        )
    if options.dataset == "web" and not (options.data_dir / "web" / "labels.csv").is_file():
        raise DataError(
            f"{options.data_dir / 'web' / 'labels.csv'}: no such file: lay WEB out as docs/full_size.md says."
        )
    outliers = (options.noise or "").startswith("outlier")
    if outliers and options.dataset in FOREIGN:  # without which the data's own pictures would be cut up
        load(FOREIGN[options.dataset], data_dir=options.data_dir)
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
            if found[wanted] is None and o.test is not None:
                with told(missing):
                    read(replace(o, dataset=o.test, test=None, labels=None, noise=None))
        data = found[wanted] or counted(entry)
        needs = None
        if data is not None:
            with told(missing):
                check_weights(o, data)
            with told(missing, f"{label}: "):
                needs = planner(as_planned(entry, run_dir), data)
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
