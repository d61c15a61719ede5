"""Running a table at full size, row by row, and going on where it was stopped."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.protocols.common import table
from benchmarks.protocols.full_rows import Full
from benchmarks.protocols.runner import Entry
from nlx.arguments import ArgumentError
from nlx.cleaning.label_files import read_labels
from nlx.experiment.main import run_recipe
from nlx.experiment.run_folder import write_json
from nlx.report.ranking import precision_at
from nlx.transitions.confusing import CONFUSING

_ABOUT_THE_CALL = ("run_dir", "resume", "data_dir", "checkpoint_seconds")


def ended(run_dir: Path, name: str, label: str, entry: Entry) -> bool:
    """Whether a row has been run.

    Raises:
      ArgumentError: it has been begun with other options, or nothing says with which.
    """
    folder, record = folder_of(run_dir, name, label), record_of(run_dir, name, label)
    if not (folder / "config.json").is_file():
        return False
    cure = "choose another --runs, or delete that folder"
    if not record.is_file():
        raise ArgumentError(
            f"{folder} holds a run, and {record.name} beside it, which says of what, is missing: {cure}"
        )
    before, now = json.loads(record.read_text()), said(entry)
    for option in sorted({*before, *now}):
        if before.get(option) != now.get(option):
            was, is_now = before.get(option), now.get(option)
            raise ArgumentError(f"{folder} holds a run with {option}={was}, not {is_now}: {cure}")
    return (folder / "summary.json").is_file()


def said(entry: Entry) -> dict[str, Any]:
    """What decides a row's figures: its recipe and its options."""
    options = {name: value for name, value in vars(entry.options).items() if name not in _ABOUT_THE_CALL}
    plain = {name: v if isinstance(v, bool | int | float | None) else str(v) for name, v in options.items()}
    return {"recipe": entry.train.__module__, **plain}


def labels_of(run_dir: Path, name: str, label: str, entry: Entry) -> Path:
    """Where a row of a table leaves its labels, of several seeds the first."""
    o = entry.options
    return folder_of(run_dir, name, label) / (f"seed-{o.seed}" if o.seeds > 1 else "") / "labels.parquet"


def record_of(run_dir: Path, name: str, label: str) -> Path:
    """Where it is kept what a row was begun with."""
    folder = folder_of(run_dir, name, label)
    return folder.parent / f"{folder.name}.options.json"


def folder_of(run_dir: Path, name: str, label: str) -> Path:
    """Where a row of a table is kept."""
    return run_dir / name / "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


def run_table(name: str, full: Full, rows: dict[str, Entry], run_dir: Path, results: Path) -> list[str]:
    """Run all rows, or go on with those that were stopped, and write the table.

    Returns:
      The page, line by line; it is written as ``NAME-full.md`` and ``.json`` as well.
    """
    found: dict[str, dict[str, Any]] = {}
    for label, entry in rows.items():
        folder = folder_of(run_dir, name, label)
        if not ended(run_dir, name, label, entry):
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_json(record_of(run_dir, name, label), said(entry))
            resume = (folder / "config.json").is_file()
            run_recipe(replace(entry.options, run_dir=folder, resume=resume), entry.train)
        summary = json.loads((folder / "summary.json").read_text())
        found[label] = {**summary["last"], "given_label_recovery": summary.get("given_label_recovery")}
        if full.measure == "precision_500":
            found[label]["precision_500"] = precision_500(folder)
    measures = {full.measure: full.paper, **full.beside}
    heads = [f"{who}, {measure}" for measure in measures for who in ("paper", "here")]
    lines = [
        [label, *(cell for m, paper in measures.items() for cell in (str(paper.get(label, "–")), shown(of.get(m))))]
        for label, of in found.items()
    ]
    page = [f"# {name}, full size", "", full.remark or "As the paper has it.", ""]
    page += [*table(["row", *heads], lines), ""]
    write_json(results / f"{name}-full.json", found)
    (results / f"{name}-full.md").write_text("\n".join(page))
    return page


def shown(value: Any) -> str:
    """A score in percent: of one run, of several seeds, or none."""
    if isinstance(value, dict):
        return f"{100 * value['mean']:.2f} ± {100 * value['std']:.2f}"
    return "–" if value is None else f"{100 * value:.2f}"


def precision_500(folder: Path) -> float | None:
    """Share of wrong labels among the 500 that are most probably confusing; None where there is no such probability.

    Only labels count whose truth is known and not trusted, and none may be left.
    """
    scores = []
    for path in [folder / "labels.parquet", *sorted(folder.glob("seed-*/labels.parquet"))]:
        labels = read_labels(path) if path.is_file() else None
        if labels is None or labels.true_label is None or "noise_type" not in labels.extras:
            continue
        rows = (labels.true_label >= 0) & ~labels.extras["trusted"].astype(bool)
        if rows.any():
            wrong = (labels.noisy_label != labels.true_label)[rows]
            probability = labels.extras["noise_type"][rows, CONFUSING]
            scores.append(float(precision_at(probability, wrong, [min(500, len(wrong))])[0]))
    return statistics.fmean(scores) if scores else None
