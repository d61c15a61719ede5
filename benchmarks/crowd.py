"""Consensus of several people's answers beside crowd-kit's and cleanlab's: real crowds, planted ones, and ten million.

python benchmarks/crowd.py real --answers=crowd.npz            # item, worker, label, truth: seconds
python benchmarks/crowd.py features --features=cifar10n.npz    # label, noisy_random1 to 3, features: minutes
python benchmarks/crowd.py planted                             # crowds whose matrices are known: minutes
python benchmarks/crowd.py scale                               # 10^4 to 10^7 answers, and on eight devices: minutes

Each part is recorded in benchmarks/results/crowd.json, all of them in benchmarks/results/crowd.md. The peers come with
pip install -e '.[bench]'; a part is run without them where they are missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kernels.calibration import consensus_of_numbers, planted_table, sureness_table
from benchmarks.kernels.crowd import Answers, one, table_of_sizes
from nlx import crowd
from nlx.cleaning.label_files import read_labels
from nlx.data import Dataset, Split, load
from nlx.data.crowds import planted_crowd
from nlx.experiment.main import run_recipe
from nlx.files import replacing
from recipes import crowd as recipe

RESULTS = Path(__file__).parent / "results"
MODELS: dict[str, Callable[..., Any]] = {
    "Dawid-Skene": crowd.dawid_skene,
    "Dawid-Skene, no pull": lambda *a, **o: crowd.dawid_skene(*a, **o, strength=0.0),
    "one-coin": crowd.one_coin,
    "MACE": crowd.mace,
    "GLAD": crowd.glad,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "EM": {"folds": 0},
    "EM, 5 folds": {"folds": 5},
    "CrowdLayer": {"method": "crowd_layer"},
    "CoNAL": {"method": "conal"},
}
PEERS = ("MajorityVote", "DawidSkene", "OneCoinDawidSkene", "GLAD", "MACE", "MMSR")


@dataclass(frozen=True)
class Real:
    """Answers of real people, without features."""

    answers: Path
    """An .npz with item, worker and label of each answer, and the truth of each item."""


@dataclass(frozen=True)
class Features:
    """Three people's answers to pictures, with features of these."""

    features: Path
    """An .npz with features, label, noisy_random1, noisy_random2 and noisy_random3."""
    examples: int = 5_000
    """How many of them."""
    seeds: tuple[int, ...] = (0, 1)
    """Which of them, and of training."""


@dataclass(frozen=True)
class Planted:
    """Crowds whose true labels and matrices are known."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the crowds."""


@dataclass(frozen=True)
class Scale:
    """Seconds and memory of an iteration of Dawid-Skene."""

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)
    """Answers; a tenth as many items, a thousandth as many annotators, ten classes."""
    peer: int = 1_000_000
    """The most answers that crowd-kit is given."""
    one: Literal["nlx", "crowd-kit", ""] = ""
    """Time one system on the first size in this process, and print its figures alone."""


def shares(right: np.ndarray, best: np.ndarray) -> str:
    """Percent right, and how much more than another with the 95 % interval of that."""
    more = right.astype(float) - best
    half = 1.96 * more.std() / np.sqrt(len(more))
    return f"{100 * right.mean():.2f} | {100 * more.mean():+.2f} ± {100 * half:.2f}"


def peers_of(answers: Answers, n: int) -> dict[str, np.ndarray]:
    """Labels by crowd-kit's and cleanlab's methods that need no features, int ``[n]``."""
    if not (importlib.util.find_spec("crowdkit") and importlib.util.find_spec("cleanlab")):
        return {}
    pandas, kit = importlib.import_module("pandas"), importlib.import_module("crowdkit.aggregation")
    table = pandas.DataFrame(dict(zip(("task", "worker", "label"), answers, strict=True)))
    found = {f"crowd-kit {name}": getattr(kit, name)().fit_predict(table).reindex(range(n)) for name in PEERS}
    wide = table.pivot_table(index="task", columns="worker", values="label", aggfunc="last")
    vote = importlib.import_module("cleanlab.multiannotator").get_majority_vote_label
    return {name: np.asarray(label) for name, label in found.items()} | {"cleanlab majority": np.asarray(vote(wide))}


