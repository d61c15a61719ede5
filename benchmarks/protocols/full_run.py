"""Running a table at full size, row by row, and going on where it was stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.protocols.common import table
from benchmarks.protocols.full import Full
from benchmarks.protocols.runner import Entry
from nlx.experiment.main import run_recipe
from nlx.experiment.run_folder import write_json


def ended(run_dir: Path, name: str, label: str) -> bool:
    """Whether a row has been run."""
    return (folder_of(run_dir, name, label) / "summary.json").is_file()


def folder_of(run_dir: Path, name: str, label: str) -> Path:
    """Where a row of a table is kept."""
    return run_dir / name / "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


def run_table(name: str, full: Full, rows: dict[str, Entry], run_dir: Path, results: Path) -> list[str]:
    """Run all rows, or go on with those that were stopped, and write the table.

    Returns:
      The page, line by line; it is written as ``NAME-full.md`` and ``.json`` as well.
    """
    found: dict[str, Any] = {}
    for label, entry in rows.items():
        folder = folder_of(run_dir, name, label)
        if not ended(run_dir, name, label):
            resume = (folder / "config.json").is_file()
            run_recipe(replace(entry.options, run_dir=folder, resume=resume), entry.train)
        found[label] = json.loads((folder / "summary.json").read_text())["last"]

    def figure(label: str) -> str:
        value = found[label].get(full.measure)
        return "–" if value is None else f"{100 * (value['mean'] if isinstance(value, dict) else value):.2f}"

    lines = [[label, str(full.paper.get(label, "–")), figure(label)] for label in rows]
    page = [f"# {name}, full size", "", full.remark or "As the paper has it.", ""]
    page += [*table(["row", f"paper, {full.measure}", "here"], lines), ""]
    write_json(results / f"{name}-full.json", found)
    (results / f"{name}-full.md").write_text("\n".join(page))
    return page
