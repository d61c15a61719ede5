"""Four people with labels to clean, by the README's commands alone: time, stumbles, and quality beside cleanlab's.

python benchmarks/trials.py                                                    # digits stand in, minutes
python benchmarks/trials.py --features=X.npz --images=Y.npz --image_labels=Z.npz   # CIFAR-10N

1,000 photos of 64 pixels as files with a CSV; 40,000 embeddings with a CSV, and again with 5 % of the labels checked;
features of scenes with several labels each. cleanlab (pip install -e '.[bench]') is given the same features in both its
ways: class probabilities by cross-validated logistic regression, and Datalab on the features alone. A stumble is a
command that fails, an error or a warning, more than 10 seconds without a word, or a row that is not the user's.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import tyro
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nlx.cleaning.pictures import patch_features
from nlx.data.sources.scenes import web_sample

ROOT = Path(__file__).resolve().parents[1]
CLASSES = np.array(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
_SILENCE = 10.0  # seconds


@dataclass(frozen=True)
class Options:
    """What to try."""

    features: Path | None = None
    """.npz with features, label and noisy_NAME."""
    images: Path | None = None
    """CIFAR-10's pictures, .npz with d, delta-coded [n, 3, 32, 32]."""
    image_labels: Path | None = None
    """Their labels, .npz with clean_label and random_label1."""
    labels: str = "worst"
    """Which of the noisy labels the embeddings have."""
    photos: int = 1_000
    """Number of photos."""
    trials: tuple[Literal["photos", "embeddings", "several"], ...] = ("photos", "embeddings", "several")
    """Which of them."""


class Trial(NamedTuple):
    """Outcome of a command.

    Attributes:
      command: as the README has it.
      seconds: that it took.
      stumbles: sentences.
      rows: of labels.parquet, of the training part, by the user's row.
    """

    command: str
    seconds: float
    stumbles: list[str]
    rows: list[dict[str, Any]]


def tried(command: str, folder: Path, out: Path, given: list[str]) -> Trial:
    """Run a command in the user's folder, and join what it leaves to the user's labels."""
    assert command in (ROOT / "README.md").read_text(), command
    words = command.split()
    if words[0] == "nlx":
        words = [sys.executable, "-m", "nlx.cli", *words[1:]]
    else:
        words = [sys.executable, str(ROOT / words[1]), *words[2:]]
    began, first = time.monotonic(), None
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    told: list[str] = []
    for line in process.stdout:
        first = time.monotonic() - began if first is None else first
        told += [line.strip()] if line.startswith(("error", "warning", "Traceback")) else []
        print("   ", line.rstrip(), file=sys.stderr, flush=True)
    code = process.wait()
    first = time.monotonic() - began if first is None else first
    seconds = time.monotonic() - began
    stumbles = [f"exit code {code}"] if code else []
    stumbles += told
    stumbles += [f"{first:.0f} s without a word"] if first > _SILENCE else []
    rows = [row for row in pq.read_table(out / "labels.parquet").to_pylist() if row["split"] == "train"]
    wrong = sum((row["given"] or "") != given[row["row"]] for row in rows)
    stumbles += [f"{wrong} rows are not the user's"] if wrong else []
    stumbles += [f"{len(given) - len(rows)} rows are missing"] if len(rows) < len(given) else []
    return Trial(command, seconds, stumbles, sorted(rows, key=lambda row: int(row["row"])))


class Found(NamedTuple):
    """What a method says of labels: proposed ones, scores that are low for wrong ones, and which are wrong."""

    proposed: np.ndarray
    score: np.ndarray
    issue: np.ndarray
    seconds: float


def of_trial(trial: Trial) -> Found:
    """What a command left."""
    index = {name: c for c, name in enumerate(CLASSES)}
    proposed = np.array([index.get(row["proposed"], -1) for row in trial.rows])
    score = np.array([row["label_score"] for row in trial.rows])
    return Found(proposed, score, np.array([row["is_issue"] for row in trial.rows]), trial.seconds)


def by_logistic(x: np.ndarray, given: np.ndarray) -> Found:
    """cleanlab with probabilities of cross-validated logistic regression."""
    began = time.monotonic()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    probs = cross_val_predict(model, x, given, cv=5, method="predict_proba")
    issue = importlib.import_module("cleanlab.filter").find_label_issues(given, probs, n_jobs=1)
    score = importlib.import_module("cleanlab.rank").get_label_quality_scores(given, probs)
    return Found(np.where(issue, probs.argmax(axis=1), given), score, issue, time.monotonic() - began)


