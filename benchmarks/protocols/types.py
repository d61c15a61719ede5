"""Noise types: the strategies of Table 1 and 2, and how pure the most suspicious labels are (Fig. 8)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocols.common import (
    Result,
    claim,
    claim_ahead,
    over_seeds,
    paired,
    spread,
    table,
)
from benchmarks.protocols.data import EVALUATE_EVERY, features, human, pictures
from benchmarks.protocols.runner import RESULTS, Entry, Runner
from nlx.cleaning.label_files import read_labels
from nlx.report.ranking import precision_at
from nlx.transitions.confusing import CONFUSING
from recipes import noise_types
from recipes.noise_types import Strategy

STRATEGIES: tuple[Strategy, ...] = ("clean_only", "finetune", "mixed", "mixed_pretrained", "bottom_up", "noise_types")
PAPER = {"clean_only": 64.54, "finetune": 72.63, "mixed": 74.03, "mixed_pretrained": 75.30, "bottom_up": 76.22}
PAPER["noise_types"] = 78.24


def cases(runner: Runner) -> dict[str, dict[str, Any]]:
    """An instance-dependent corruption with 5 % trusted, and CIFAR-10N's worst labels with 10 % trusted."""
    stages = {"pretrain_epochs": 10, "types_epochs": 10, "epochs": 10, "evaluate_every": EVALUATE_EVERY}
    instance = pictures() | stages | {"noise": "instance:0.4", "clean_fraction": 0.05}
    by_case = {f"{instance['dataset']}, instance-dependent 0.4": instance}
    if features(runner) is not None:
        by_case["cifar10n worst, features"] = human(runner) | stages | {"clean_fraction": 0.1}
    return by_case


def table_2(runner: Runner) -> Result:
    """All strategies on both cases."""
    results: dict[str, Any] = {}
    for case, options in cases(runner).items():

        def row(strategy: Any, case: str = case, options: dict[str, Any] = options) -> dict[str, Any]:
            entry = Entry(noise_types.NoiseTypesOptions(strategy=strategy, **options), noise_types.train)
            keep = kept(runner, case) if strategy == "noise_types" else None
            return over_seeds(runner, f"{case}, {strategy}", entry, keep)

        results[case] = dict(zip(STRATEGIES, runner.map(row, STRATEGIES), strict=True))
    lines = [
        "# types-2, small: six ways to use a few trusted labels",
        "",
        f"Test accuracy in percent, mean ± standard deviation over {runner.seeds} seeds, after the last epoch. 10 "
        "epochs of each pretraining and 10 over everything, for all strategies that have such a stage; clean_only and "
        "finetune end with 10 epochs on the trusted part. Nothing is tuned. The paper's column is Clothing1M.",
        "",
        *table(
            ["strategy", "paper", *results],
            [
                [s, str(PAPER[s]), *(spread(rows[s]["last"]["test_accuracy"]) for rows in results.values())]
                for s in STRATEGIES
            ],
        ),
        "",
        "Labels recovered, of those that are not trusted:",
        "",
        *table(
            ["strategy", *results],
            [
                [s, *(spread(rows[s]["last"].get("recovery", [float("nan")])) for rows in results.values())]
                for s in STRATEGIES
            ],
        ),
        "",
    ]
    claims = []
    for case, rows in results.items():
        steps = {
            f"{a} - {b}": paired(rows[a]["last"]["test_accuracy"], rows[b]["last"]["test_accuracy"])
            for a, b in pairwise(("noise_types", "bottom_up", "mixed", "clean_only"))
        }
        last = {"mixed - clean_only": steps.pop("mixed - clean_only")}
        claims += [
            claim_ahead(f"types-2, {case}: noise types >= bottom-up >= mixed (within a point)", steps, -0.01),
            claim_ahead(f"types-2, {case}: mixed > clean only", last),
        ]
    return Result({"results": results}, "\n".join(lines), claims)


def fig8(runner: Runner) -> Result:
    """Share of truly mislabelled examples among the most suspicious 100, 500 and 2,000."""
    ks = np.array([100, 500, 2000])
    rows: dict[str, dict[str, list[list[float]]]] = {}
    for case, options in cases(runner).items():
        entry = Entry(noise_types.NoiseTypesOptions(**options), noise_types.train)
        over_seeds(runner, f"{case}, noise_types", entry, kept(runner, case))
        rows[case] = {}
        for seed in range(runner.seeds):
            for score, values in precisions(kept(runner, case)(seed), ks).items():
                rows[case].setdefault(score, []).append(values)
    lines = [
        "# types-fig8, small: wrong labels among the most suspicious",
        "",
        f"Percent of wrong labels among the k that rank first, mean over {runner.seeds} seeds. The paper: about 80 in "
        "the top 500 by q(z = confusing), on Clothing1M. Examples that are not trusted.",
        "",
    ]
    for case, by_score in rows.items():
        shown = [[name, *(f"{100 * np.mean(v, axis=0)[i]:.1f}" for i in range(3))] for name, v in by_score.items()]
        lines += [case + ":", "", *table(["score", *(f"top {k}" for k in ks)], shown), ""]
    claims = []
    for case, by_score in rows.items():
        top = float(np.mean([v[1] for v in by_score["q(z = confusing)"]]))
        text = f"types-fig8, {case}: about 80 % of the top 500 by q(z = confusing) are wrong (at least 75 here)"
        claims.append(claim(text, top >= 0.75, f"{100 * top:.1f}"))
    return Result({"results": rows}, "\n".join(lines), claims)


def kept(runner: Runner, case: str) -> Callable[[int], Path]:
    """Where the labels of a seed's run are kept, which both protocols use."""
    name = case.replace(" ", "_").replace(",", "")
    return lambda seed: RESULTS / "runs" / f"{name}-{seed}{'-quick' if runner.quick else ''}.parquet"


def precisions(path: Path, ks: np.ndarray) -> dict[str, list[float]]:
    """Precision among the top k for each score that a run's labels give."""
    labels = read_labels(path)
    assert labels.true_label is not None
    others = ~labels.extras["trusted"]
    wrong = (labels.noisy_label != labels.true_label)[others]
    scores = {
        "q(z = confusing)": labels.extras["noise_type"][others, CONFUSING],
        "1 - q(given label)": 1 - labels.label_score[others],
    }
    return {name: precision_at(values, wrong, ks).tolist() for name, values in scores.items()}
