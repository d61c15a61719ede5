"""Every method of the library on the same labellings, with the same backbone and budget."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.protocols.common import (
    Claim,
    Entry,
    Result,
    Runner,
    claim,
    features,
    interval,
    over_seeds,
    paired,
    spread,
    table,
    tune,
)
from benchmarks.protocols.layer import PLAIN, STRENGTHS, estimate, human
from recipes import baseline, can, crf, noise_layer, noise_types, self_learning

SYSTEMS = ("noise layer", "CAN", "CRF, analytic", "noise types, 10 % trusted", "self-learning")
LABELLINGS = ("aggregate", "random1", "worst", "instance")


def entries_of(runner: Runner, labels: str) -> tuple[dict[str, Entry], dict[str, dict[str, Any]]]:
    """All methods on one labelling, and the one option of each that is tuned, over three values."""
    if labels == "instance":
        base = human(runner) | {"labels": None, "noise": "instance:0.4"}
    else:
        base = human(runner, labels)
    base["evaluate_every"] = 5

    def of(loss: Any, **options: Any) -> Entry:
        return Entry(baseline.BaselineConfig(loss=loss, **base, **options), baseline.RECIPE)

    estimated = estimate(runner, labels, of("cross_entropy"))
    stages: dict[str, Any] = {"pretrain_epochs": 10, "types_epochs": 10, "clean_fraction": 0.1}
    systems = {
        "noise layer": Entry(noise_layer.NoiseLayerConfig(**base), noise_layer.RECIPE),
        "CAN": Entry(can.CANConfig(**base), can.RECIPE),
        "CRF, analytic": Entry(crf.CRFConfig(transition=estimated, **base), crf.RECIPE),
        "noise types, 10 % trusted": Entry(noise_types.NoiseTypesConfig(**{**base, **stages}), noise_types.RECIPE),
        "self-learning": Entry(self_learning.SelfLearningConfig(**base), self_learning.RECIPE),
    }
    others = {
        PLAIN: of("cross_entropy"),
        "soft bootstrap": of("bootstrap_soft"),
        "hard bootstrap": of("bootstrap_hard"),
        "generalized CE": of("generalized_ce"),
        "symmetric CE": of("symmetric_ce"),
        "forward, estimated T": of("forward", transition=estimated),
        "backward, estimated T": of("backward", transition=estimated),
        "clean labels": of("clean"),
    }
    grids: dict[str, dict[str, Any]] = {
        "backward, estimated T": {"learning_rate": (0.02, 0.005, 0.001)},  # at 0.05 it diverges
        "noise layer": {"strength": STRENGTHS},
        "CAN": {"prediction_weight": (4.0, 2.0, 6.0)},
        "CRF, analytic": {"alpha_end": (1.0, 0.5, 2.0)},
        "noise types, 10 % trusted": {"branch_rate": (1.0, 0.3, 0.1)},
        "self-learning": {"last_correction": (None, 5, 10)},
        "soft bootstrap": {"beta": (0.95, 0.8, 0.5)},
        "hard bootstrap": {"beta": (0.8, 0.6, 0.4)},
        "generalized CE": {"q": (0.7, 0.5, 0.9)},
        "symmetric CE": {"alpha": (0.1, 0.5, 1.0)},
    }
    return {**others, **systems}, grids


def leaderboard(runner: Runner) -> Result:
    """Accuracy, recovery, and how well the posterior tells wrong labels, on four labellings."""
    if features(runner) is None:
        return Result({}, "# leaderboard\n\nNot run: cifar10n_features.npz is not there.\n", [])
    # Tuned once, on the labels with most noise; the same options then serve on all.
    entries, grids = entries_of(runner, "worst")
    chosen, tuning = {}, {}
    for name, entry in entries.items():
        tuned, tuning[name] = tune(runner, f"cifar10n worst, {name}", entry, grids.get(name, {}))
        chosen[name] = {option: getattr(tuned.config, option) for option in grids.get(name, {})}
    results: dict[str, Any] = {}
    for labels in LABELLINGS:
        results[labels] = {
            name: over_seeds(runner, f"cifar10n {labels}, {name}", entry.but(**chosen[name]))
            for name, entry in entries_of(runner, labels)[0].items()
        }
    given = {labels: rows[PLAIN]["given_label_recovery"] for labels, rows in results.items()}
    lines = [
        "# leaderboard: CIFAR-10N as features",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds. A 256-512-512-10 network, SGD without momentum "
        "at a constant 0.05, 30 epochs for all. Of each method at most one option is tuned over three values, on "
        "held-out noisy labels of worst. Given labels right: "
        + ", ".join(f"{labels} {100 * share:.1f}" for labels, share in given.items())
        + ".",
        "",
    ]
    names = list(entries)
    for title, part, measure in (
        ("Test accuracy after the last epoch", "last", "test_accuracy"),
        ("Best test accuracy of any epoch (hindsight)", "best", "test_accuracy"),
        ("Training labels recovered", "last", "recovery"),
        ("Area under the ROC curve of 'is this label wrong'", "last", "issue_auc"),
    ):
        shown = [
            [n, *(spread(rows[n][part][measure]) if measure in rows[n][part] else "" for rows in results.values())]
            for n in names
        ]
        lines += [title + ":", "", *table(["method", *results], shown), ""]
    seconds = [
        [n, *(f"{np.mean(rows[n]['last']['seconds']):.2f}" for rows in results.values()), str(chosen[n] or "")]
        for n in names
    ]
    lines += ["Seconds an epoch:", "", *table(["method", *results, "chosen"], seconds), ""]
    return Result({"results": results, "tuning": tuning}, "\n".join(lines), claims_of(results["worst"]))


def claims_of(rows: dict[str, Any]) -> list[Claim]:
    """What the systems are worth on the worst labels."""
    accuracy = {n: float(np.mean(rows[n]["last"]["test_accuracy"])) for n in (*SYSTEMS, PLAIN)}
    gains = {n: accuracy[n] - accuracy[PLAIN] for n in SYSTEMS}
    best = max(SYSTEMS, key=lambda n: accuracy[n])
    aucs = {n: paired(rows[n]["last"]["issue_auc"], rows[PLAIN]["last"]["issue_auc"]) for n in SYSTEMS}
    return [
        claim(
            "at least three of the five systems beat plain training by 10 points on worst labels",
            sum(gain >= 0.10 for gain in gains.values()) >= 3,
            ", ".join(f"{n} {100 * gain:+.1f}" for n, gain in gains.items()),
        ),
        claim("the best system reaches 75 %", accuracy[best] >= 0.75, f"{best} {100 * accuracy[best]:.1f}"),
        claim(
            "each system's posterior tells wrong labels better than the plain model does at the last epoch",
            all(d["mean"] > 0 for d in aucs.values()),
            ", ".join(f"{n} {interval(d)}" for n, d in aucs.items()),
        ),
    ]