def by_datalab(x: np.ndarray, given: np.ndarray) -> Found:
    """cleanlab's Datalab on features alone."""
    began = time.monotonic()
    lab = importlib.import_module("cleanlab").Datalab(data={"y": given}, label_name="y", verbosity=0)
    lab.find_issues(features=x, issue_types={"label": {}})
    issues = lab.get_issues("label")
    issue, likeliest = issues["is_label_issue"].to_numpy(), issues["predicted_label"].to_numpy()
    score = issues["label_score"].to_numpy()
    return Found(np.where(issue, likeliest, given), score, issue, time.monotonic() - began)


def peers(x: np.ndarray, given: np.ndarray) -> dict[str, Found]:
    """What cleanlab finds, in both its ways, where it is installed."""
    if importlib.util.find_spec("cleanlab") is None:
        return {}
    found = {"cleanlab, logistic regression": by_logistic(x, given)}
    if importlib.util.find_spec("datasets") is not None:  # Datalab needs it
        found["cleanlab, Datalab on features"] = by_datalab(x, given)
    return found


def judged(found: Found, given: np.ndarray, true: np.ndarray, rows: np.ndarray | slice = slice(None)) -> str:
    """Cells of the table: labels right, AUC of "wrong", issues and their precision, seconds."""
    wrong = (given != true)[rows]
    issue, score = found.issue[rows], np.nan_to_num(found.score[rows])
    right = 100 * np.mean(found.proposed[rows] == true[rows])
    precision = f"{100 * np.mean(wrong[issue]):.1f}" if issue.any() else "–"
    auc = 100 * roc_auc_score(wrong, -score)
    return f"{right:.1f} | {auc:.1f} | {issue.sum():,} | {precision} | {found.seconds:.0f}"


def with_labels(folder: Path, labels: np.ndarray, **columns: Any) -> list[str]:
    """Write labels.csv, and return the labels as they stand there."""
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "label"])
        writer.writerows(zip(*columns.values(), labels, strict=True))
    return [str(label) for label in labels]


def photos(options: Options, folder: Path) -> list[str]:
    """1,000 pictures of 64 pixels with a CSV."""
    x, true, given = pictures(options)
    (folder / "my_pictures").mkdir()
    paths = [f"{i:04}.png" for i in range(len(x))]
    for pixels, path in zip(x, paths, strict=True):
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(folder / "my_pictures" / path)
    mine = with_labels(folder / "my_pictures", CLASSES[given], path=paths)
    trial = tried("nlx clean my_pictures/", folder, folder / "cleaned", mine)
    small = np.stack([np.asarray(Image.open(folder / "my_pictures" / p).resize((32, 32))) for p in paths])
    return lines("1,000 photos", trial, peers(patch_features(small), given), given, true)


