"""Several labels to an example: what nlx.clean recovers, and how well it ranks examples with a wrong entry.

python benchmarks/several.py                                # scenes of digits: a minute on two cores
python benchmarks/several.py --features=cifar10n.npz        # and attributes of CIFAR-10's classes with planted noise
Beside it what its own sigmoids in folds say without Bayes' rule, and cleanlab (pip install -e '.[bench]') with
cross-validated logistic regression. An example is wrong where one of its entries is.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nlx
from nlx.cleaning.pictures import patch_features
from nlx.data.sources.scenes import web_sample

Case = tuple[str, np.ndarray, np.ndarray, np.ndarray]
ATTRIBUTES = {
    "animal": (2, 3, 4, 5, 6, 7),
    "wings": (0, 2),
    "wheels": (1, 9),
    "four legs": (3, 4, 5, 7),
    "at water": (6, 8),
    "at home": (3, 5),
    "hooves": (4, 7),
    "no road": (0, 8),
}
"""Of CIFAR-10's classes by number."""
PLANTED = ((1_000, 0.2, 0.05), (4_000, 0.3, 0.05), (4_000, 0.1, 0.1), (40_000, 0.2, 0.05))
"""Examples, share of an attribute's labels that are missing, and of the others that are spurious."""


@dataclass(frozen=True)
class Options:
    """What to try."""

    features: Path | None = None
    """CIFAR-10 as features, with true labels."""
    seeds: int = 3
    """Seeds of planted noise and of folds."""


def cases(options: Options, seed: int) -> Iterator[Case]:
    """Name, inputs, given and true labels."""
    scenes = web_sample().train
    assert scenes.label is not None
    yield "scenes of digits", patch_features(np.asarray(scenes.inputs)), scenes.observed, scenes.label
    if options.features is None:
        return
    with np.load(options.features) as file:
        x, label = file["features"].astype(np.float32), file["label"]
    has = np.stack([np.isin(np.arange(10), classes) for classes in ATTRIBUTES.values()], axis=1)
    for n, missing, spurious in PLANTED:
        true = has[label[:n]].astype(np.uint8)
        flipped = np.random.default_rng(seed).random(true.shape) < np.where(true == 1, missing, spurious)
        name = f"attributes, {n:,}, {missing:.0%} missing, {spurious:.0%} spurious"
        yield name, x[:n], np.where(flipped, 1 - true, true).astype(np.uint8), true


def judged(case: Case, seed: int) -> dict[str, list[float]]:
    """Percent of entries right, and of area under the curve of "an entry is wrong", by method."""
    _, x, given, true = case
    wrong = (given != true).any(axis=1)

    def of(cleaned: np.ndarray, score: np.ndarray) -> list[float]:
        return [100 * float(np.mean(cleaned == true)), 100 * float(roc_auc_score(wrong, -score))]

    table = nlx.clean(x, given, seed=seed)
    alone = table.extras["out_of_fold"]
    entries = np.log(np.clip(np.where(given == 1, alone, 1 - alone), 1e-12, 1)).sum(axis=1)
    found = {"given": [100 * float(np.mean(given == true))], "nlx.clean": of(table.cleaned_label, table.label_score)}
    found["its sigmoids alone"] = of(alone >= 0.5, entries)
    if importlib.util.find_spec("cleanlab"):
        of_several = importlib.import_module("cleanlab.multilabel_classification")
        issues = importlib.import_module("cleanlab.multilabel_classification.filter")
        model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=100)))
        probs = cross_val_predict(model, x, given, cv=5, method="predict_proba")
        names = [np.flatnonzero(row).tolist() for row in given]
        changed = issues.find_multilabel_issues_per_class(names, probs, n_jobs=1)
        quality = of_several.get_label_quality_scores(names, probs)
        found["cleanlab"] = of(np.where(changed, 1 - given, given), quality)
    return found


def main(options: Options) -> None:
    """Print the table: means over seeds, entries right and (AUC)."""
    found: dict[str, list[dict[str, list[float]]]] = {}
    for seed in range(options.seeds):
        for case in cases(options, seed):
            found.setdefault(case[0], []).append(judged(case, seed))
    methods = list(next(iter(found.values()))[0])
    print(f"| set | {' | '.join(methods)} |")
    print("| --- " * (len(methods) + 1) + "|")
    for name, seeds in found.items():
        means = {method: np.mean([rows[method] for rows in seeds], axis=0) for method in methods}
        cells = [f"{m[0]:.1f}" + (f" ({m[1]:.1f})" if len(m) > 1 else "") for m in means.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
