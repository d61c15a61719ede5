"""The command ``nlx``: what a person with labels to clean types."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from nlx.arguments import ArgumentError
from nlx.cleaning.arrays import classes_of
from nlx.cleaning.clean import clean, evidence_of
from nlx.cleaning.estimates import estimate
from nlx.cleaning.evidence import weigh
from nlx.cleaning.table import LabelTable, write_issues, write_labels
from nlx.commands.arrays import read_array, read_labels
from nlx.commands.compare import Compare
from nlx.commands.models import Export, Predict, Score, save_linear
from nlx.data import DataError
from nlx.data.names import alike
from nlx.experiment.console import Status
from nlx.experiment.main import as_flags
from nlx.report.report import write_report

_MOST_NAMED = 12  # classes that a line names


@dataclass(frozen=True)
class Clean:
    """Find wrong labels: writes labels.parquet, issues.csv (most suspicious first) and report.html to a folder."""

    inputs: tyro.conf.Positional[Path]
    """Features or small images, one row per example: an .npy file, or an .npz with the key features or image."""
    labels: tyro.conf.Positional[Path]
    """Labels as they are: an .npy file, an .npz with the key noisy_label, or text (.csv, .txt), one label a line and no
    heading."""
    out: Path = Path("cleaned")
    """Folder to write to; it must not exist yet."""
    precision: float | None = None
    """0.9 decides a list of labels of which at least 90 % are wrong, at 95 % confidence: the column decided."""
    network: bool = False
    """Train three small networks as well, and join how each label fares while training: better labels, more time."""
    folds: int = 5
    """Number of models, each of which judges the examples that it has not seen."""
    seed: int = 0
    """Seed of folds and training."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0, or 1 for an error told in one sentence; unknown flags exit with 2."""
    commands: dict[str, Callable[..., Any]] = {
        "clean": Clean,
        "predict": Predict,
        "score": Score,
        "export": Export,
        "compare": Compare,
    }
    command = tyro.extras.subcommand_cli_from_dict(
        commands, prog="nlx", description=__doc__, args=arguments, use_underscores=True
    )
    flags = {field.name for field in fields(command) if field.default is not MISSING}
    try:
        if isinstance(command, Clean):
            run_clean(command)
        else:
            command.run()
    except (ArgumentError, DataError) as error:
        print(f"error: {as_flags(str(error), flags)}", file=sys.stderr)
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
    print(f"{len(inputs):,} examples of shape {list(inputs.shape[1:])}; labels are {_kind(labels)}")
    status = Status()
    status.begin(f"judging labels by {options.folds} models")
    table = clean(
        inputs,
        labels,
        precision=options.precision,
        network=options.network,
        folds=options.folds,
        seed=options.seed,
    )
    status.begin("writing labels, model and report")
    for note in () if table.multi_label else alike(table.class_names):
        print(f"warning: {note}", file=sys.stderr)
    write_labels(options.out / "labels.parquet", table)
    write_issues(options.out / "issues.csv", table)
    save_linear(options.out, inputs, table)
    changed = int(table.changed.reshape(len(table), -1).any(axis=1).sum())
    told = _told(table)
    facts = {"inputs": str(options.inputs), "labels": str(options.labels), "examples": len(table)}
    write_report(
        options.out / "report.html",
        title=f"Labels of {options.labels.name}",
        facts=facts,
        summary={},
        told=told,
        plots=(),
        table=table,
        class_names=table.class_names,
        inputs=inputs.reshape(*inputs.shape[:3], -1) if inputs.dtype == np.uint8 and inputs.ndim > 2 else None,
    )
    status.end()
    often = "" if table.multi_label or not changed else f", most often {_most_changed(table)}"
    print(f"{changed:,} labels would change ({changed / len(table):.1%}){often}")
    print(f"{'warning: ' if table.guard['verdict'] == 'worse' else ''}{table.guard['line']}")
    for name, said in told.items():
        print(f"{name}: {said}")
    print(f"the most suspicious first: {options.out / 'issues.csv'}")
    return table


def _told(table: LabelTable) -> dict[str, str]:
    """What is known of the noise, and of the decided list, in words."""
    if table.multi_label:
        return {}
    remaining = estimate(evidence_of(table), table.noisy_label).remaining
    told = {"labels still wrong after cleaning": remaining.percent()}
    if "aum" in table.extras:
        without = weigh(evidence_of(table), table.noisy_label).posterior.argmax(axis=1)
        told["labels that the networks change"] = f"{(without != table.cleaned_label).sum():,}"
    if "decided" in table.extras:
        listed = int(table.extras["decided"].sum())
        told["decided to be wrong"] = f"{listed:,}" if listed else "none: the evidence allows no such promise"
    return told


def _kind(labels: np.ndarray) -> str:
    noisy, names = classes_of(labels, None)
    if noisy.ndim > 1:
        return f"vectors of {len(names):,}"
    return f"{len(names):,} classes: {', '.join(names[:_MOST_NAMED])}{', …' if len(names) > _MOST_NAMED else ''}"


def _most_changed(table: LabelTable) -> str:
    given, proposed = table.noisy_label[table.changed].tolist(), table.cleaned_label[table.changed].tolist()
    often, names = Counter(zip(given, proposed, strict=True)).most_common(3), table.class_names
    return ", ".join(f"{names[i]} to {names[j]} ({count:,})" for (i, j), count in often)


if __name__ == "__main__":
    sys.exit(main())
