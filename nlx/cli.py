"""The command ``nlx``: what a person with labels to clean types."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from nlx.arguments import ArgumentError
from nlx.cleaning.clean import clean
from nlx.cleaning.table import LabelTable, write_issues, write_labels
from nlx.data import DataError
from nlx.experiment.main import as_flags
from nlx.report.report import write_report


@dataclass(frozen=True)
class Clean:
    """Find wrong labels: writes labels.parquet, issues.csv (most suspicious first) and report.html to a folder."""

    inputs: tyro.conf.Positional[Path]
    """Features or small images, one row per example: an .npy file, or an .npz with the key features or image."""
    labels: tyro.conf.Positional[Path]
    """Labels as they are: an .npy file, an .npz with the key noisy_label, or text with one label a line."""
    out: Path = Path("cleaned")
    """Folder to write to; it must not exist yet."""
    folds: int = 5
    """Number of models, each of which judges the examples that it has not seen."""
    seed: int = 0
    """Seed of folds and training."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0, or 1 for an error told in one sentence; unknown flags exit with 2."""
    command: Clean = tyro.extras.subcommand_cli_from_dict(
        {"clean": Clean}, prog="nlx", description=__doc__, args=arguments, use_underscores=True
    )
    try:
        run_clean(command)
    except (ArgumentError, DataError) as error:
        print(f"error: {as_flags(str(error), {'out', 'folds', 'seed'})}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot read or write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def run_clean(options: Clean) -> LabelTable:
    """Read arrays, clean the labels, write what was found, and say so."""
    if options.out.exists():
        raise ArgumentError(f"{options.out} exists: choose another folder by `out`")
    inputs, labels = read_array(options.inputs, ("features", "image")), read_labels(options.labels)
    different = len(np.unique(labels, axis=0))
    print(f"{len(inputs):,} examples of shape {list(inputs.shape[1:])}, {different:,} different labels")
    table = clean(inputs, labels, folds=options.folds, seed=options.seed)
    write_labels(options.out / "labels.parquet", table)
    write_issues(options.out / "issues.csv", table)
    changed = int(table.changed.reshape(len(table), -1).any(axis=1).sum())
    facts = {"inputs": str(options.inputs), "labels": str(options.labels), "examples": len(table)}
    write_report(
        options.out / "report.html",
        title=f"Labels of {options.labels.name}",
        facts=facts,
        summary={"labels that would change": changed},
        plots=(),
        table=table,
        class_names=table.class_names,
        inputs=inputs if inputs.dtype == np.uint8 and inputs.ndim == 4 else None,
    )
    share = f"{changed / len(table):.1%}"
    print(f"{changed:,} labels would change ({share}); the most suspicious first: {options.out / 'issues.csv'}")
    return table


def read_array(path: Path, keys: tuple[str, ...]) -> np.ndarray:
    """An array from an .npy file, or from an .npz file under the first of some keys."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ArgumentError(f"{path} is no array that numpy.save or numpy.savez wrote") from error
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        for key in keys:
            if key in loaded.files:
                array: np.ndarray = loaded[key]
                return array
    raise ArgumentError(f"{path} has no {' or '.join(keys)}: save the array under one of these names")


def read_labels(path: Path) -> np.ndarray:
    """Labels from an array's file, or from text with one label a line."""
    if path.suffix in (".npy", ".npz"):
        return read_array(path, ("noisy_label", "labels", "label"))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is no text: give .npy, .npz, or one label a line") from error
    if "" in lines:
        raise ArgumentError(f"{path}: line {lines.index('') + 1} is empty: give one label a line")
    return np.array(lines)


if __name__ == "__main__":
    sys.exit(main())
