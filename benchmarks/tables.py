"""The papers' tables as protocols that run on two CPU cores.

  python benchmarks/tables.py can-6 --small
  python benchmarks/tables.py layer-fig3 layer-fig5 --small --seeds=3
  python benchmarks/tables.py all --small
  python benchmarks/tables.py all --small --quick
  python benchmarks/tables.py types-2 --full --dry_run
  python benchmarks/tables.py types-2 --full

Every protocol trains through the same code as the recipes. A run's summary is kept under benchmarks/results/runs, so
that an interrupted table goes on where it stopped (it knows changed options, not changed code: delete the folder after
changing that); the table itself is written as JSON and Markdown. Options are tuned for each method alike, on held-out
noisy labels with seeds of their own; clean labels do not enter that choice.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocols import ablation, can, crf, defaults, layer, leaderboard, pictures, self_learning, types
from benchmarks.protocols.changes import read_changes
from benchmarks.protocols.common import Protocol
from benchmarks.protocols.data import Missing
from benchmarks.protocols.full import FULL
from benchmarks.protocols.full_run import ended, run_table
from benchmarks.protocols.plan import dry_run, prepared_rows
from benchmarks.protocols.planner import Planner
from benchmarks.protocols.runner import RESULTS, Runner
from nlx.arguments import ArgumentError
from nlx.data import DataError
from nlx.experiment.console import Console
from nlx.experiment.run_folder import versions, write_json
from nlx.experiment.signals import Stopped
from nlx.target import devices_of
from nlx.training.checkpoint import CheckpointError
from nlx.training.loop import Diverged
from nlx.training.observers import Interrupted

PROTOCOLS: dict[str, Protocol] = {
    "can-5": can.can_5,
    "can-6": can.can_6,
    "can-fig6": can.fig6,
    "layer-1": layer.table_1,
    "layer-fig3": layer.fig3,
    "layer-fig5": layer.fig5,
    "losses": layer.losses,
    "types-2": types.table_2,
    "types-fig8": types.fig8,
    "crf-1": crf.table_1,
    "crf-q": crf.posterior,
    "crf-2": crf.table_2,
    "crf-flips": crf.flips,
    "self-2": self_learning.self_2,
    "self-3": self_learning.self_3,
    "self-4": self_learning.self_4,
    "self-fig4": self_learning.self_fig4,
    "defaults": defaults.defaults,
    "leaderboard": leaderboard.leaderboard,
    "ablation": ablation.ablation,
    "pictures": pictures.pictures,
}
OF_FULL = ("dry_run", "data_dir", "weights", "runs", "options")
OF_SMALL = ("quick", "workers", "shared")
SAME_RUN = {"can-fig9": "can-fig7"}
STOPPED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Options:
    """Which tables, and how many seeds."""

    protocols: tyro.conf.Positional[tuple[str, ...]]
    """can-5: lambda, and what the paper leaves open. can-6: CAN against plain training at every noise rate (Table VI).
    can-fig6: less data. layer-1: learned T against plain training and the clean part alone. layer-fig3: plain,
    learned and true transition matrix at every noise rate. layer-fig5: outliers. losses: all losses on human label
    noise. types-2, types-fig8: strategies with a few trusted labels, and the most suspicious labels. crf-1, crf-q,
    crf-2, crf-flips: parts of the CRF, its posterior, prediction and recovery by symmetric noise and by the paper's.
    self-2, self-3, self-4, self-fig4: corrected labels, members, selection, prototypes and alpha. defaults: every
    system as its recipe sets it, on sets of many kinds. leaderboard: every method on four labellings. ablation:
    distillation in folds without one of its steps. pictures: DivideMix, ELR, ours and plain training on pictures. all:
    every one of them."""
    small: bool = False
    """The form that runs on two CPU cores."""
    full: bool = False
    """The papers' data, backbones and weights (docs/full_size.md); what was stopped goes on with the same command."""
    dry_run: bool = False
    """Of the full form: check data, weights, memory (by compiling a step of each row) and disk, name what is missing,
    and print the plan."""
    plan: str = "here"
    """Devices that a dry run compiles for: here, cpu:N, or a TPU slice that need not be here, such as v5e:16x16
    (pip install 'nlx[tpu]')."""
    data_dir: Path = Path("data")
    """Folder of the full form's data."""
    weights: Path = Path("weights")
    """Folder of its weights, safetensors such as resnet50.safetensors."""
    runs: Path = Path("runs/full")
    """Where its runs are kept."""
    options: tuple[str, ...] = ()
    """Options of all of its rows to change, such as model=resnet8 epochs=1."""
    quick: bool = False
    """One seed, a third of the epochs, fewer cases, nothing tuned: to see that it runs, not what a method is worth."""
    seeds: int | None = None
    """Seeds of each method. Default: 3 of the small form, one of the full form."""
    workers: int | None = None
    """Runs at a time, each in a process with a core of its own. Default: as many as there are cores, up to four, and
    one on a machine with an accelerator."""
    shared: Path = Path(os.environ.get("NLX_SHARED", RESULTS.parents[2] / "shared"))
    """Folder whose data/ holds cifar10n_features.npz; tables that need it are left out where it does not."""


