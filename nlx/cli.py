"""The command ``nlx``: what a person with labels to clean types."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from nlx.arguments import ArgumentError
from nlx.cleaning.arrays import is_pictures
from nlx.cleaning.clean import clean, evidence_of
from nlx.cleaning.decisions import read_decisions
from nlx.cleaning.estimates import Interval
from nlx.cleaning.evidence import weigh
from nlx.cleaning.label_files import write_issues, write_labels
from nlx.cleaning.label_forms import Labels, label_array, read_classes, split_labels, trusted_rows
from nlx.cleaning.pictures import Patterns, frozen_features, patch_features, patterns_of
from nlx.cleaning.plan import planned
from nlx.cleaning.readme import write_readme
from nlx.cleaning.table import LabelTable
from nlx.commands.compare import Compare
from nlx.commands.crowd import Crowd, named
from nlx.commands.models import Export, Predict, Score, save_linear
from nlx.data import DataError
from nlx.data.dataset import ImageFiles
from nlx.data.examples import SIZE, Examples, Names, read_examples
from nlx.data.names import alike
from nlx.data.tables import TABLES
from nlx.experiment.console import Status
from nlx.experiment.main import as_flags
from nlx.files import replacing
from nlx.models import NAMES
from nlx.report.report import write_report

_OF_PICTURES = 0.8  # precision of what is decided by features that may be weak
_WEAK = (
    "warning: features made of the pictures alone tell few classes apart: go by the order and is_issue, do not apply "
    "proposals unseen; embeddings of a pretrained network are better (docs/cleaning.md), or --features=frozen"
)


@dataclass(frozen=True)
class Clean:
    """Find wrong labels: writes labels.parquet, issues.csv (most suspicious first), README.txt and report.html."""

    inputs: tyro.conf.Positional[Path]
    """Features, one row per example: .npy, .npz (key features or image, or a sparse matrix of scipy), .parquet or .csv
    (columns of numbers, or one of vectors). Or a folder of pictures: with labels.csv, or in folders by class."""
    labels: tyro.conf.Positional[Path | None] = None
    """Labels as they are, some may be missing: .csv or .parquet with named columns, .txt with one a line, .npy or .npz.
    Joined by id or path where both files have one, else in order. Leave it out where they stand beside the features."""
    out: Path = Path("cleaned")
    """Folder to write to; it must not exist yet."""
    label: str | None = None
    """Column of the labels. Default: noisy_label, noisy, given, label, target, class or y, whatever the case."""
    id: str | None = None
    """Column of ids, in either file. Default: id."""
    path: str | None = None
    """Column of the pictures' paths. Default: path, file_name, filename, file or image."""
    trusted: str | None = None
    """A file of decisions (id, path or row, and label; such as an issues.csv in which the column label is filled in),
    or a column that says which labels have been checked, or what is right. Default: the column trusted."""
    separator: str | None = None
    """Between the columns of CSV. Default: what fits of comma, semicolon, tab and bar."""
    label_separator: str = ";"
    """Between several labels of one example."""
    features: Literal["patches", "frozen"] = "patches"
    """Of a folder of pictures: filters made of their own patches, or a frozen pretrained network, see init."""
    init: Path | None = None
    """Weights of a ResNet, a VGG-16, a ViT, DINOv2 or CLIP's image tower: safetensors with torchvision's or timm's
    names, or timm:NAME, fetched from the hub, such as timm:vit_small_patch14_dinov2.lvd142m, or the folder of a run
    or orbax checkpoint. With features=frozen."""
    model: str | None = None
    """What network init is of. Default: what the weights' names or the run's config.json say; of CLIP's towers names do
    not say which GELU is theirs: clip-b32-quick and clip-b16-quick are OpenAI's. With features=frozen."""
    skip_broken: bool = False
    """Leave out pictures that cannot be read, instead of refusing."""
    precision: float | None = None
    """0.9 decides a list of labels of which at least 90 % are wrong, at 95 % confidence: the column is_issue. Default:
    every label that would change, and of pictures 0.8."""
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
        "crowd": Crowd,
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
    """Read examples, clean their labels, write what was found, and say so."""
    o = options
    if o.out.exists():
        raise ArgumentError(f"{o.out} exists: choose another folder by `out`")
    if o.features == "frozen" and not (o.inputs.is_dir() and o.init is not None):
        raise ArgumentError("`features`=frozen is for a folder of pictures and weights: name a file by `init`")
    if o.model is not None and (o.features != "frozen" or o.model not in NAMES):
        raise ArgumentError(f"`model` says of what network `init` is, for `features`=frozen: one of {', '.join(NAMES)}")
    decisions = o.trusted if o.trusted is not None and Path(o.trusted).suffix.lower() in TABLES else None
    names = Names(o.label, o.id, o.path, None if decisions else o.trusted, o.separator)
    examples = read_examples(o.inputs, o.labels, names, o.skip_broken)
    labels = split_labels(examples.labels, o.label_separator)
    found = read_classes(labels, None)
    trusted: dict[int, Any] = {}
    if examples.trusted is not None:
        known = split_labels(examples.trusted, o.label_separator)
        rows, values = trusted_rows(known, label_array(labels), found.names)
        trusted = dict(zip(rows.tolist(), values, strict=True))
    if decisions:
        file = Path(decisions)
        trusted |= read_decisions(file, examples.origin, found.names, o.separator, o.label_separator)
    weak = examples.files is not None and o.features == "patches"
    made = o.features if examples.files is not None else "patches" if is_pictures(examples.inputs) else None
    precision = _OF_PICTURES if weak and o.precision is None and found.noisy.ndim == 1 else o.precision
    shape = examples.inputs.shape
    print(f"{shape[0]:,} examples of shape {list(shape[1:])}; labels are {_kind(found, len(trusted))}")
    for note in examples.notes:
        print(note)
    print(planned(shape, len(found.names), made, o.network, o.folds), flush=True)
    status = Status()
    status.begin(f"judging labels by {o.folds} models")
    features, patterns = _features(o, examples)
    table = clean(
        features,
        labels,
        trusted=trusted,
        precision=precision,
        network=o.network,
        folds=o.folds,
        seed=o.seed,
    )
    table = replace(table, origin=examples.origin)
    status.begin("writing labels, model and report")
    for note in () if table.multi_label else alike(table.class_names):
        print(f"warning: {note}", file=sys.stderr)
    if patterns is not None:
        taken = ImageFiles(files.paths, SIZE, files.top) if (files := examples.files) is not None else examples.inputs
        save_linear(o.out, features, table, images=taken, patterns=patterns)
    elif isinstance(features, np.ndarray):
        save_linear(o.out, features, table)
    _write(options, table, examples.inputs, precision, status)
    if weak:
        print(_WEAK, file=sys.stderr)
    return table


