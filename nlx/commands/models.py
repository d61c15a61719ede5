"""``nlx predict``, ``nlx score`` and ``nlx export``: what a run has trained, put to use on new data."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import tyro
from jax import Array

from nlx.arguments import ArgumentError
from nlx.cleaning.arrays import features_of, standard_form
from nlx.cleaning.estimates import estimate
from nlx.cleaning.label_files import write_issues, write_labels
from nlx.cleaning.linear import setting_for
from nlx.cleaning.pictures import Patterns, pooled
from nlx.cleaning.table import LabelTable
from nlx.cleaning.trainers import trainer_for
from nlx.data import load
from nlx.data.dataset import Inputs, Split
from nlx.data.examples import Names, read_examples, read_features
from nlx.data.origin import Origin
from nlx.data.pictures import SUFFIXES
from nlx.experiment.saved import SavedModel, Weights, load_run, save_program
from nlx.files import replacing
from nlx.report.report import write_report


@dataclass(frozen=True)
class Predict:
    """Class probabilities of new data by what a run has trained; no training data are needed."""

    trained: tyro.conf.Positional[Path]
    """Folder of a run, or of nlx clean."""
    inputs: tyro.conf.Positional[Path]
    """Features or images as the run was trained on, one row per example: .npy, .npz (key features or image), .parquet
    or .csv, or a folder of pictures."""
    out: Path = Path("predictions.csv")
    """File to write to: .csv, or .npy for the probabilities alone; it must not exist yet."""

    def run(self) -> None:
        """Read, predict, write, and say so."""
        model = load_run(self.trained)
        if self.out.exists() or self.out.suffix not in (".csv", ".npy"):
            raise ArgumentError(f"{self.out} exists or is no .csv or .npy: choose another file by `out`")
        inputs, names = read_inputs(self.inputs, model)
        probs = model.predict(inputs)
        if self.out.suffix == ".npy":
            with replacing(self.out) as file:
                np.save(file, probs)
        else:
            write_predictions(self.out, probs, model, names)
        print(f"{len(probs):,} examples, {len(model.class_names):,} classes, by {model.method}: {self.out}")


@dataclass(frozen=True)
class Score:
    """Find wrong labels in new data by what a run has trained: labels.parquet, issues.csv and report.html."""

    trained: tyro.conf.Positional[Path]
    """Folder of a run, or of nlx clean, that has not seen these data."""
    inputs: tyro.conf.Positional[Path]
    """As for nlx predict; with labels beside the features, or a folder with a labels.csv."""
    labels: tyro.conf.Positional[Path | None] = None
    """Labels of features, as for nlx clean: joined by id where both files have one, else in order."""
    out: Path = Path("scored")
    """Folder to write to; it must not exist yet."""

    def run(self) -> None:
        """Read, judge the labels, write what was found, and say so."""
        model = load_run(self.trained)
        if self.out.exists():
            raise ArgumentError(f"{self.out} exists: choose another folder by `out`")
        inputs, labels, origin = self._read(model)
        table = replace(model.score(inputs, labels), origin=origin)
        write_labels(self.out / "labels.parquet", table)
        write_issues(self.out / "issues.csv", table)
        changed = int(table.changes.sum())
        told = noise_of(table)
        write_report(
            self.out / "report.html",
            title=f"Labels of {self.inputs.name}",
            facts={"inputs": str(self.inputs), "trained": str(self.trained), "examples": len(table)},
            summary={},
            told=told,
            plots=(),
            table=table,
            class_names=table.class_names,
            inputs=inputs if len(inputs.shape) == 4 else None,
        )
        print(f"labels that would change: {changed:,} of {len(table):,}")
        for name, said in told.items():
            print(f"{name}: {said}")
        print(f"the most suspicious first: {self.out / 'issues.csv'}")

    def _read(self, model: SavedModel) -> tuple[Inputs, np.ndarray, Origin | None]:
        if not self.inputs.is_dir():
            examples = read_examples(self.inputs, self.labels, Names())
            return examples.inputs, examples.labels, examples.origin
        if self.labels is not None:
            raise ArgumentError(
                f"labels of the pictures in {self.inputs} stand in its labels.csv: leave {self.labels} out"
            )
        data = load(f"folder:{self.inputs}", image_size=model.input_shape[0])
        observed = data.train.observed
        named = observed if data.multi_label else np.array(data.class_names)[observed]
        return data.train.inputs, named, data.train.origin


@dataclass(frozen=True)
class Export:
    """Write what a run has trained for use elsewhere: a jax.export artifact and safetensors."""

    trained: tyro.conf.Positional[Path]
    """Folder of a run, or of nlx clean."""
    out: Path = Path("exported")
    """Folder to write to; it must not exist yet."""

    def run(self) -> None:
        """Write the files, and say how they are read."""
        model = load_run(self.trained)
        folder = model.export(self.out)
        form = ", ".join(map(str, ("B", *model.input_shape)))
        print(f"{folder / 'model.jaxexport'}: {model.input_dtype} [{form}] -> p [B, {len(model.class_names)}]; read by")
        print(
            f"  jax.export.deserialize(bytearray(open({str(folder / 'model.jaxexport')!r}, 'rb').read())).call(inputs)"
        )
        print(f"{folder / 'model.safetensors'}: {sum(w.size for w in model.weights.values()):,} weights by name")


def noise_of(table: LabelTable) -> dict[str, str]:
    """What is estimated of the noise, in words, from a table with evidence of one label per example."""
    if table.multi_label:
        return {}
    found = estimate(table.extras["evidence"], table.noisy_label)
    return {
        "labels that look wrong": found.noise_rate.percent(),
        "labels still wrong after cleaning": found.remaining.percent(),
    }


def read_inputs(path: Path, model: SavedModel) -> tuple[Inputs, list[str] | None]:
    """An array from a file, or the pictures below a folder and their paths within it.

    Raises:
      ArgumentError: nothing that can be read.
    """
    if not path.is_dir():
        return read_features(path, Names())[0], None
    paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ArgumentError(f"{path} holds no pictures: give a folder of JPEG, PNG or other picture files, or an array")
    return model.files(paths), [p.relative_to(path).as_posix() for p in paths]


def write_predictions(path: Path, probs: np.ndarray, model: SavedModel, names: list[str] | None) -> None:
    """Write probabilities ``[n, K]`` as CSV: row or path, what is predicted, how probable that is, and every class."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("row" if names is None else "path", "predicted", "probability", *model.class_names))
    chosen = probs >= 0.5 if model.multi_label else np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None]
    sure = np.maximum(probs, 1 - probs).min(axis=1) if model.multi_label else probs.max(axis=1)
    for row, (p, of) in enumerate(zip(probs, chosen, strict=True)):
        predicted = ";".join(model.class_names[c] for c in np.flatnonzero(of))
        told = (f"{value:.4f}" for value in (sure[row], *p))
        writer.writerow((row if names is None else names[row], predicted, *told))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def save_linear(
    folder: Path,
    features: np.ndarray,
    table: LabelTable,
    *,
    images: Inputs | None = None,
    patterns: Patterns | None = None,
) -> None:
    """Keep a linear model of cleaned labels in the folder of ``nlx clean``, to predict by.

    Args:
      folder: where to.
      features: of all rows of the table, or small images, see :func:`nlx.clean`.
      table: cleaned labels.
      images: what the features are of, where it was not they that were given.
      patterns: that they were compared with.
    """
    inputs = images
    if inputs is None:
        small = features.dtype == np.uint8
        inputs = features.reshape(*features.shape[:3], -1) if small else np.asarray(features, np.float32)
        features = features_of(inputs)
    standard, k = standard_form(features), len(table.class_names)
    split = Split(standard.apply(features), table.cleaned_label, None)
    key = jax.random.key(0)
    trainer, stage = trainer_for(split, None, len(split), k, setting=setting_for(split, k, key))
    state = trainer.fit(split, key, stage).state
    params = {name: np.asarray(value) for name, value in state.params["model"].items()}
    more = {} if patterns is None else patterns._asdict()
    compared = {f"patterns/{name}": np.asarray(value) for name, value in more.items()}
    prepared = {name: np.asarray(value, np.float32) for name, value in standard._asdict().items()}

    def scores(weights: Weights, inputs: Array) -> Array:
        if patterns is None:
            x = inputs.reshape(inputs.shape[0], -1).astype(np.float32)
        else:
            x = pooled(inputs, Patterns(*(weights[name] for name in compared)))
        x = (x - weights["mean"][None]) * weights["scale"][None]
        return trainer.model.apply_test({name: weights[name] for name in params}, {}, x)["logits"]

    about = {"method": table.method, "dataset": table.dataset}
    names, several = table.class_names, table.multi_label
    weights = params | prepared | compared
    save_program(folder, scores, weights, inputs, class_names=names, multi_label=several, about=about)
