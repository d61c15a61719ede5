"""What every system gives by its recipe's defaults, on sets of many kinds: never worse than what it was given.

CIFAR-10N's features with all of their examples are the leaderboard's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocols.common import Claim, Result, claim, paired, spread, table
from benchmarks.protocols.data import EVALUATE_EVERY, features
from benchmarks.protocols.peers import CLEANLAB, cleanlab
from benchmarks.protocols.runner import RESULTS, Entry, Runner
from nlx.cleaning.second_opinion import helped
from nlx.data.sources.idx import DEBIAN
from nlx.files import replacing
from recipes import baseline, can, crf, distill, elr, linear, noise_layer, noise_types, self_learning

OURS, PLAIN, WEB = "distillation", "plain", "web/sample, several labels each"
TRUSTED: dict[str, Any] = {"clean_fraction": 0.1}  # for the systems that cannot do without
SYSTEMS: dict[str, Entry] = {
    OURS: Entry(distill.DistillOptions(), distill.train),
    PLAIN: Entry(baseline.BaselineOptions(), baseline.train),
    "NI-ERM": Entry(linear.LinearOptions(), linear.train),
    "generalized CE": Entry(baseline.BaselineOptions(loss="generalized_ce"), baseline.train),
    "ELR": Entry(elr.ELROptions(), elr.train),
    "CAN": Entry(can.CANOptions(), can.train),
    "noise layer": Entry(noise_layer.NoiseLayerOptions(), noise_layer.train),
    "self-learning": Entry(self_learning.SelfLearningOptions(), self_learning.train),
    "noise types, 10 % trusted": Entry(noise_types.NoiseTypesOptions(**TRUSTED), noise_types.train),
    "CRF, 10 % trusted": Entry(crf.CRFOptions(transition="trusted", **TRUSTED), crf.train),
}
SEVERAL_LABELS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "CAN": {},
    "noise layer": {},
    "CRF, 10 % trusted": {"transition": None},
}
"""The systems for several labels to an example, and what they cannot take there."""
MEASURES = (
    ("Test accuracy", "test"),
    ("Training labels that are right, cleaned", "cleaned"),
    ("Area under the ROC curve of 'is this label wrong'", "auc"),
)
PEERS = {"cleaned": "recovery", "auc": "issue_auc"}
"""What cleanlab is measured by as well, as it calls it there."""


def points(sizes: tuple[int, ...], spread_of_centres: float, dim: int, rate: float) -> dict[str, np.ndarray]:
    """Gaussian classes around random centres, with a share of the labels moved to any other class."""
    rng, num_classes = np.random.default_rng(0), len(sizes)
    centres = rng.standard_normal((num_classes, dim)) * spread_of_centres
    label, test_label = np.repeat(np.arange(num_classes), sizes), np.repeat(np.arange(num_classes), 50)
    rng.shuffle(label)
    wrong = rng.random(len(label)) < rate
    noisy = np.where(wrong, (label + rng.integers(1, num_classes, len(label))) % num_classes, label)
    inputs, test = (centres[y] + rng.standard_normal((len(y), dim)) for y in (label, test_label))
    named = {"features": inputs, "label": label, "noisy_label": noisy, "test_features": test, "test_label": test_label}
    return {name: a.astype(np.float32 if a.dtype == float else np.int32) for name, a in named.items()}


def part_of_features(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some training examples of CIFAR-10N as features, and all test examples."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    size = len(arrays["features"])
    return {n: a[rows] if len(a) == size and not n.startswith("test") else a for n, a in arrays.items()}


def long_tail(path: Path) -> np.ndarray:
    """Rows of CIFAR-10N in which class k has 3000 / 50^(k / 9) examples."""
    with np.load(path) as file:
        label = file["label"]
    each = [np.flatnonzero(label == k)[: round(3000 * 50 ** (-k / 9))] for k in range(10)]
    return np.sort(np.concatenate(each))


def cases(runner: Runner) -> dict[str, dict[str, Any]]:
    """Options that name the data, by the set's name."""

    def stored(name: str, arrays: dict[str, Any]) -> str:
        path = RESULTS / "runs" / f"{name}.npz"
        with replacing(path) as file:
            np.savez(file, **arrays)
        return f"npz:{path}"

    listed: dict[str, dict[str, Any]] = {
        "950/30/20 points, 8 % wrong": {"dataset": stored("points-rare", points((950, 30, 20), 4.0, 8, 0.08))},
        "100 classes of 50, 30 % wrong": {"dataset": stored("points-100", points((50,) * 100, 1.0, 32, 0.3))},
        "digits, symmetric 0.4": {"dataset": "digits", "noise": "symmetric:0.4"},
        "digits, none wrong": {"dataset": "digits", "noise": "none"},
        WEB: {"dataset": "web"},
    }
    if DEBIAN.exists():
        fashion = {"dataset": "fashion_mnist", "training_fraction": 0.1}
        listed["6,000 of Fashion-MNIST, pair 0.3"] = fashion | {"noise": "pair:0.3"}
    if (path := features(runner)) is not None:
        few, tail = part_of_features(path, np.arange(500)), part_of_features(path, long_tail(path))
        listed |= {
            "500 features, random1": {"dataset": stored("features-500", few), "labels": "random1"},
            "features 1:50, aggregate": {"dataset": stored("features-tail", tail), "labels": "aggregate"},
        }
    quick = ("950/30/20 points, 8 % wrong", "digits, symmetric 0.4", "500 features, random1")
    return {name: options for name, options in listed.items() if not runner.quick or name in quick}