def pictures(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, true and given labels."""
    if options.images is None or options.image_labels is None:
        x, true = load_digits(return_X_y=True)
        grey = (x.reshape(-1, 8, 8, 1) * 15).astype(np.uint8).repeat(3, axis=3)[: options.photos]
        return grey, true[: options.photos], flipped(true[: options.photos])
    with np.load(options.images) as file, np.load(options.image_labels) as labels:
        coded = file["d"][: options.photos]
        p = np.cumsum(np.cumsum(coded, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
        p[:, 0] += p[:, 1]
        p[:, 2] += p[:, 1]
        true, given = (labels[name][: options.photos].astype(int) for name in ("clean_label", "random_label1"))
    return p.transpose(0, 2, 3, 1), true, given


def flipped(true: np.ndarray) -> np.ndarray:
    """A fifth of the labels replaced."""
    rng = np.random.default_rng(0)
    return np.where(rng.uniform(size=len(true)) < 0.2, (true + rng.integers(1, 10, len(true))) % 10, true)


def embeddings(options: Options, folder: Path) -> list[str]:
    """40,000 embeddings with a CSV, and again with 5 % of the labels checked."""
    if options.features is None:
        x, true = load_digits(return_X_y=True)
        given = flipped(true)
    else:
        with np.load(options.features) as file:
            x, true = file["features"].astype(np.float32), file["label"].astype(int)
            given = file[f"noisy_{options.labels}"].astype(int)
    np.save(folder / "embeddings.npy", x)
    mine = with_labels(folder, CLASSES[given])
    plain = tried("nlx clean embeddings.npy labels.csv", folder, folder / "cleaned", mine)
    told = lines(f"{len(x):,} embeddings", plain, peers(x, given), given, true)
    checked = np.random.default_rng(0).permutation(len(x))[: len(x) // 20]
    with open(folder / "fixes.csv", "w", newline="") as file:
        csv.writer(file).writerows([("row", "label"), *((row, CLASSES[true[row]]) for row in checked)])
    command = "nlx clean embeddings.npy labels.csv --trusted=fixes.csv --out=second"
    again = tried(command, folder, folder / "second", mine)
    rest = np.setdiff1d(np.arange(len(x)), checked)
    told += lines("of which 5 % are checked", again, {}, given, true)
    told.append(f"| – the others alone, with | | {judged(of_trial(again), given, true, rest)} | |")
    told.append(f"| – the others alone, without | | {judged(of_trial(plain), given, true, rest)} | |")
    return told


def lines(name: str, trial: Trial, others: dict[str, Found], given: np.ndarray, true: np.ndarray) -> list[str]:
    """Rows of the table."""
    stumbles = "; ".join(trial.stumbles) or "none"
    told = [f"| {name} | given | {100 * np.mean(given == true):.1f} | | | | | |"]
    told.append(f"| | `{trial.command}` | {judged(of_trial(trial), given, true)} | {stumbles} |")
    return told + [f"| | {other} | {judged(found, given, true)} | |" for other, found in others.items()]


def several_labels(_: Options, folder: Path) -> list[str]:
    """Scenes with several noisy labels each, by the recipe for them: entries that are right, AUC of "one is wrong"."""
    data = web_sample()
    assert data.train.label is not None
    assert data.test is not None
    given, true = data.train.observed, data.train.label
    x, held_out = (patch_features(np.asarray(split.inputs)) for split in (data.train, data.test))
    arrays: dict[str, Any] = {"features": x, "noisy_NAME": given, "class_names": np.array(data.class_names)}
    arrays |= {"test_features": held_out, "test_label": data.test.label}
    np.savez(folder / "my_arrays.npz", **arrays)
    mine = [";".join(np.array(data.class_names)[row == 1]) for row in given]
    wrong = (given != true).any(axis=1)

    def cells(found: np.ndarray, scores: np.ndarray, seconds: float) -> str:
        return f"{100 * np.mean(found == true):.1f} | {100 * roc_auc_score(wrong, -scores):.1f} | | | {seconds:.0f}"

    told = [f"| scenes of several labels, entries | given | {100 * np.mean(given == true):.1f} | | | | | |"]
    np.save(folder / "embeddings.npy", x)
    with_labels(folder, np.array(mine))
    for command, out in (
        ("nlx clean embeddings.npy labels.csv", "cleaned"),
        ("python recipes/can.py --dataset=npz:my_arrays.npz --labels=NAME", "runs/can-my_arrays-NAME"),
    ):
        trial = tried(command, folder, folder / out, mine)
        cleaned = np.array([row["cleaned_label"] for row in trial.rows])
        score = np.nan_to_num([row["label_score"] for row in trial.rows], nan=0.5)  # an empty cell is no label
        told.append(
            f"| | `{command}` | {cells(cleaned, score, trial.seconds)} | {'; '.join(trial.stumbles) or 'none'} |"
        )
    if importlib.util.find_spec("cleanlab") is None:
        return told
    began = time.monotonic()
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=100)))
    probs = cross_val_predict(model, x, given, cv=5, method="predict_proba")
    names = [np.flatnonzero(row).tolist() for row in given]
    filters = importlib.import_module("cleanlab.multilabel_classification.filter")
    issues = filters.find_multilabel_issues_per_class(names, probs, n_jobs=1)
    quality = importlib.import_module("cleanlab.multilabel_classification").get_label_quality_scores(names, probs)
    proposed = np.where(issues, 1 - given, given)
    told.append(f"| | cleanlab, logistic regression | {cells(proposed, quality, time.monotonic() - began)} | |")
    return told


def main(options: Options) -> None:
    """Run all trials, and print the table."""
    trials: dict[str, Callable[[Options, Path], list[str]]]
    trials = {"photos": photos, "embeddings": embeddings, "several": several_labels}
    print("| trial | by | labels right, % | AUC of wrong, % | issues | of these wrong, % | seconds | stumbles |")
    print("| --- " * 8 + "|", flush=True)
    for name in options.trials:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(trials[name](options, Path(folder))), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
