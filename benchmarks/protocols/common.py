"""What all protocols share: runs that are remembered, tuning on noisy labels, differences paired by seed, verdicts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from nlx.reporting.console import Console
from nlx.training.config import RunConfig
from nlx.training.folder import write_json
from nlx.training.loop import Diverged
from nlx.training.recipe import Recipe
from nlx.training.run import run
from nlx.training.together import run_together

RESULTS = Path(__file__).resolve().parents[1] / "results"
TUNING_SEEDS = range(1000, 1010)
EVALUATE_EVERY = 5
SMALLER_RATES = (0.02, 0.005, 0.001)  # to tune losses without a floor, which diverge at 0.05

Numbers = dict[str, list[float]]


@dataclass(frozen=True)
class Entry:
    """A method in a table: the recipe that makes it, and its options."""

    config: RunConfig
    recipe: Recipe[Any]

    def but(self, **options: Any) -> Entry:
        """The same with other options."""
        return Entry(replace(self.config, **options), self.recipe)


class Claim(NamedTuple):
    """A claim of a paper, and what the runs say of it.

    Attributes:
      text: the claim, with the paper's figures.
      verdict: ``holds``, ``does not hold``, ``not shown`` or ``not tested``, by a rule that stands in the protocol.
      evidence: ours.
    """

    text: str
    verdict: str
    evidence: str


class Result(NamedTuple):
    """What a protocol gives.

    Attributes:
      content: for the JSON.
      text: the Markdown page.
      claims: verdicts.
    """

    content: dict[str, Any]
    text: str
    claims: list[Claim]


class Runner:
    """Runs single seeds and remembers their summaries by what decided them.

    Attributes:
      seeds: of each method.
      quick: one seed, a third of the epochs, fewer cases, no tuning.
      together: all seeds of a method in one program.
      run_seconds: what the runs that were asked for took, whether now or when they were remembered.
      shared: folder whose data/ holds the real data of the small protocols.
    """

    def __init__(self, console: Console, seeds: int, shared: Path, *, quick: bool = False, together: bool = False):
        self.console, self.seeds, self.shared = console, 1 if quick else seeds, shared
        self.quick, self.together, self.run_seconds = quick, together, 0.0

    def __call__(self, label: str, entry: Entry, keep: Path | None = None) -> dict[str, Any]:
        """The summary of a run: a remembered one, or a new one.

        Args:
          label: what the console calls it.
          entry: what to run.
          keep: where the run's labels.parquet is to be kept, for methods that read it.
        """
        entry = self._shortened(entry)
        about, path = self._remembered(entry)
        if path.exists() and (keep is None or keep.exists()):
            summary: dict[str, Any] = json.loads(path.read_text())["summary"]
            self.run_seconds += summary["wall_seconds"]
            return summary
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            folder = Path(scratch) / "run"
            config = replace(entry.config, run_dir=folder, checkpoint_seconds=1e9)
            summary = run(config, replace(entry.recipe, products=None))
            if keep is not None:
                keep.parent.mkdir(parents=True, exist_ok=True)
                keep.write_bytes((folder / "labels.parquet").read_bytes())
        self.run_seconds += summary["wall_seconds"]
        write_json(path, {"label": label, **about, "summary": summary})
        self.console.say(f"{label}: {headline(summary)} ({time.monotonic() - began:.0f} s)")
        return summary

    def side_by_side(self, label: str, entry: Entry) -> list[dict[str, Any]]:
        """The summaries of all seeds, trained in one program where they are not remembered as such."""
        entry = self._shortened(entry)
        abouts = [self._remembered(entry.but(seed=seed), together=self.seeds) for seed in range(self.seeds)]
        if not all(path.exists() for _, path in abouts):
            summaries = run_together(entry.config, entry.recipe, range(self.seeds))
            for (about, path), summary in zip(abouts, summaries, strict=True):
                write_json(path, {"label": label, **about, "summary": summary})
                self.console.say(f"{label}, together: {headline(summary)} ({summary['wall_seconds']:.0f} s)")
        found = [json.loads(path.read_text())["summary"] for _, path in abouts]
        self.run_seconds += sum(summary["wall_seconds"] for summary in found)
        return found

    def either(self, whole: Sequence[Any], quick: Sequence[Any]) -> Sequence[Any]:
        """What a table goes through, or less of it where it has to be quick."""
        return quick if self.quick else whole

    def _shortened(self, entry: Entry) -> Entry:
        if self.quick and entry.config.epochs is not None:
            return entry.but(epochs=max(2, entry.config.epochs // 3))
        return entry

    def _remembered(self, entry: Entry, **more: Any) -> tuple[dict[str, Any], Path]:
        """What decides a run, and where its summary is kept."""
        options = {name: str(value) for name, value in sorted(vars(entry.config).items())}
        for folder, name in ((self.shared, "shared"), (RESULTS, "results")):
            options = {option: value.replace(str(folder), name) for option, value in options.items()}
        about = {"recipe": entry.recipe.method.__module__, **options, **more}
        return about, RESULTS / "runs" / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]}.json"


def features(runner: Runner) -> Path | None:
    """The file of CIFAR-10N as features, where it lies."""
    path = runner.shared / "data" / "cifar10n_features.npz"
    return path if path.exists() else None


def tune(
    runner: Runner, label: str, entry: Entry, grid: dict[str, Sequence[Any]], seeds: int = 1
) -> tuple[Entry, dict[str, Any]]:
    """Choose options by the last epoch's score on held-out noisy labels; clean labels do not enter the choice.

    Options are tuned one after the other, each with the best of those before.

    Args:
      runner: runs them.
      label: what the console calls it.
      entry: to start from.
      grid: values by option.
      seeds: runs of each value, with seeds of their own.

    Returns:
      The entry with the chosen options, and the scores of all that were tried.
    """
    if runner.quick:
        return entry.but(**{name: values[0] for name, values in grid.items()}), {}
    scores: dict[str, Any] = {}
    for name, values in grid.items():
        found: dict[Any, dict[str, float]] = {}
        for value in values if len(values) > 1 else ():
            tried = entry.but(**{name: value, "validation_fraction": 0.1, "evaluate_every": 10_000})
            lasts = [
                _last_or_none(runner, f"tune, {label}, {name} {value}, seed {seed}", tried.but(seed=seed))
                for seed in TUNING_SEEDS[:seeds]
            ]
            finished = [last for last in lasts if last is not None]
            # The test score stands beside it for the reader; it decides nothing.
            shown = [n for n in ("validation_score", "test_map", "test_accuracy") if finished and n in finished[0]]
            found[value] = {n: float(np.mean([last[n] for last in finished])) for n in shown}
            if len(finished) < len(lasts):
                found[value]["validation_score"] = -1.0  # a value that diverges once is not to be chosen
        best = max(found, key=lambda value: found[value]["validation_score"]) if found else values[0]
        entry = entry.but(**{name: best})
        scores[name] = {"chosen": best, "tried": {str(value): row for value, row in found.items()}}
    return entry, scores


def _last_or_none(runner: Runner, label: str, entry: Entry) -> dict[str, Any] | None:
    """The last row of a run, or nothing where it diverged."""
    try:
        last: dict[str, Any] = runner(label, entry)["last"]
        return last
    except Diverged:
        runner.console.say(f"{label}: diverged")
        return None


def over_seeds(runner: Runner, label: str, entry: Entry, keep: Callable[[int], Path] | None = None) -> dict[str, Any]:
    """Last and best values of all seeds, by name, NaN where a seed diverged.

    Args:
      runner: runs them.
      label: what the console calls them.
      entry: what to run.
      keep: says where a seed's labels.parquet is to be kept.

    Raises:
      Diverged: all of them did.
    """
    if runner.together and keep is None:
        runs: list[dict[str, Any] | None] = list(runner.side_by_side(label, entry))
    else:
        runs = []
        for seed in range(runner.seeds):
            try:
                path = None if keep is None else keep(seed)
                runs.append(runner(f"{label}, seed {seed}", entry.but(seed=seed), path))
            except Diverged:
                runner.console.say(f"{label}, seed {seed}: diverged")
                runs.append(None)
    finished = [run for run in runs if run is not None]
    if not finished:
        raise Diverged(f"{label}: every seed diverged")
    first = finished[0]
    return {
        "last": {key: [math.nan if r is None else r["last"][key] for r in runs] for key in first["last"]},
        "best": {key: [math.nan if r is None else r["best"][key]["value"] for r in runs] for key in first["best"]},
        "wall_seconds": [r["wall_seconds"] for r in finished],
        "given_label_recovery": first["given_label_recovery"],
        "cleaned_with": [r["cleaned_with"] for r in finished],
    }


def compare(
    runner: Runner,
    label: str,
    entries: dict[str, Entry],
    grids: dict[str, dict[str, Sequence[Any]]],
    tuning_seeds: int = 1,
) -> dict[str, Any]:
    """Methods side by side: tuned within their grids (of the same size), then run over the same seeds."""
    rows = {}
    for name, entry in entries.items():
        chosen, scores = tune(runner, f"{label}, {name}", entry, grids.get(name, {}), tuning_seeds)
        rows[name] = {"tuning": scores, **over_seeds(runner, f"{label}, {name}", chosen)}
        rows[name]["learning_rate"] = chosen.config.learning_rate
    return rows


def paired(a: list[float], b: list[float]) -> dict[str, Any]:
    """Mean difference over seeds with its 95 % interval (Student's t, paired), and the verdict it allows.

    One seed has no interval, and its verdict is the sign. Seeds that diverged on either side do not count.
    """
    d = np.array(a) - np.array(b)
    d = d[np.isfinite(d)]
    mean = float(d.mean())
    if len(d) < 2:
        return {"mean": mean, "low": None, "high": None, "verdict": "ahead" if mean > 0 else "behind"}
    half = float(stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))
    verdict = "ahead" if mean - half > 0 else "behind" if mean + half < 0 else "level"
    return {"mean": mean, "low": mean - half, "high": mean + half, "verdict": verdict}


def claim(text: str, holds: bool | None, evidence: str) -> Claim:
    """A claim with its verdict; None where it was not tested."""
    return Claim(text, {True: "holds", False: "does not hold", None: "not tested"}[holds], evidence)


def claim_ahead(text: str, differences: dict[str, dict[str, Any]], margin: float = 0.0) -> Claim:
    """A claim that paired differences are all above a margin, below 0 where to be nearly as good is enough.

    It holds if every interval is above the margin, it does not if one is wholly below, and is not shown otherwise. Of
    one seed, the difference itself decides.
    """
    lows = [d["mean"] if d["low"] is None else d["low"] for d in differences.values()]
    highs = [d["mean"] if d["high"] is None else d["high"] for d in differences.values()]
    verdict = "holds" if min(lows) > margin else "does not hold" if min(highs) < margin else "not shown"
    return Claim(text, verdict, "; ".join(f"{name} {interval(d)}" for name, d in differences.items()))


def headline(summary: dict[str, Any]) -> str:
    """The scores of a run that a reader looks for first."""
    shown = ("test_map", "test_accuracy", "recovery", "outlier_ap", "transition_mae", "validation_score")
    return ", ".join(f"{name} {100 * summary['last'][name]:.1f}" for name in shown if name in summary["last"])


def spread(values: list[float]) -> str:
    """Percent, mean and standard deviation of the seeds that did not diverge."""
    finite = 100 * np.array(values)[np.isfinite(values)]
    lost = f", {len(values) - len(finite)} diverged" if len(finite) < len(values) else ""
    return f"{finite.mean():.1f}" + (f" ± {finite.std(ddof=1):.1f}" if len(finite) > 1 else "") + lost


def interval(d: dict[str, Any]) -> str:
    """A paired difference in percent."""
    if d["low"] is None:
        return f"{100 * d['mean']:+.1f}, one seed"
    return f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}] {d['verdict']}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


Protocol = Callable[[Runner], Result]
