"""What the fixes of the systems are worth: the same commands by an older commit and by the code at hand.

python benchmarks/fixes.py                                              # five seeds
python benchmarks/fixes.py --features=cifar10n_features.npz --seeds=3   # CAN on CIFAR-10N as well
python benchmarks/fixes.py --only T --seeds=1

The older commit is checked out for as long as it takes; both sides are trained by this Python. Runs that ended are kept
under benchmarks/results/runs/fixes, so that the same command goes on where it stopped (it knows changed options, not
changed code). Today's side leaves the second opinion out, so that labels are the method's own. Schedules that belong to
stages are older than that commit: noise types' fine-tuning on digits, sparse 0.5, is the same on both sides.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocols.common import spread, table
from benchmarks.protocols.defaults import points
from benchmarks.protocols.runner import RESULTS
from nlx.files import replacing

ROOT = Path(__file__).resolve().parents[1]
RUNS = RESULTS / "runs" / "fixes"
TODAY = ("--no_second_opinion",)


@dataclass(frozen=True)
class Options:
    """What to compare."""

    before: str = "a6c69b4"
    """The commit on the other side: by default the one before the first of these fixes."""
    features: Path | None = None
    """CIFAR-10N as features, .npz with label and noisy_worst."""
    only: str = ""
    """Of the fixes, those whose name contains this."""
    seeds: int = 5
    """Seeds of each."""
    workers: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    """Runs at a time, each on a core of its own."""


class Fix(NamedTuple):
    """A fault, and a command that shows it.

    Attributes:
      name: what was wrong.
      recipe: whose.
      options: of the recipe, on both sides; SET is a file of points.
      seeded: whether the noise is drawn anew for every seed.
    """

    name: str
    recipe: str
    options: tuple[str, ...]
    seeded: bool = False


FIXES = (
    Fix("self-learning loses unequal classes: 950/30/20 points, 8 % wrong", "self_learning", ("--dataset=npz:RARE",)),
    Fix(
        "T learned by the backbone's Adam",
        "noise_layer",
        ("--dataset=digits", "--noise=sparse:0.4", "--optimizer=adam", "--learning_rate=0.001"),
        seeded=True,
    ),
    Fix(
        "the class of outliers swallows another",
        "noise_layer",
        ("--dataset=digits", "--noise=outlier:0.4", "--layer=outliers", "--known_outliers=0.1"),
        seeded=True,
    ),
    Fix("CAN cleans by a belief that copies", "can", ("--dataset=digits", "--noise=shuffle:0.4"), seeded=True),
    Fix("CAN refuses more than 32 classes: 100, 30 % wrong", "can", ("--dataset=npz:HUNDRED",)),
    Fix(
        "the CRF's few trusted examples weigh too little: 2 %",
        "crf",
        ("--dataset=digits", "--noise=symmetric:0.4", "--clean_fraction=0.02", "--transition=true", "--batch_size=32"),
        seeded=True,
    ),
    Fix("CAN's defaults on worst", "can", ("--dataset=npz:FEATURES", "--labels=worst", "--evaluate_every=30")),
    Fix("T of 1,000 classes, sparse 0.5", "noise_layer", ("--dataset=npz:MANY", "--epochs=15")),
)


def main(options: Options) -> int:
    """Run both sides, and write the page."""
    fixes = [f for f in FIXES if options.only in f.name and (options.features or "npz:FEATURES" not in f.options)]
    if not fixes:
        print(f"error: no fix is called {options.only}", file=sys.stderr)
        return 1
    RUNS.mkdir(parents=True, exist_ok=True)
    files = {
        "RARE": stored("rare", points((950, 30, 20), 4.0, 8, 0.08)),
        "HUNDRED": stored("hundred", points((50,) * 100, 1.0, 32, 0.3)),
        "MANY": stored("many", sparse(1_000, 20)),
        "FEATURES": options.features and options.features.resolve(),
    }
    with older(options.before) as before, tempfile.TemporaryDirectory() as folder:
        if before is None:
            return 1
        sides = {"before": (before, options.before, ()), "today": (ROOT, "today", TODAY)}
        jobs = [(fix, seed, side) for fix in fixes for seed in range(options.seeds) for side in sides]
        free = list(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]) * len(jobs)

        def one(job: tuple[Fix, int, str]) -> dict[str, float]:
            fix, seed, side = job
            root, name, more = sides[side]
            core = free.pop(0)
            found = run(fix, seed, root, name, (*in_files(fix, files), *more), Path(folder), core)
            free.insert(0, core)
            print(f"{fix.name}, {side}, seed {seed}: {found or 'it fails'}", flush=True)
            return found

        with ThreadPoolExecutor(options.workers) as pool:
            found = dict(zip(jobs, pool.map(one, jobs), strict=True))
    rows = [
        [fix.name, *(cell(found, fix, side, m, options.seeds) for m in ("test_accuracy", "recovery") for side in sides)]
        for fix in fixes
    ]
    seeds = f"--seeds={options.seeds}"
    page = [
        "# fixes: the same commands by an older commit and today",
        "",
        f"Percent, mean ± standard deviation over {options.seeds} seeds, last epoch; before is {options.before}.",
        "",
        *table(["what was wrong", "test, before", "test", "labels right, before", "labels right"], rows),
        "",
        *(f"- {fix.name}: `python recipes/{fix.recipe}.py {' '.join(fix.options)}`" for fix in fixes),
        "",
        f"`python benchmarks/fixes.py {seeds}`"
        + " with `--features=cifar10n_features.npz`" * (options.features is not None)
        + ". RARE, HUNDRED and MANY are files of Gaussian classes that it makes.",
        "",
    ]
    print("\n".join(page))
    if not options.only:
        (RESULTS / "fixes.md").write_text("\n".join(page))
    return 0


@contextlib.contextmanager
def older(commit: str) -> Iterator[Path | None]:
    """The older code in a folder of its own; None, and a word of it, where git does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "older"
        add = ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(where), commit]
        done = subprocess.run(add, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"error: --before={commit}: {done.stderr.strip()}; clone the whole history", file=sys.stderr)
            yield None
            return
        try:
            yield where
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(where)], check=False)


