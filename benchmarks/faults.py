"""What a run survives: kills, full disks, damaged checkpoints, a second process, malformed inputs.

  python benchmarks/faults.py --quick
  python benchmarks/faults.py --kills=100

A killed run goes on with --resume and must end with the same numbers as one that was left alone, bit for bit, and with
the same files. A malformed input must be refused in one sentence, or be read as what was meant. Prints one table.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import malformed
from benchmarks.protocols.common import table
from nlx.cleaning.label_files import read_labels
from nlx.files import locked

ROOT = Path(__file__).resolve().parents[1]
RECIPES: dict[str, tuple[str, ...]] = {
    "agreement": ("--folds=2",),
    "baseline": (),
    "can": (),
    "clean_net": (),
    "co_teaching": (),
    "crf": ("--transition=true",),
    "distill": ("--folds=2",),
    "divide_mix": (),
    "elr": (),
    "icnm": (),
    "joint_optimization": (),
    "linear": ("--folds=2",),
    "noise_layer": (),
    "noise_types": ("--pretrain_epochs=8", "--types_epochs=8"),
    "self_learning": (),
    "sop": (),
}
TIMED = ("seconds", "examples_per_second")


@dataclass(frozen=True)
class Options:
    """How much of it."""

    quick: bool = False
    """One kill a recipe and 60 malformed inputs."""
    kills: int = 100
    """Kills, over all recipes."""
    inputs: int = 500
    """Malformed inputs."""
    seed: int = 0
    """Decides when runs are killed and what is malformed."""
    only: tuple[str, ...] = ("kills", "disk", "checkpoints", "processes", "inputs")
    """Which parts."""


class Runs:
    """Recipes as processes of their own, on small data, with what one has compiled loaded by the next."""

    def __init__(self, folder: Path):
        self.folder, rng = folder, np.random.default_rng(0)
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        label = rng.integers(0, 3, 240)
        features = (rng.normal(0, 3, (3, 6))[label] + rng.normal(size=(240, 6))).astype(np.float32)
        noisy = np.where(rng.random(240) < 0.3, rng.integers(0, 3, 240), label)
        self.arrays: dict[str, np.ndarray] = {"features": features, "noisy_label": noisy, "label": label}
        np.savez(folder / "arrays.npz", allow_pickle=False, **self.arrays)

    def start(self, name: str, run: str, *more: str, limit: int | None = None) -> subprocess.Popen[str]:
        """A recipe's process; ``limit`` is the most bytes that it may write to a file."""
        network = [] if name == "linear" else ["--widths", "16"]
        options = [*network, "--batch_size=24", "--epochs=40", "--checkpoint_seconds=0", *RECIPES[name], *more]
        command = [sys.executable, str(ROOT / "recipes" / f"{name}.py"), f"--dataset=npz:{self.folder}/arrays.npz"]
        command += [f"--run_dir={self.folder / run}", *options]
        full = None if limit is None else partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=self.environment, preexec_fn=full
        )

    def call(self, name: str, run: str, *more: str, limit: int | None = None) -> tuple[int, str]:
        """Exit code and errors of a run to its end."""
        process = self.start(name, run, *more, limit=limit)
        errors = process.communicate(timeout=300)[1]
        return process.returncode, errors


def unlike(run: Path, whole: Path) -> str:
    """What one run's folder has otherwise than another's, in a word; empty where nothing is."""
    parts = zip(("files", "last checkpoint", "metrics", "labels"), left(run), left(whole), strict=True)
    return ", ".join(name for name, one, other in parts if one != other)


