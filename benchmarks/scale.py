"""How a whole run's memory and time grow with the number of examples, for 1,000 classes of features.

  python benchmarks/scale.py --record                                 # every recipe at four sizes and ImageNet's
  python benchmarks/scale.py --only noise_layer --sizes 1300000       # one recipe at the size of ImageNet

Each run is a process of its own: one epoch, export and all files, without the second opinion, which is another program
(nlx.clean) and is asked only where all probabilities are kept. Its peak is what the system counts (the largest resident
set), the plan's memory what the recipe states with --plan=cpu:1. Growth is the peak's, or the time's, from
each size to the next, for a million more examples: alike where it is linear. A second table has the memory of each
device by the plan for more of them, at the largest size. CAN is left out: its export decodes every class for every
example, at a thousand classes eight billion multiply-adds each.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import ROOT, measured
from benchmarks.protocols.common import table
from nlx.experiment.run_folder import versions

RESULTS = Path(__file__).resolve().parent / "results" / "scale.md"
RECIPES: dict[str, tuple[str, ...]] = {
    "baseline": (),
    "elr": (),
    "sop": (),
    "noise_layer": (),
    "noise_types": ("--clean_fraction=0.1", "--pretrain_epochs=1", "--types_epochs=1"),
    "crf": ("--clean_fraction=0.1", "--transition=trusted"),
    "self_learning": ("--start_epoch=1",),
}
HEAD = ("recipe", "examples", "seconds", "peak, MiB", "plan's memory, MiB", "MiB per million", "seconds per million")
_PLANNED = re.compile(r"memory of each device, MiB: ([\d,.]+)")
_TESTS = 1_000


@dataclass(frozen=True)
class Options:
    """What to run."""

    sizes: tuple[int, ...] = (40_000, 80_000, 160_000, 320_000, 1_300_000)
    """Training examples, from few to many."""
    devices: tuple[int, ...] = (1, 8, 64, 512)
    """Devices that the largest size is planned for."""
    classes: int = 1_000
    """Classes."""
    dim: int = 16
    """Features of an example."""
    width: int = 16
    """Units of the network's one hidden layer."""
    batch_size: int = 1_024
    """Examples of a step."""
    only: str = ""
    """Of the recipes, those whose name contains this."""
    record: bool = False
    """Whether to write the page to benchmarks/results/scale.md."""


class Grown(NamedTuple):
    """What one run took.

    Attributes:
      size: its training examples.
      seconds: from start to exit.
      peak: largest resident set, MiB.
      planned: what the recipe states, MiB; None where it states nothing.
    """

    size: int
    seconds: float
    peak: float
    planned: float | None


