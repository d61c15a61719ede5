"""``nlx compare``: runs side by side, as a table and as curves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from nlx.arguments import ArgumentError
from nlx.experiment.run_folder import ABOUT_THE_CALL
from nlx.report.comparison import comparison_curves

_APART = {"dataset", "noise", "seed", "seeds", *ABOUT_THE_CALL}
_METRICS = {
    "test_accuracy": "test accuracy",
    "test_balanced_accuracy": "balanced",
    "test_map": "test mAP",
    "validation_score": "validation",
    "recovery": "recovery",
    "issue_auc": "issue AUC",
}


@dataclass(frozen=True)
class Compare:
    """Runs side by side: a table of what they are and what came out after the last epoch, and their curves."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs; those that differ by the seed alone are one row, mean and standard deviation."""
    out: Path = Path("compare.png")
    """Picture of the curves, .png or .svg; it is written anew."""

    def run(self) -> None:
        """Read, print the table, draw the curves."""
        if self.out.suffix not in (".png", ".svg"):
            raise ArgumentError(f"{self.out} is no .png or .svg: choose another name by `out`")
        groups = grouped([run for folder in self.runs for run in read_runs(folder)])
        print(markdown(table_of(groups)))
        comparison_curves({group.name: [run.rows for run in group.runs] for group in groups}, self.out)
        print(f"curves: {self.out}")


@dataclass(frozen=True)
class FinishedRun:
    """What one seed has left.

    Attributes:
      folder: where.
      options: of config.json.
      summary: summary.json.
      rows: of metrics.jsonl.
    """

    folder: Path
    options: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone."""

    name: str
    runs: list[FinishedRun]


def read_runs(folder: Path) -> list[FinishedRun]:
    """The runs in a folder: itself, or its seeds.

    Raises:
      ArgumentError: there is none that has come to its end.
    """
    seeds = sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    try:
        return [_read(path) for path in seeds or [folder]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{folder} is no folder of a finished run ({error}): give those of recipes") from error


def _read(folder: Path) -> FinishedRun:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return FinishedRun(folder, dict(config["options"]), summary, [json.loads(line) for line in lines])


def grouped(runs: Sequence[FinishedRun]) -> list[Group]:
    """Runs by what they are but for the seed, in the order given, with names that tell them apart."""
    found: dict[str, list[FinishedRun]] = {}
    for run in runs:
        options = {name: value for name, value in run.options.items() if name not in _APART - {"noise"}}
        key = json.dumps([run.summary["method"], run.summary["dataset"], options], sort_keys=True)
        found.setdefault(key, []).append(run)
    groups = [Group("", members) for members in found.values()]
    first = [group.runs[0] for group in groups]
    keys = [key for key in ("method", "dataset") if key == "method" or len({run.summary[key] for run in first}) > 1]
    names = [" ".join(run.summary[key] for key in keys) for run in first]
    if len(set(names)) < len(names):
        each = [[f"{o}={run.options[o]}" for o in differing(groups) if o in run.options] for run in first]
        names = [" ".join([name, *told]) for name, told in zip(names, each, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} ({run.folder})" for name, run in zip(names, first, strict=True)]
    return [Group(name, group.runs) for name, group in zip(names, groups, strict=True)]


def differing(groups: Sequence[Group]) -> list[str]:
    """Options that are not the same in all groups that have them."""
    names = dict.fromkeys(name for group in groups for name in group.runs[0].options)

    def values(name: str) -> set[str]:
        return {json.dumps(group.runs[0].options[name]) for group in groups if name in group.runs[0].options}

    return [name for name in names if name not in _APART and len(values(name)) > 1]


def table_of(groups: Sequence[Group]) -> list[list[str]]:
    """A header and a row for each group: what it is, and its last epochs' scores, in percent."""
    differ = differing(groups)
    present = [name for name in _METRICS if any(name in run.summary["last"] for g in groups for run in g.runs)]
    rows = [["method", "data", "labels wrong", "seeds", *differ, *(_METRICS[name] for name in present), "minutes"]]
    for group in groups:
        first = group.runs[0]
        right = first.summary.get("given_label_recovery")
        rows.append(
            [
                first.summary["method"],
                first.summary["dataset"],
                "–" if right is None else f"{1 - right:.1%}",
                str(len(group.runs)),
                *(str(first.options.get(name, "–")) for name in differ),
                *(spread([run.summary["last"].get(name) for run in group.runs]) for name in present),
                f"{sum(run.summary['wall_seconds'] for run in group.runs) / 60:.1f}",
            ]
        )
    return rows


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds, in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    return f"{statistics.fmean(known):.1f}" + (f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else "")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as text, its columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
