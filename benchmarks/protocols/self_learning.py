"""Self-learning's tables: label accuracy over corrections, members, selection, prototypes and alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.protocols.common import (
    Entry,
    Result,
    Runner,
    claim,
    claim_ahead,
    features,
    interval,
    over_seeds,
    paired,
    spread,
    table,
)
from benchmarks.protocols.layer import human
from recipes import baseline, self_learning

PLAIN, SMP = "plain", "SMP"
FALLING = ", falling rate"
PAPER_3 = {320: 74.37, 1280: 74.45, 2560: 74.27}
PAPER_4 = {"density": 74.45, "kmeans": 74.08, "density_peaks": 74.11}


def smp(runner: Runner, **options: Any) -> Entry:
    """Self-learning on CIFAR-10N's worst labels."""
    return Entry(self_learning.SelfLearningConfig(**{**human(runner), **options}), self_learning.RECIPE)


def missing(runner: Runner, name: str) -> Result:
    """Where the data are not there."""
    path = runner.shared / "data" / "cifar10n_features.npz"
    return Result({}, f"# {name}, small\n\nNot run: {path} is not there.\n", [])


def self_2(runner: Runner) -> Result:
    """Table 2: right labels as given, after the first correction and after the last."""
    if features(runner) is None:
        return missing(runner, "self-2")
    plain = Entry(baseline.BaselineConfig(**human(runner)), baseline.RECIPE)
    entries = {PLAIN: plain, SMP: smp(runner)}
    entries |= {name + FALLING: entry.but(schedule="step") for name, entry in entries.items()}
    rows = {name: over_seeds(runner, name, entry) for name, entry in entries.items()}
    shown = []
    for name, row in rows.items():
        last = row["last"]
        first = spread(last["recovery_first_label"]) if "recovery_first_label" in last else ""
        end = spread(last["recovery_corrected_label"]) if "recovery_corrected_label" in last else ""
        best = spread(row["best"]["test_accuracy"])
        shown.append([name, first, end, spread(last["recovery"]), spread(last["test_accuracy"]), best])
    given = 100 * rows[PLAIN]["given_label_recovery"]
    lines = [
        "# self-2, small: labels corrected by prototypes, CIFAR-10N's worst labels as features",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds; {given:.1f} % of the given labels are right. "
        "The paper, on Clothing1M: 61.74 given, 74.38 after the first correction, 77.36 at the end; accuracy 69.54 "
        "plain, 74.45 SMP. A constant learning rate of 0.05, and one that falls to a tenth twice.",
        "",
        *table(["method", "first correction", "last correction", "cleaned labels", "test accuracy", "best"], shown),
        "",
    ]
    gain = paired(rows[SMP]["last"]["test_accuracy"], rows[PLAIN]["last"]["test_accuracy"])
    claims = [claim("SMP is above plain training by 8 points, constant rate", gain["mean"] >= 0.08, interval(gain))]
    for end, text in (("", "at a constant rate"), (FALLING, "at a falling rate")):
        ours = rows[SMP + end]["last"]
        gain = paired(ours["test_accuracy"], rows[PLAIN + end]["last"]["test_accuracy"])
        rise = paired(ours["recovery_corrected_label"], ours["recovery_first_label"])
        claims += [
            claim_ahead(f"self-1, {text}: SMP beats plain training", {"SMP - plain": gain}),
            claim_ahead(
                f"self-2, {text}: more labels are right after the last correction than the first",
                {"last - first": rise},
            ),
            claim(
                f"self-2, {text}: more than 66 % of the cleaned labels are right",
                float(np.mean(ours["recovery"])) > 0.66,
                spread(ours["recovery"]),
            ),
        ]
    return Result({"results": rows}, "\n".join(lines), claims)


def sweep(runner: Runner, name: str, option: str, values: Sequence[Any]) -> dict[str, Any]:
    """One option over its values."""
    return {str(v): over_seeds(runner, f"{name}, {option} {v}", smp(runner, **{option: v})) for v in values}


def page(runner: Runner, name: str, title: str, option: str, rows: dict[str, Any], paper: dict[Any, float]) -> str:
    """A table with a line for every value."""
    figures = {str(value): figure for value, figure in paper.items()}
    shown = [
        [
            value,
            str(figures.get(value, "")),
            spread(row["last"]["test_accuracy"]),
            spread(row["last"]["recovery_corrected_label"]),
        ]
        for value, row in rows.items()
    ]
    lines = [
        f"# {name}, small: {title}",
        "",
        f"CIFAR-10N's worst labels as features, percent after the last epoch, mean ± standard deviation over "
        f"{runner.seeds} seeds. The paper's column is Clothing1M.",
        "",
        *table([option, "paper", "test accuracy", "labels corrected"], shown),
        "",
    ]
    return "\n".join(lines)


def self_3(runner: Runner) -> Result:
    """Table 3: members per class."""
    if features(runner) is None:
        return missing(runner, "self-3")
    rows = sweep(runner, "self-3", "members", runner.either(tuple(PAPER_3), (320, 1280)))
    accuracy = {m: float(np.mean(row["last"]["test_accuracy"])) for m, row in rows.items()}
    width = max(accuracy.values()) - min(accuracy.values())
    text = "self-3: the number of members hardly matters (within 1 point from 320 to 2560)"
    return Result(
        {"results": rows},
        page(runner, "self-3", "members that prototypes are selected from", "m", rows, PAPER_3),
        [claim(text, width <= 0.01, f"{100 * width:.1f} points between the best and the worst")],
    )


def self_4(runner: Runner) -> Result:
    """Table 4: how prototypes are selected."""
    if features(runner) is None:
        return missing(runner, "self-4")
    rows = sweep(runner, "self-4", "select", tuple(PAPER_4))
    differences = {
        f"density - {other}": paired(rows["density"]["last"]["test_accuracy"], rows[other]["last"]["test_accuracy"])
        for other in ("kmeans", "density_peaks")
    }
    return Result(
        {"results": rows},
        page(runner, "self-4", "how prototypes are selected", "selection", rows, PAPER_4),
        [
            claim_ahead(
                "self-4: cosine density is at least as good as K-means++ and Euclidean density peaks (within a point)",
                differences,
                -0.01,
            )
        ],
    )


def self_fig4(runner: Runner) -> Result:
    """Fig. 4: prototypes per class, and the weight of corrected labels."""
    if features(runner) is None:
        return missing(runner, "self-fig4")
    counts = sweep(runner, "self-fig4", "prototypes", runner.either((1, 4, 8, 16), (1, 8)))
    weights = sweep(runner, "self-fig4", "alpha", (0.0, 0.5, 1.0))
    more = paired(counts["8"]["last"]["test_accuracy"], counts["1"]["last"]["test_accuracy"])
    none, all_ = (
        paired(weights["0.5"]["last"]["test_accuracy"], weights[end]["last"]["test_accuracy"]) for end in ("0.0", "1.0")
    )
    text = page(runner, "self-fig4", "prototypes per class", "p", counts, {})
    text += "\n" + "\n".join(page(runner, "", "", "alpha", weights, {}).splitlines()[4:]) + "\n"
    return Result(
        {"prototypes": counts, "alpha": weights},
        text,
        [
            claim_ahead("self-fig4: more than one prototype is needed", {"8 - 1": more}),
            claim_ahead("self-fig4: alpha 0.5 is better than 0 and than 1", {"0.5 - 0": none, "0.5 - 1": all_}),
        ],
    )