def _features(options: Clean, examples: Examples) -> tuple[Any, Patterns | None]:
    """What is learnt from, and the patterns of pictures; features of a frozen network are kept beside the table."""
    if options.features == "frozen":
        assert options.init is not None
        assert examples.files is not None
        features = frozen_features(examples.files, options.init, options.model)
        with replacing(options.out / "features.npy") as file:
            np.save(file, features)
        return features, None
    if not is_pictures(examples.inputs):
        return examples.inputs, None
    patterns = patterns_of(examples.inputs)
    return patch_features(examples.inputs, patterns), patterns


def _write(options: Clean, table: LabelTable, inputs: Any, precision: float | None, status: Status) -> None:
    """Files and last words."""
    out, named = options.out, options.labels or options.inputs
    write_labels(out / "labels.parquet", table)
    write_issues(out / "issues.csv", table)
    write_readme(out / "README.txt", table, precision)
    labelled = table.take(table.labelled)
    changed, n = int(labelled.changes.sum()), len(labelled)
    told = _told(labelled)
    images = isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8 and inputs.ndim > 2
    write_report(
        out / "report.html",
        title=f"Labels of {named.name}",
        facts={"inputs": str(options.inputs), "labels": str(named), "examples": len(table)},
        summary={},
        told=told,
        plots=(),
        table=labelled,
        class_names=table.class_names,
        inputs=inputs.reshape(*inputs.shape[:3], -1) if images else None,
    )
    status.end()
    often = "" if table.multi_label or not changed else f", most often {_most_changed(labelled)}"
    print(f"{changed:,} labels would change ({changed / n:.1%}){often}")
    print(f"{'warning: ' if table.guard['verdict'] == 'worse' else ''}{table.guard['line']}")
    for name, said in told.items():
        print(f"{name}: {said}")
    print(f"the most suspicious first: {out / 'issues.csv'}")


def _told(table: LabelTable) -> dict[str, str]:
    """What is known of the noise, and of the decided list, in words."""
    if table.multi_label:
        return {}
    told = {"labels still wrong after cleaning": Interval(**table.guard["remaining"]).percent()}
    if "aum" in table.extras:
        without = weigh(evidence_of(table), table.noisy_label).posterior.argmax(axis=1)
        told["labels that the networks change"] = f"{(without != table.cleaned_label).sum():,}"
    if "decided" in table.extras:
        listed = int(table.extras["decided"].sum())
        told["decided to be wrong"] = f"{listed:,}" if listed else "none: the evidence allows no such promise"
    return told


def _kind(found: Labels, trusted: int) -> str:
    said = named(found.names)
    if found.noisy.ndim > 1:
        said = f"vectors of {said}"
    absent = int((~found.given).sum())
    parts = [said, *(["soft, the largest counts as given"] if found.soft is not None else [])]
    parts += [f"{absent:,} without a label"] if absent else []
    parts += [f"{trusted:,} trusted"] if trusted else []
    return "; ".join(parts)


def _most_changed(table: LabelTable) -> str:
    given, proposed = table.noisy_label[table.changed].tolist(), table.cleaned_label[table.changed].tolist()
    often, names = Counter(zip(given, proposed, strict=True)).most_common(3), table.class_names
    return ", ".join(f"{names[i]} to {names[j]} ({count:,})" for (i, j), count in often)


if __name__ == "__main__":
    sys.exit(main())