def write_features(path: Path, size: int, options: Options) -> None:
    """Classes around random centres, every fifth label wrong."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((options.classes, options.dim), np.float32) * 2
    arrays: dict[str, np.ndarray] = {}
    for part, n in (("", size), ("test_", _TESTS)):
        label = rng.integers(0, options.classes, n, dtype=np.int32)
        label[: options.classes] = np.arange(min(n, options.classes))
        arrays |= {f"{part}features": centres[label] + rng.standard_normal((n, options.dim), np.float32)}
        arrays |= {f"{part}label": label}
    wrong = rng.random(size) < 0.2
    drawn = rng.integers(0, options.classes, size, dtype=np.int32)
    arrays["noisy_label"] = np.where(wrong, drawn, arrays["label"])
    np.savez(path, **arrays)  # type: ignore[arg-type]


def run(name: str, data: Path, size: int, options: Options, folder: Path) -> Grown:
    """Run a recipe, and ask it for its plan on one device.

    Raises:
      RuntimeError: it failed; the message has the end of what it said.
    """
    command = [*_command(name, data, options), f"--run_dir={folder / 'run'}"]
    taken = measured(command, _devices(1), f"{name} with {size:,} examples")
    return Grown(size, taken.seconds, taken.peak / 2**20, planned(name, data, options, 1))


def planned(name: str, data: Path, options: Options, devices: int) -> float | None:
    """Memory of each of so many devices, MiB, as the recipe states it; None where it states nothing."""
    command = [*_command(name, data, options), f"--plan=cpu:{devices}"]
    plan = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), **_devices(devices)}, capture_output=True, text=True
    )
    stated = _PLANNED.search(plan.stdout + plan.stderr)
    return float(stated.group(1).replace(",", "")) if stated else None


def _command(name: str, data: Path, options: Options) -> list[str]:
    given = [f"--dataset=npz:{data}", "--epochs=1", f"--widths={options.width}", f"--batch_size={options.batch_size}"]
    given += ["--no_second_opinion"]
    return [sys.executable, f"{ROOT}/recipes/{name}.py", *given, *RECIPES[name]]


def _devices(count: int) -> dict[str, str]:
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}


def rows_of(name: str, grown: list[Grown]) -> Iterator[list[str]]:
    """A row for each size, with the growth since the one before."""
    growth = ["", *(f"{(b.peak - a.peak) / (b.size - a.size) * 1e6:,.0f}" for a, b in pairwise(grown))]
    slower = ["", *(f"{(b.seconds - a.seconds) / (b.size - a.size) * 1e6:,.0f}" for a, b in pairwise(grown))]
    for one, more, later in zip(grown, growth, slower, strict=True):
        planned = "" if one.planned is None else f"{one.planned:,.0f}"
        yield [name, f"{one.size:,}", f"{one.seconds:.0f}", f"{one.peak:,.0f}", planned, more, later]


def page_of(options: Options, grown: dict[str, list[Grown]], plans: dict[str, list[float | None]]) -> list[str]:
    """The results' page, line by line."""
    about = ", ".join(f"{package} {version}" for package, version in versions().items())
    stated = [[name, *("" if mib is None else f"{mib:,.1f}" for mib in each)] for name, each in plans.items()]
    return [
        "# Growth with the number of examples",
        "",
        f"{options.classes:,} classes, {options.dim} features, a hidden layer of {options.width} units, batches of "
        f"{options.batch_size:,}; each run is a process of its own: one epoch, export and all files, without the "
        "second opinion. Growth is from one size to the next, for a million more examples. Probabilities that take "
        "more than half a GiB are kept as the ten likeliest classes; of fewer examples all are, several times over.",
        "",
        *table(list(HEAD), [row for name, sizes in grown.items() for row in rows_of(name, sizes)]),
        "",
        f"Memory of each device by the plan, MiB, at {max(options.sizes):,} examples:",
        "",
        *table(["recipe", *(f"{devices} device{'s' * (devices > 1)}" for devices in options.devices)], stated),
        "",
        f"`python benchmarks/scale.py`; {os.cpu_count()} cores, {platform.machine()}; {about}.",
    ]


def main() -> int:
    """Run every recipe at every size, and print the page."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    names = [name for name in RECIPES if options.only in name]
    if not names or not options.sizes or min(options.sizes) < options.classes or min(options.classes, options.dim) < 2:
        print(
            "error: `only` names no recipe, or there are fewer examples than classes, or of these below 2",
            file=sys.stderr,
        )
        return 2
    grown: dict[str, list[Grown]] = {name: [] for name in names}
    plans: dict[str, list[float | None]] = {}
    for name in names:
        for size in sorted(options.sizes):
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder) / "features.npz"
                write_features(data, size, options)
                grown[name].append(run(name, data, size, options, Path(folder)))
                print(f"{name}: {grown[name][-1]}", file=sys.stderr, flush=True)
                if size == max(options.sizes):
                    plans[name] = [planned(name, data, options, devices) for devices in options.devices]
    page = "\n".join(page_of(options, grown, plans))
    print(page)
    if options.record:
        RESULTS.write_text(page + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
