"""Labels that nlx.clean recovers and how well it ranks wrong ones, beside cross-validated logistic regression.

python benchmarks/cleaning.py --seeds 0                        # digits and points: 2 minutes on two cores
python benchmarks/cleaning.py --features=cifar10n.npz          # and human noise: an .npz with features, label and
                                                               # noisy_worst, noisy_random1, noisy_aggregate
The peers see the same features, standardized, and what they say of an example comes from a model that has not seen its
label. `logistic` takes the class that it holds for likeliest; `cleanlab` (pip install -e '.[bench]') takes it where it
finds a label issue, and the given label elsewhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nlx
from benchmarks import promises

_STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C, of which the noisy labels choose
_TRIED = 5_000  # examples that it is chosen on


@dataclass(frozen=True)
class Options:
    """What to try."""

    features: Path | None = None
    """Features with human labels."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of noise, subsets and folds."""
    whole: bool = True
    """All of FEATURES as well, not only parts of it."""
    only: str = ""
    """Of the sets, those whose name contains this."""


def peers(x: np.ndarray, given: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Cleaned labels, and scores that are low for wrong ones, of each peer."""
    folds, some = StratifiedKFold(5, shuffle=True, random_state=seed), np.random.default_rng(seed).permutation(len(x))
    some = some[:_TRIED]

    def model(strength: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))

    scores = [cross_val_score(model(c), x[some], given[some], cv=3).mean() for c in _STRENGTHS]
    best = _STRENGTHS[int(np.argmax(scores))]
    probs = cross_val_predict(model(best), x, given, cv=folds, method="predict_proba")
    score, likeliest = probs[np.arange(len(given)), given], probs.argmax(axis=1)
    found = {"logistic": (likeliest, score)}
    if importlib.util.find_spec("cleanlab"):
        issues = importlib.import_module("cleanlab.filter").find_label_issues(given, probs, n_jobs=1)
        quality = importlib.import_module("cleanlab.rank").get_label_quality_scores(given, probs)
        found["cleanlab"] = (np.where(issues, likeliest, given), quality)
    return found


def ours(x: np.ndarray, given: np.ndarray, seed: int, network: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same of nlx.clean."""
    names = [str(i) for i in range(int(given.max()) + 1)]
    table = nlx.clean(x, given, seed=seed, class_names=names, network=network)
    return table.cleaned_label, table.label_score


def judged(x: np.ndarray, given: np.ndarray, true: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Percent of labels right, area under the curve of "wrong" in percent, and seconds, by method."""
    rows: dict[str, list[float]] = {"given": [100 * np.mean(given == true), 50.0, 0.0]}
    began = time.monotonic()
    theirs = peers(x, given, seed)
    rows |= {name: [*measured(*found, given, true), time.monotonic() - began] for name, found in theirs.items()}
    for name, network in (("nlx.clean", False), ("with network", True)):
        began = time.monotonic()
        found = ours(x, given, seed, network)
        rows[name] = [*measured(*found, given, true), time.monotonic() - began]
    return rows


def measured(cleaned: np.ndarray, score: np.ndarray, given: np.ndarray, true: np.ndarray) -> list[float]:
    """Percent of labels right after cleaning, and area under the curve of "wrong"."""
    return [100 * np.mean(cleaned == true), 100 * float(roc_auc_score(given != true, -np.asarray(score)))]


def main(options: Options) -> None:
    """Print the table: means over seeds, labels right and (AUC)."""
    found: dict[str, list[dict[str, list[float]]]] = {}
    for seed in options.seeds:
        tried = list(promises.sets(promises.Options(features=options.features), seed))
        if options.whole and options.features is not None:
            with np.load(options.features) as file:
                x, y = file["features"].astype(np.float32), file["label"].astype(int)
                tried += [
                    (f"human, {n}, all", x, file[f"noisy_{n}"].astype(int), y)
                    for n in ("worst", "random1", "aggregate")
                ]
        for name, x, given, true in (s for s in tried if options.only in s[0]):
            found.setdefault(name, []).append(judged(x, given, true, seed))
    methods = list(next(iter(found.values()))[0])
    print(f"| set | {' | '.join(methods)} | seconds: {', '.join(methods[1:])} |")
    print("| --- " * (len(methods) + 2) + "|")
    for name, seeds in found.items():
        mean = {method: np.mean([rows[method] for rows in seeds], axis=0) for method in methods}
        cells = [f"{mean['given'][0]:.1f}", *(f"{mean[m][0]:.1f} ({mean[m][1]:.1f})" for m in methods[1:])]
        print(f"| {name} | {' | '.join(cells)} | {', '.join(f'{mean[m][2]:.1f}' for m in methods[1:])} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