def defaults(runner: Runner) -> Result:
    """Test accuracy, cleaned labels and what the guard says, for every system on every set."""
    results: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for case, data in cases(runner).items():

        def row(name: str, case: str = case, data: dict[str, Any] = data) -> dict[str, list[Any]]:
            """Of each seed: the last epoch's test accuracy, right labels given and cleaned, the guard's verdict."""
            more = SEVERAL_LABELS[name] if case == WEB else {}
            entry = SYSTEMS[name].but(**data, evaluate_every=EVALUATE_EVERY, **more)
            drawn = ({"seed": s, **({"noise_seed": s} if "noise" in data else {})} for s in range(runner.seeds))
            runs = [runner(f"{case}, {name}, seed {seeds['seed']}", entry.but(**seeds)) for seeds in drawn]
            return {
                "test": [run["last"]["test_map" if case == WEB else "test_accuracy"] for run in runs],
                "given": [run["given_label_recovery"] for run in runs],
                "cleaned": [run["last"]["recovery"] for run in runs],
                "auc": [run["last"].get("issue_auc", math.nan) for run in runs],
                "joined": [helped(run["cleaned_with"]) for run in runs],
                "verdict": [run["guard"]["verdict"] for run in runs],
                "missed": [run["guard"].get("classes_unpredicted", []) for run in runs],
                "own_verdict": [run["guard"].get("own", run["guard"])["verdict"] for run in runs],
            }

        names = list(SEVERAL_LABELS if case == WEB else SYSTEMS)
        results[case] = dict(zip(names, runner.map(row, names), strict=True))
        if case != WEB and (peer := cleanlab(runner, case, data, fresh_noise="noise" in data)) is not None:
            theirs[case] = peer
    lines = [
        "# defaults, small: every system by its recipe's defaults",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds, after the last epoch; no option is set, but "
        "for the data. Points are Gaussian classes; features are CIFAR-10N's, `1:50` with a long tail. On web/sample "
        "test accuracy is mean average precision, and only systems that take several labels to an example are there.",
        "",
    ]
    for title, measure in MEASURES:
        beside = [CLEANLAB] if measure in PEERS and theirs else []
        shown = [
            [
                case,
                *([spread(rows[PLAIN]["given"])] if measure == "cleaned" else []),
                *(shown_of(rows.get(name), measure) for name in SYSTEMS),
                *(spread(theirs[case][PEERS[measure]]) if case in theirs else "" for _ in beside),
            ]
            for case, rows in results.items()
            if measure != "auc" or not np.isnan(rows[PLAIN]["auc"]).all()
        ]
        heading = ["set", *(["given"] if measure == "cleaned" else []), *SYSTEMS, *beside]
        lines += [f"{title}:", "", *table(heading, shown), ""]
    lines += [
        "(!): the run itself warned, in at least one seed, that its cleaned labels look worse than the given ones. "
        "(j): it found its own no better than the given ones in at least one seed, and linear models in folds helped. "
        "(m): it warned that its classifier hardly ever predicts some class.",
        "",
    ]
    content = {"results": results, "cleanlab": theirs}
    return Result(content, "\n".join(lines), claims_of(results, theirs))


def shown_of(row: dict[str, list[Any]] | None, measure: str) -> str:
    """A cell of the table; none for a system that does not take such data."""
    if row is None or np.isnan(row[measure]).all():
        return ""
    marks = (" (!)" if "worse" in row["verdict"] else "") + (" (j)" if any(row["joined"]) else "")
    missed = " (m)" if any(row["missed"]) else ""
    return spread(row[measure]) + (marks if measure in PEERS else missed)


def claims_of(results: dict[str, Any], theirs: dict[str, Any]) -> list[Claim]:
    """Of labels that a run calls better none are worse, plain training is not ahead without a warning, and so on."""
    below, behind, small, ranked = [], [], [], []
    for case, rows in results.items():
        for name, row in rows.items():
            gain, ahead = paired(row["cleaned"], row["given"]), paired(row["test"], rows[PLAIN]["test"])
            if gain["mean"] < 0 and gain["verdict"] == "behind" and "better" in row["verdict"]:
                below.append(f"{name} on {case} {100 * gain['mean']:+.1f}")
            told = "worse" in row["own_verdict"] or any(row["missed"])
            if ahead["mean"] < 0 and ahead["verdict"] == "behind" and not told:
                behind.append(f"{name} on {case} {100 * ahead['mean']:+.1f}")
            if name != PLAIN and np.mean(row["given"]) <= 0.8 and gain["mean"] < 0.05:
                small.append(f"{name} on {case} {100 * gain['mean']:+.1f}")
    for case, row in theirs.items():
        if not np.isnan(row["issue_auc"]).all():
            ours = paired(results[case][OURS]["auc"], row["issue_auc"])
            ranked += [f"{case} {100 * ours['mean']:+.1f}"] if ours["verdict"] == "behind" else []
    claims = [
        claim(
            "cleaned labels are never below the given ones where a run calls them better",
            not below,
            "; ".join(below) or "none",
        ),
        claim(
            "test accuracy is never below plain training's without a warning", not behind, "; ".join(behind) or "none"
        ),
        claim(
            "where 20 % or more are wrong, every system gains 5 points or more", not small, "; ".join(small) or "all"
        ),
    ]
    if theirs:
        claims.append(
            claim(f"{OURS} never ranks wrong labels worse than cleanlab", not ranked, "; ".join(ranked) or "none")
        )
    return claims