def main() -> int:
    """Run protocols and write their tables."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    known: dict[str, Any] = dict(FULL if options.full else PROTOCOLS)
    wanted = [SAME_RUN.get(name, name) if options.full else name for name in options.protocols]
    names = list(known) if "all" in wanted else list(dict.fromkeys(wanted))
    unknown = [name for name in names if name not in known]
    console = Console(", ".join(names))
    problem = (
        "say whether --small or --full" * (options.small == options.full)
        or f"no table is named; say which of {', '.join(known)}, or all" * (not names)
        or f"there is no table {', '.join(unknown)}; choose from {', '.join(known)}, or all" * bool(unknown)
        or idle(options)
        or "--plan is of --dry_run" * (options.plan != "here" and not options.dry_run)
        or f"--seeds={options.seeds} must be at least 1" * (options.seeds is not None and options.seeds < 1)
        or f"--workers={options.workers} must be at least 1" * (options.workers is not None and options.workers < 1)
    )
    if problem:
        console.say(f"error: {problem}")
        return 1
    cores = min(4, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 1
    workers = options.workers or (cores if jax.default_backend() == "cpu" else 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt, Stopped, Interrupted):
        if options.full:
            return full_size(names, options, console)
        runner_of = partial(Runner, console, options.seeds or 3, options.shared.resolve(), quick=options.quick)
        with (
            tempfile.TemporaryDirectory(prefix="nlx-compiled-") as compiled,
            runner_of(workers=workers, compiled=compiled) as runner,
        ):
            written = [name for name in names if write_table(name, options, runner)]
            return 0 if written else 1
    console.say("stopped; what is saved is kept, and the same command goes on from there")
    return STOPPED


def idle(options: Options) -> str:
    """A sentence on the first option that is of the other form; empty where there is none."""
    form, names = ("small", OF_SMALL) if options.full else ("full", OF_FULL)
    given = next((name for name in names if getattr(options, name) != getattr(Options, name)), None)
    return "" if given is None else f"--{given} is of --{form}: leave it out"


def full_size(names: list[str], options: Options, console: Console) -> int:
    """Plan or run tables at full size; 1 where anything is missing."""
    try:
        planner = Planner(devices_of(options.plan), console.say)
    except ArgumentError as error:
        console.say(f"error: --plan={error}")
        return 1
    try:
        given = options.options if options.seeds is None else (*options.options, f"seeds={options.seeds}")
        changes = read_changes(given, [entry for name in names for entry in FULL[name].rows.values()])
    except ArgumentError as error:
        console.say(f"error: {error}")
        return 1
    lacking = False
    for name in names:
        try:
            folders = {"data_dir": options.data_dir, "weights": options.weights, "run_dir": options.runs}
            rows = prepared_rows(name, FULL[name], changes, **folders)
            begun = {label: ended(options.runs, name, label, entry) for label, entry in rows.items()}
            ahead = {label: entry for label, entry in rows.items() if options.dry_run or not begun[label]}
            lines, missing = dry_run(name, FULL[name], ahead, options.runs, planner)
            if not (missing or options.dry_run):
                lines = run_table(name, FULL[name], rows, options.runs, RESULTS)
        except (DataError, ArgumentError, CheckpointError, Diverged, OSError) as error:
            lines, missing = [], [str(error)]
        print("\n".join(lines))
        for sentence in missing:
            console.say(f"error: {name} lacks: {sentence}")
        lacking = lacking or bool(missing)
    return int(lacking)


def write_table(name: str, options: Options, runner: Runner) -> bool:
    """Run a protocol and write its page; False, and what was there before stays, where it cannot be made."""
    before = runner.run_seconds
    try:
        result = PROTOCOLS[name](runner)
    except (Missing, Diverged) as error:
        runner.console.say(f"error: {name} is left out: {error}")
        return False
    size = "quick" if options.quick else "small"
    how = "--quick" if options.quick else f"--seeds={runner.seeds}"
    about = ", ".join(f"{package} {version}" for package, version in versions().items())
    claims = [f"- {c.text}: **{c.verdict}**. {c.evidence}" for c in result.claims]
    ending = f"`python benchmarks/tables.py {name} --small {how}`; {about}."
    title, _, rest = result.text.partition("\n")
    quick = ["", "Quick: one seed, a third of the epochs named below, fewer cases and no images; nothing was tuned."]
    page = "\n".join([title, *(quick if options.quick else []), rest])
    text = "\n".join([page, "Claims:", "", *claims, "", ending, ""])
    write_json(
        RESULTS / f"{name}-{size}.json",
        without_nan(
            {
                "seeds": runner.seeds,
                "run_seconds": round(runner.run_seconds - before, 1),
                "versions": versions(),
                "claims": [c._asdict() for c in result.claims],
                **result.content,
            }
        ),
    )
    (RESULTS / f"{name}-{size}.md").write_text(text)
    print(text)
    return True


def without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {name: without_nan(v) for name, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    if code == STOPPED:
        os._exit(code)  # Python would wait for what XLA still compiles
    sys.exit(code)