def consensus_of(answers: Answers, n: int, k: int) -> dict[str, np.ndarray]:
    """Posteriors by nlx's methods that need no features, float ``[n, K]``, and the majority's shares."""
    sizes = {"num_items": n, "num_annotators": int(answers[1].max()) + 1, "num_classes": k}
    counts = np.asarray(crowd.majority_vote(answers[0], answers[2], num_items=n, num_classes=k).counts)
    found = {name: np.asarray(fit(*answers, **sizes).posterior) for name, fit in MODELS.items()}
    shares = counts / counts.sum(axis=1, keepdims=True)
    return {"majority": shares, **found, "consensus": consensus_of_numbers(answers, n, k).posterior}


def ranked(found: dict[str, np.ndarray], truth: np.ndarray) -> list[str]:
    """A table of methods, each beside the best of crowd-kit's and cleanlab's, or of nlx's where there is none."""
    right = {name: np.asarray(label) == truth for name, label in found.items()}
    theirs = [name for name in right if not name.startswith("nlx")] or list(right)
    best = max(theirs, key=lambda name: right[name].mean())
    rows = [f"| {name} | {shares(right[name], right[best])} |" for name in right]
    return [f"| method | % right | more than {best} |", "| --- | --- | --- |", *rows]


def real(options: Real) -> list[str]:
    """Every method on answers of real people."""
    with np.load(options.answers) as file:
        truth, worker = file["truth"].astype(int), np.unique(file["worker"], return_inverse=True)[1]
        answers = file["item"].astype(np.int32), worker.astype(np.int32), file["label"].astype(np.int32)
    n, k = len(truth), int(truth.max()) + 1
    ours = {f"nlx {name}": q.argmax(axis=1) for name, q in consensus_of(answers, n, k).items()}
    head = f"{options.answers.stem}: {len(worker):,} answers by {np.max(worker) + 1} people to {n} items, {k} classes"
    return [head, "", *ranked(peers_of(answers, n) | ours, truth), "", *sureness_table(answers, n, k, truth)]


def features(options: Features) -> list[str]:
    """Three answers an item, with features: what sees them, and what does not."""
    told: dict[str, list[np.ndarray]] = {}
    truths = []
    for seed in options.seeds:
        with np.load(options.features) as file:
            rows = np.random.default_rng(seed).permutation(len(file["label"]))[: options.examples]
            x, truth = file["features"][rows].astype(np.float32), file["label"][rows].astype(np.int32)
            said = np.stack([file[f"noisy_random{i}"][rows] for i in (1, 2, 3)], axis=1).astype(np.int32)
        n, k = len(truth), 10
        answers = np.repeat(np.arange(n), 3).astype(np.int32), np.tile(np.arange(3), n).astype(np.int32), said.ravel()
        found = peers_of(answers, n) | crowdlab(x, said)
        found |= {f"nlx {name}": q.argmax(axis=1) for name, q in consensus_of(answers, n, k).items()}
        data = Dataset("cifar10n/crowd", tuple(map(str, range(k))), Split(x, said[:, 0].copy(), truth), None)
        for name, more in SYSTEMS.items():
            with tempfile.TemporaryDirectory() as folder:
                np.save(f"{folder}/said.npy", said)
                run = recipe.CrowdOptions(
                    answers=f"{folder}/said.npy", seed=seed, run_dir=Path(folder) / "run", evaluate_every=1000, **more
                )
                run_recipe(run, recipe.train, data=data, pictures=False)
                table = read_labels(f"{folder}/run/labels.parquet")
            q: Any = table.extras.get("crowd_posterior", table.posterior)
            found[f"nlx {name}, with features"] = q.argmax(axis=1)
        for name, label in found.items():
            told.setdefault(name, []).append(label)
        truths.append(truth)
    sure = sureness_table(answers, n, k, truth)
    joined = {name: np.concatenate(labels) for name, labels in told.items()}
    head = f"{options.features.stem}: {options.examples:,} pictures, three answers each, {len(options.seeds)} draws"
    last = "How sure beliefs are that see no features, in the last draw:"
    return [head, "", *ranked(joined, np.concatenate(truths)), "", last, "", *sure]