def stored(name: str, arrays: dict[str, np.ndarray]) -> Path:
    """A file of points."""
    path = RUNS / f"{name}.npz"
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def sparse(num_classes: int, each: int) -> dict[str, np.ndarray]:
    """Classes of which half of the labels are those of ten other classes each."""
    made = points((each,) * num_classes, 1.0, 64, 0.0)
    rng, size = np.random.default_rng(0), len(made["label"])
    ten = np.stack([rng.choice(num_classes - 1, 10, replace=False) for _ in range(num_classes)])
    others = (made["label"] + 1 + ten[made["label"], rng.integers(0, 10, size)]) % num_classes
    wrong = rng.random(size) < 0.5
    return made | {"noisy_label": np.where(wrong, others, made["label"]).astype(np.int32)}


def in_files(fix: Fix, files: dict[str, Path | None]) -> tuple[str, ...]:
    """A fix's options with the paths of files in place of their names."""
    paths = {f"npz:{name}": f"npz:{path}" for name, path in files.items()}
    return tuple("=".join(paths.get(part, part) for part in option.split("=")) for option in fix.options)


def run(
    fix: Fix, seed: int, root: Path, side: str, options: tuple[str, ...], folder: Path, core: int
) -> dict[str, float]:
    """Test accuracy and right labels of one seed; nothing where the recipe fails."""
    words = (*fix.options, *TODAY) if side == "today" else fix.options
    about = "-".join([side, fix.recipe, *words, f"seed{seed}"]).replace("/", "-").replace("--", "")
    kept = RUNS / f"{about}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    to = folder / about
    noise = (f"--noise_seed={seed}",) if fix.seeded else ()
    command = [sys.executable, f"recipes/{fix.recipe}.py", *options, f"--seed={seed}", *noise, f"--run_dir={to}"]
    done = subprocess.run(
        [*(["taskset", "-c", str(core)] if sys.platform == "linux" else []), *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": str(folder / f"compiled-{side}")},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, float] = {}
    if not done.returncode:
        last = json.loads((to / "summary.json").read_text())["last"]
        found = {name: last[name] for name in ("test_accuracy", "recovery") if last.get(name) is not None}
    kept.write_text(json.dumps(found))
    return found


def cell(found: dict[tuple[Fix, int, str], dict[str, float]], fix: Fix, side: str, measure: str, seeds: int) -> str:
    """Mean and spread over seeds."""
    each = [found[fix, seed, side] for seed in range(seeds)]
    if not any(each):
        return "it fails"
    values = [one.get(measure, math.nan) for one in each]
    return spread(values) if np.isfinite(values).any() else ""


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__, use_underscores=True)))
