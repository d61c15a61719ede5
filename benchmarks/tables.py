"""The papers' tables as protocols that run on two CPU cores.

  python benchmarks/tables.py can-6 --small
  python benchmarks/tables.py can-5 --small --seeds=3

Every protocol trains through the same code as the recipes. A run's summary is kept under benchmarks/results/runs, so
that an interrupted table goes on where it stopped (it knows changed options, not changed code: delete the folder after
changing that); the table itself is written as JSON and Markdown. Learning rates are tuned for each method alike, on
held-out noisy labels with seeds of their own; clean labels do not enter that choice.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nlx.reporting.console import Console
from nlx.training.config import RunConfig
from nlx.training.folder import versions, write_json
from nlx.training.run import Recipe, run
from recipes import baseline, can

RESULTS = Path(__file__).resolve().parent / "results"
TUNING_SEEDS = range(1000, 1010)
EVALUATE_EVERY = 5


@dataclass(frozen=True)
class Entry:
    """A method in a table: the recipe that makes it, and its options."""

    config: RunConfig
    recipe: Recipe[Any]


Methods = dict[str, Entry]

PLAIN = "plain (softmax)"
BINARY = "plain (sigmoids)"
CAN = "CAN"


@dataclass(frozen=True)
class Case:
    """A data set in a table: its name there, and the options that load it."""

    name: str
    options: dict[str, Any]
    multi_label: bool = False
    softmax: bool = False
    tuning_seeds: int = 1
    learning_rates: tuple[float, ...] = (0.01, 0.05)


def methods(case: Case) -> Methods:
    """CAN and its twin with the same output layer; where the case asks for it, the usual softmax classifier, too."""
    sigmoids = Entry(baseline.BaselineConfig(loss="binary_cross_entropy"), baseline.RECIPE)
    found = {BINARY: sigmoids, CAN: Entry(can.CANConfig(), can.RECIPE)}
    if case.softmax:
        found = {PLAIN: Entry(baseline.BaselineConfig(), baseline.RECIPE), **found}
    return {
        name: Entry(replace(e.config, evaluate_every=EVALUATE_EVERY, **case.options), e.recipe)
        for name, e in found.items()
    }


def cases(shared: Path) -> list[Case]:
    """The data sets of can-6; cifar10n only where its file lies."""
    rates = ("0.0", "0.2", "0.4", "0.6", "0.8")
    found = [
        Case(f"digits, shuffle {rate}", {"dataset": "digits", "noise": f"shuffle:{rate}"}, tuning_seeds=2)
        for rate in rates
    ]
    found.append(Case("web/sample", {"dataset": "web"}, multi_label=True, learning_rates=(0.02, 0.05)))
    features = shared / "data" / "cifar10n_features.npz"
    if features.exists():
        options = {"dataset": f"npz:{features}", "labels": "worst", "momentum": 0.0}
        found.append(Case("cifar10n worst, features", options, softmax=True))
    return found


class Runner:
    """Runs single seeds and remembers their summaries by what decided them."""

    def __init__(self, table: str, console: Console):
        self.folder = RESULTS / "runs" / table
        self.console = console

    def __call__(self, label: str, entry: Entry) -> dict[str, Any]:
        """The summary of a run: a remembered one, or a new one."""
        path = self.folder / f"{label.replace('/', '-').replace(' ', '_')}.json"
        options = {name: str(value) for name, value in vars(entry.config).items() if name != "dataset"}
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["options"] == options:
                summary: dict[str, Any] = kept["summary"]
                return summary
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            config = replace(entry.config, run_dir=Path(scratch) / "run", checkpoint_seconds=1e9)
            summary = run(config, replace(entry.recipe, products=None))
        write_json(path, {"options": options, "summary": summary})
        self.console.say(f"{label}: {_headline(summary)} ({time.monotonic() - began:.0f} s)")
        return summary


def tune(
    runner: Runner, label: str, entry: Entry, rates: tuple[float, ...], seeds: int
) -> tuple[Entry, dict[str, Any]]:
    """Choose the learning rate whose last epoch scores best on held-out noisy labels, over some seeds."""
    scores = {}
    for rate in rates:
        runs = []
        for seed in TUNING_SEEDS[:seeds]:
            config = replace(entry.config, learning_rate=rate, seed=seed, validation_fraction=0.1)
            runs.append(runner(f"tune, {label}, lr {rate}, seed {seed}", Entry(config, entry.recipe))["last"])
        # The test score stands beside it for the reader; it decides nothing.
        names = ("validation_score", "test_map", "test_accuracy")
        scores[str(rate)] = {n: float(np.mean([r[n] for r in runs])) for n in names if n in runs[0]}
    best = max(scores, key=lambda rate: scores[rate]["validation_score"])
    return Entry(replace(entry.config, learning_rate=float(best)), entry.recipe), scores


def compare(runner: Runner, case: Case, seeds: int) -> dict[str, Any]:
    """All methods on one case: tuned alike, run over the same seeds, differences paired by seed."""
    rows: dict[str, Any] = {}
    for name, entry in methods(case).items():
        label = f"{case.name}, {name}"
        entry, scores = tune(runner, label, entry, case.learning_rates, case.tuning_seeds)
        runs = []
        for seed in range(seeds):
            one = Entry(replace(entry.config, seed=seed), entry.recipe)
            runs.append(runner(f"{label}, lr {entry.config.learning_rate}, seed {seed}", one))
        rows[name] = {
            "learning_rate": entry.config.learning_rate,
            "tuning": scores,
            "last": {key: [r["last"][key] for r in runs] for key in runs[0]["last"]},
            "best": {key: [r["best"][key]["value"] for r in runs] for key in runs[0]["best"]},
            "cleaned_with": [r["cleaned_with"] for r in runs],
            "wall_seconds": [r["wall_seconds"] for r in runs],
            "given_label_recovery": runs[0]["given_label_recovery"],
        }
    measures = ["test_map"] if case.multi_label else ["test_map", "test_accuracy"]
    differences = {
        f"{CAN} - {other}": {m: paired(rows[CAN]["last"][m], rows[other]["last"][m]) for m in measures}
        for other in rows
        if other != CAN
    }
    return {"case": case.name, "methods": rows, "differences": differences}


def paired(a: list[float], b: list[float]) -> dict[str, Any]:
    """Mean difference over seeds with its 95 % interval (Student's t, paired), and the verdict it allows."""
    d = np.array(a) - np.array(b)
    half = float(stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d))) if len(d) > 1 else math.nan
    mean = float(d.mean())
    verdict = "ahead" if mean - half > 0 else "behind" if mean + half < 0 else "level"
    return {"mean": mean, "low": mean - half, "high": mean + half, "verdict": verdict}