def crowdlab(x: np.ndarray, said: np.ndarray) -> dict[str, np.ndarray]:
    """cleanlab's CROWDLAB, with logistic regression out of fold on the majority's labels."""
    if not importlib.util.find_spec("cleanlab"):
        return {}
    lab = importlib.import_module("cleanlab.multiannotator")
    table = importlib.import_module("pandas").DataFrame(said)
    vote, scaled = lab.get_majority_vote_label(table), StandardScaler().fit_transform(x)
    model = LogisticRegression(C=0.01, max_iter=300)
    probs = cross_val_predict(model, scaled, vote, cv=5, method="predict_proba")
    quality = lab.get_label_quality_multiannotator(table, probs, verbose=False)
    label = quality["label_quality"]["consensus_label"].to_numpy()
    return {"cleanlab CROWDLAB, with features": label, "logistic regression, with features": probs.argmax(axis=1)}


def planted(options: Planted) -> list[str]:
    """Crowds of 50 people, 1 to 5 answers an item; and one answer each by 500 people, with features."""
    return [*planted_table(options.seeds), "", *_one_answer_each(options)]


def _one_answer_each(options: Planted) -> list[str]:
    """scikit-learn's digits, one answer each by one of 500 people, of whom most answer three or four times."""
    rows: dict[str, list[float]] = {}
    for seed in options.seeds:
        data = load("digits", noise="symmetric:0.1")
        truth = data.train.label
        assert truth is not None
        made = planted_crowd(truth, 10, per_item=1, annotators=500, seed=seed)
        names = np.array(data.class_names)
        with tempfile.TemporaryDirectory() as folder:
            table = {"item": made.item, "annotator": made.annotator, "label": names[made.label]}
            pq.write_table(pa.table(table), f"{folder}/said.parquet")
            for name, more in SYSTEMS.items():
                run = recipe.CrowdOptions(
                    answers=f"{folder}/said.parquet", seed=seed, run_dir=Path(folder) / name, epochs=30, **more
                )
                last = run_recipe(run, recipe.train, data=data, pictures=False)["last"]
                rows.setdefault(name, []).append(last["test_accuracy"])
        rows.setdefault("answers as they are", []).append(float(np.mean(made.label == truth[made.item])))
    head = f"digits, {len(made.item):,} items with one answer each by 500 people, 60 % of them skilled: test accuracy"
    told = ", ".join(f"{name} {100 * np.mean(x):.1f} ± {100 * np.std(x):.1f}" for name, x in rows.items())
    return [f"{head}: {told}."]


def scale(options: Scale) -> list[str]:
    """Seconds and memory by size."""
    return table_of_sizes(options.sizes, options.peer)


Part = (
    Annotated[Real, tyro.conf.subcommand("real")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Planted, tyro.conf.subcommand("planted")]
    | Annotated[Scale, tyro.conf.subcommand("scale")]
)
TABLES: dict[type, Callable[[Any], list[str]]] = {Real: real, Features: features, Planted: planted, Scale: scale}


def main(options: Part) -> None:
    """Run a part, print its table, and record it beside the others."""
    if isinstance(options, Scale) and options.one:
        print(json.dumps(one(options.one, options.sizes[0])))
        return
    lines, name, path = TABLES[type(options)](options), type(options).__name__.lower(), RESULTS / "crowd.json"
    print("\n".join(lines))
    parts = json.loads(path.read_text()) if path.exists() else {}
    told = " ".join(re.sub(r"=.*/", "=", word) for word in sys.argv[1:])
    parts[name] = {"lines": lines, "command": f"python benchmarks/crowd.py {told}", "jax": jax.__version__}
    with replacing(path) as file:
        file.write(json.dumps(parts, indent=1).encode())
    with replacing(path.with_suffix(".md")) as file:
        pages = [
            "\n".join([f"## {n.capitalize()}", "", f"`{part['command']}`, jax {part['jax']}", "", *part["lines"]])
            for n, part in sorted(parts.items())
        ]
        file.write(("# Crowds\n\n" + "\n\n".join(pages) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Part, description=__doc__, use_underscores=True))