def left(folder: Path) -> tuple[Any, ...]:
    """All that a run leaves and that another one must leave as well: names of files, epochs' rows, labels."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    labels = read_labels(folder / "labels.parquet")
    columns = [labels.posterior, labels.issue_rank, *(labels.extras[name] for name in sorted(labels.extras))]
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if "checkpoints" not in p.parts)
    steps = sorted(p.name for p in (folder / "checkpoints").iterdir())[-1:]
    untimed = [{k: v for k, v in row.items() if k not in TIMED} for row in rows]
    return names, steps, untimed, [np.asarray(c).tobytes() for c in columns]


def kills(runs: Runs, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Kill each recipe by turns at random moments of its life, and let it go on."""
    whole: dict[str, float] = {}
    for i in range(count):
        name = list(RECIPES)[i % len(RECIPES)]
        if name not in whole:
            runs.call(name, f"warm-{name}")  # compiles, so that times are those of a run
            shutil.rmtree(runs.folder / f"whole-{name}", ignore_errors=True)
            began = time.monotonic()
            code, errors = runs.call(name, f"whole-{name}")
            assert code == 0, errors
            whole[name] = time.monotonic() - began
        run, process = f"cut-{i}", runs.start(name, f"cut-{i}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, 1.0) * whole[name])
        process.send_signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        process.communicate()
        code, errors = runs.call(name, run, "--resume")
        same = code == 0 and not unlike(runs.folder / run, runs.folder / f"whole-{name}")
        yield f"kills: {name}", "as uninterrupted" if same else f"FAILED: {errors.strip().splitlines()[-1:]}"
        shutil.rmtree(runs.folder / run, ignore_errors=True)


def whole_run(runs: Runs) -> None:
    """The uninterrupted run that others are compared with."""
    if not (runs.folder / "whole-baseline").exists():
        code, errors = runs.call("baseline", "whole-baseline")
        assert code == 0, errors


def told(errors: str) -> bool:
    """Whether the last thing said is one sentence, and nothing is a traceback."""
    lines = errors.strip().splitlines()
    return bool(lines) and "Traceback" not in errors and lines[-1].startswith("error: ")


def disk(runs: Runs, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Files that may not grow, as on a full disk, and a folder that cannot be made."""
    whole_run(runs)
    for i in range(count):
        run = f"full-{i}"
        code, errors = runs.call("baseline", run, limit=rng.choice((100, 800, 2000, 5000, 20000)))
        if code and not told(errors):
            yield "full disk", f"FAILED: {errors.strip().splitlines()[-1:]}"
            continue
        code, errors = runs.call("baseline", run, "--resume")
        same = code == 0 and not unlike(runs.folder / run, runs.folder / "whole-baseline")
        yield "full disk", "one sentence, then as uninterrupted" if same else f"FAILED: {errors.splitlines()[-1:]}"
    code, errors = runs.call("baseline", "arrays.npz/run")
    yield "folder that cannot be made", "one sentence" if code == 1 and told(errors) else f"FAILED: {errors[-200:]}"


def checkpoints(runs: Runs, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Cut a file of the latest checkpoint short, and go on."""
    whole_run(runs)
    for i in range(count):
        run = f"damaged-{i}"
        shutil.copytree(runs.folder / "whole-baseline", runs.folder / run)
        steps = sorted((runs.folder / run / "checkpoints").iterdir(), key=lambda p: int(p.name))
        file = rng.choice(sorted(p for p in steps[-1].rglob("*") if p.is_file() and p.stat().st_size))
        file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])
        code, errors = runs.call("baseline", run, "--resume")
        whole = runs.folder / "whole-baseline"
        wrong = errors.strip().splitlines()[-1] if code else unlike(runs.folder / run, whole)
        wrong = wrong or "tracebacks printed" * ("Traceback" in errors)
        outcome = f"FAILED ({file.parent.name}/{file.name}): {wrong}" if wrong else "as uninterrupted"
        yield "damaged checkpoint", outcome


def processes(runs: Runs) -> Iterator[tuple[str, str]]:
    """A second process in a folder that is in use."""
    whole_run(runs)
    with locked(runs.folder / "whole-baseline"):
        for more in ((), ("--resume",)):
            code, errors = runs.call("baseline", "whole-baseline", *more)
            yield "second process", "one sentence" if code == 1 and told(errors) else f"FAILED: {errors[-200:]}"


def main() -> int:
    """Run all parts and print the table; 1 where anything failed."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    rng, counts = random.Random(options.seed), Counter[tuple[str, str]]()
    few = 2 if options.quick else 20
    with tempfile.TemporaryDirectory(prefix="nlx-faults-") as folder:
        runs = Runs(Path(folder))
        parts = {
            "inputs": malformed.inputs(runs.folder, runs.arrays, 60 if options.quick else options.inputs, rng),
            "kills": kills(runs, len(RECIPES) if options.quick else options.kills, rng),
            "disk": disk(runs, few, rng),
            "checkpoints": checkpoints(runs, few, rng),
            "processes": processes(runs),
        }
        for part in options.only:
            counts.update(parts[part])
    rows = [[fault, str(number), outcome] for (fault, outcome), number in sorted(counts.items())]
    print("\n".join(table(["fault", "times", "outcome"], rows)))
    return int(any("FAILED" in outcome for _, outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