def _headline(summary: dict[str, Any]) -> str:
    shown = ("test_map", "test_accuracy", "recovery", "validation_score")
    return ", ".join(f"{name} {100 * summary['last'][name]:.1f}" for name in shown if name in summary["last"])


def _spread(values: list[float]) -> str:
    std = np.std(values, ddof=1) if len(values) > 1 else math.nan
    return f"{100 * np.mean(values):.1f} ± {100 * std:.1f}"


def _interval(d: dict[str, Any]) -> str:
    return f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}] {d['verdict']}"


def can_6(runner: Runner, seeds: int, shared: Path) -> tuple[dict[str, Any], str]:
    """Table VI: CAN against plain training at every noise rate, and on real noise."""
    results = [compare(runner, case, seeds) for case in cases(shared)]
    lines = [
        "# can-6, small: CAN against plain training",
        "",
        f"Percent, mean ± standard deviation over {seeds} seeds, after the last epoch; differences are paired by seed, "
        "with 95 % intervals. Backbone, epochs, batch and schedule are the same for all; the learning rate of each is "
        "tuned over two values on held-out noisy labels, everything else is the recipes' default.",
        "",
        "| data | method | lr | mAP | accuracy | best mAP (hindsight) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for name, row in result["methods"].items():
            last = row["last"]
            accuracy = _spread(last["test_accuracy"]) if "test_accuracy" in last else ""
            scores = (_spread(last["test_map"]), accuracy, _spread(row["best"]["test_map"]))
            lines.append(f"| {result['case']} | {name} | {row['learning_rate']} | {' | '.join(scores)} |")
    lines += ["", "| data | difference | mAP | accuracy |", "| --- | --- | --- | --- |"]
    for result in results:
        for name, d in result["differences"].items():
            accuracy = _interval(d["test_accuracy"]) if "test_accuracy" in d else ""
            lines.append(f"| {result['case']} | {name} | {_interval(d['test_map'])} | {accuracy} |")
    lines += [
        "",
        "Share of training labels that are right: as given, after cleaning with the chosen posterior, and for each of "
        "CAN's three beliefs (single-label: classes; web/sample: label entries).",
        "",
        "| data | given | plain, its prediction | CAN, chosen | additive q | Bayes | classifier p | chosen |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        row, twin = result["methods"][CAN], result["methods"][BINARY]
        names = ("recovery", "recovery_additive", "recovery_bayes", "recovery_classifier")
        chosen = ", ".join(sorted(set(row["cleaned_with"])))
        cells = [_spread(twin["last"]["recovery"]), *(_spread(row["last"][name]) for name in names), chosen]
        lines.append(f"| {result['case']} | {100 * row['given_label_recovery']:.1f} | {' | '.join(cells)} |")
    vector = next(r for r in results if "posterior_map_bayes" in r["methods"][CAN]["last"])
    last = vector["methods"][CAN]["last"]
    beliefs = ", ".join(f"{n} {_spread(last[f'posterior_map_{n}'])}" for n in ("additive", "bayes", "classifier"))
    twin_map = _spread(vector["methods"][BINARY]["last"]["posterior_map_classifier"])
    lines += ["", f"mAP of the beliefs about the true training tags of {vector['case']}: {beliefs}; plain {twin_map}."]
    lines += ["", "What this means, and where CAN does not win: [docs/can.md](../../docs/can.md)."]
    return {"results": results}, "\n".join(lines) + "\n"


def can_5(runner: Runner, seeds: int, shared: Path) -> tuple[dict[str, Any], str]:
    """Table V, the regularizer, and what the paper leaves open: start, schedule, sizes of the noise network."""
    del shared
    base: dict[str, Any] = {"dataset": "digits", "noise": "shuffle:0.4", "evaluate_every": 90}
    lambdas = (0.0, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
    variants: dict[str, dict[str, Any]] = {f"lambda {v}": {"regularizer": v} for v in lambdas}
    variants |= {
        "paper's rho floor 0.5": {"rho_floor": 0.5},
        "random start": {"start": "random"},
        "prediction weight 1": {"prediction_weight": 1.0},
        "prediction weight 2": {"prediction_weight": 2.0},
        "prediction weight 3": {"prediction_weight": 3.0},
        "prediction weight 6": {"prediction_weight": 6.0},
        "noise network at the full learning rate": {"method_rate": 1.0},
        "noise network at a tenth": {"method_rate": 0.1},
        "noise network at a hundredth": {"method_rate": 0.01},
        "D 2": {"quality_dim": 2},
        "D 32": {"quality_dim": 32},
        "widths 32": {"encoder_width": 32, "decoder_width": 32},
        "widths 256": {"encoder_width": 256, "decoder_width": 256},
        "4 samples": {"samples": 4},
    }
    rows = {}
    entries = {BINARY: Entry(baseline.BaselineConfig(loss="binary_cross_entropy", **base), baseline.RECIPE)}
    entries |= {name: Entry(can.CANConfig(**{**base, **options}), can.RECIPE) for name, options in variants.items()}
    for name, entry in entries.items():
        runs = [runner(f"{name}, seed {s}", Entry(replace(entry.config, seed=s), entry.recipe)) for s in range(seeds)]
        rows[name] = {key: [r["last"][key] for r in runs] for key in runs[0]["last"]}
    lines = [
        "# can-5, small: what CAN's options do",
        "",
        f"Digits with shuffle noise 0.4; percent after the last epoch, mean ± standard deviation over {seeds} seeds. "
        "Each row changes one option; the default is lambda 0.3. The paper's Table V: best at 0.2 to 0.5, clearly "
        "worse at 10.",
        "",
        "| option | test mAP | test accuracy | recovery: q | Bayes | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = ("test_map", "test_accuracy", "recovery_additive", "recovery_bayes", "recovery_classifier")
    for name, row in rows.items():
        cells = [_spread(row[key]) if key in row else "" for key in names]
        if name == BINARY:
            cells[-1] = _spread(row["recovery"])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return {"results": rows}, "\n".join(lines) + "\n"


PROTOCOLS: dict[str, Callable[[Runner, int, Path], tuple[dict[str, Any], str]]] = {"can-5": can_5, "can-6": can_6}


@dataclass(frozen=True)
class Options:
    """Which table, and how many seeds."""

    protocol: tyro.conf.Positional[Literal["can-5", "can-6"]]
    """can-6: CAN against plain training at every noise rate (Table VI). can-5: lambda, and what the paper leaves
    open."""
    small: bool = False
    """The form that runs on two CPU cores; the papers' full data sets need accelerators and are not here yet."""
    seeds: int = 5
    """Seeds of each method."""
    shared: Path = Path(os.environ.get("NLX_SHARED", RESULTS.parents[2] / "shared"))
    """Folder whose data/ holds cifar10n_features.npz; that case is left out where it does not."""


def main() -> int:
    """Run a protocol and write its table."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    console = Console(options.protocol, 0)
    if not options.small:
        console.say("error: only the small forms exist; add --small")
        return 1
    # Seeds of a method share their programs; compiling them anew for each run would take longer than training.
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="nlx-compiled-"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    content, text = PROTOCOLS[options.protocol](Runner(options.protocol, console), options.seeds, options.shared)
    about = f"\n`python benchmarks/tables.py {options.protocol} --small --seeds={options.seeds}`; " + ", ".join(
        f"{name} {value}" for name, value in versions().items()
    )
    write_json(
        RESULTS / f"{options.protocol}-small.json",
        {"seeds": options.seeds, "versions": versions(), **content},
    )
    (RESULTS / f"{options.protocol}-small.md").write_text(text + about + ".\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
