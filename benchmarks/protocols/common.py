"""What all protocols share: runs that are remembered, tuning on noisy labels, differences paired by seed, verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.protocols.runner import Entry, Runner
from nlx.training.loop import Diverged

TUNING_SEEDS = range(1000, 1010)
SMALLER_RATES = (0.02, 0.005, 0.001)  # to tune losses without a floor, which diverge at 0.05

Numbers = dict[str, list[float]]


class Claim(NamedTuple):
    """A claim of a paper, and what the runs say of it.

    Attributes:
      text: the claim, with the paper's figures.
      verdict: ``holds``, ``does not hold`` or ``not shown``, by a rule that stands in the protocol.
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
        means: dict[Any, dict[str, float]] = {}
        tried = entry.but(validation_fraction=0.1, evaluate_every=10_000)
        pairs = [(value, seed) for value in (values if len(values) > 1 else ()) for seed in TUNING_SEEDS[:seeds]]

        def score(pair: tuple[Any, int], name: str = name, tried: Entry = tried) -> dict[str, Any] | None:
            value, seed = pair
            which = f"tune, {label}, {name} {value}, seed {seed}"
            summary = _run_or_none(runner, which, tried.but(**{name: value, "seed": seed}))
            return None if summary is None else summary["last"]

        scored = dict(zip(pairs, runner.map(score, pairs), strict=True))
        for value in dict.fromkeys(value for value, _ in pairs):
            lasts = [scored[value, seed] for seed in TUNING_SEEDS[:seeds]]
            finished = [last for last in lasts if last is not None]
            # The test score stands beside it for the reader; it decides nothing.
            shown = [n for n in ("validation_score", "test_map", "test_accuracy") if finished and n in finished[0]]
            means[value] = {n: float(np.mean([last[n] for last in finished])) for n in shown}
            if len(finished) < len(lasts):
                means[value]["validation_score"] = -1.0  # a value that diverges once is not to be chosen
        best = max(means, key=lambda value: means[value]["validation_score"]) if means else values[0]
        entry = entry.but(**{name: best})
        scores[name] = {"chosen": best, "tried": {str(value): row for value, row in means.items()}}
    return entry, scores


def _run_or_none(runner: Runner, label: str, entry: Entry, keep: Path | None = None) -> dict[str, Any] | None:
    """The summary of a run, or nothing where it diverged."""
    try:
        return runner(label, entry, keep)
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

    def one(seed: int) -> dict[str, Any] | None:
        path = None if keep is None else keep(seed)
        return _run_or_none(runner, f"{label}, seed {seed}", entry.but(seed=seed), path)

    runs = runner.map(one, range(runner.seeds))
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


def all_over_seeds(runner: Runner, label: str, entries: dict[str, Entry]) -> dict[str, Any]:
    """:func:`over_seeds` of each entry, by name; the console calls them LABEL, NAME. Where all diverged: only NaN."""
    rows = runner.map(lambda name: _row_or_none(runner, f"{label}, {name}", entries[name]), entries)
    return _filled(dict(zip(entries, rows, strict=True)), runner.seeds)


def _row_or_none(runner: Runner, label: str, entry: Entry) -> dict[str, Any] | None:
    """:func:`over_seeds`, or nothing where every seed diverged."""
    try:
        return over_seeds(runner, label, entry)
    except Diverged:
        return None


def _filled(rows: dict[str, dict[str, Any] | None], seeds: int) -> dict[str, dict[str, Any]]:
    """Rows with NaN in the place of those that are lost, under the names that the others have.

    Raises:
      Diverged: all are lost.
    """
    kept = next((row for row in rows.values() if row is not None), None)
    if kept is None:
        raise Diverged(f"{', '.join(rows)}: every seed diverged")
    nothing = {part: {key: [math.nan] * seeds for key in kept[part]} for part in ("last", "best")}
    lost = {**kept, **nothing, "wall_seconds": [], "cleaned_with": []}
    return {name: lost if row is None else row for name, row in rows.items()}


def compare(
    runner: Runner,
    label: str,
    entries: dict[str, Entry],
    grids: dict[str, dict[str, Sequence[Any]]],
    tuning_seeds: int = 1,
) -> dict[str, Any]:
    """Methods side by side: tuned within their grids (of the same size), then run over the same seeds."""

    def row(name: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        chosen, scores = tune(runner, f"{label}, {name}", entries[name], grids.get(name, {}), tuning_seeds)
        about = {"tuning": scores, "learning_rate": chosen.options.learning_rate}
        return about, _row_or_none(runner, f"{label}, {name}", chosen)

    abouts, rows = zip(*runner.map(row, entries), strict=True)
    filled = _filled(dict(zip(entries, rows, strict=True)), runner.seeds)
    return {name: {**row, **about} for (name, row), about in zip(filled.items(), abouts, strict=True)}


def paired(a: list[float], b: list[float]) -> dict[str, Any]:
    """Mean difference over seeds with its 95 % interval (Student's t, paired), and the verdict it allows.

    One seed has no interval, and its verdict is the sign. Seeds that diverged on either side do not count; where fewer
    than two of several are left, the interval is unbounded.
    """
    d = np.array(a) - np.array(b)
    d = d[np.isfinite(d)]
    mean = float(d.mean()) if len(d) else math.nan
    if len(d) < min(2, len(a)):
        return {"mean": mean, "low": -math.inf, "high": math.inf, "verdict": "level"}
    if len(d) < 2:
        return {"mean": mean, "low": None, "high": None, "verdict": "ahead" if mean > 0 else "behind"}
    half = float(stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))
    verdict = "ahead" if mean - half > 0 else "behind" if mean + half < 0 else "level"
    return {"mean": mean, "low": mean - half, "high": mean + half, "verdict": verdict}


def claim(text: str, holds: bool, evidence: str) -> Claim:
    """A claim with its verdict."""
    return Claim(text, "holds" if holds else "does not hold", evidence)


def claim_ahead(text: str, differences: dict[str, dict[str, Any]], margin: float = 0.0) -> Claim:
    """A claim that paired differences are all above a margin, below 0 where to be nearly as good is enough.

    It holds if every interval is above the margin, it does not if one is wholly below, and is not shown otherwise. Of
    one seed, the difference itself decides.
    """
    lows = [d["mean"] if d["low"] is None else d["low"] for d in differences.values()]
    highs = [d["mean"] if d["high"] is None else d["high"] for d in differences.values()]
    verdict = "holds" if min(lows) > margin else "does not hold" if min(highs) < margin else "not shown"
    return Claim(text, verdict, "; ".join(f"{name} {interval(d)}" for name, d in differences.items()))


def claim_within(text: str, differences: dict[str, dict[str, Any]], margin: float) -> Claim:
    """A claim that paired differences are all smaller than a margin, whichever way they point.

    It holds if every interval lies between plus and minus the margin, it does not if one lies wholly outside, and is
    not shown otherwise. Of one seed, the difference itself decides.
    """
    ends = [(d["mean"], d["mean"]) if d["low"] is None else (d["low"], d["high"]) for d in differences.values()]
    inside = all(-margin < low and high < margin for low, high in ends)
    outside = any(low > margin or high < -margin for low, high in ends)
    verdict = "holds" if inside else "does not hold" if outside else "not shown"
    return Claim(text, verdict, "; ".join(f"{name} {interval(d)}" for name, d in differences.items()))


def spread(values: list[float]) -> str:
    """Percent, mean and standard deviation of the seeds that did not diverge."""
    finite = 100 * np.array(values)[np.isfinite(values)]
    if not len(finite):
        return "diverged"
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
