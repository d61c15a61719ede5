"""Every method of the library on the same labellings, with the same backbone and budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.protocols.common import (
    SMALLER_RATES,
    Claim,
    Result,
    all_over_seeds,
    claim,
    claim_ahead,
    paired,
    spread,
    table,
    tune,
)
from benchmarks.protocols.data import human
from benchmarks.protocols.layer import PLAIN, RATE, STRENGTHS, estimate
from benchmarks.protocols.runner import Entry, Runner
from recipes import baseline, can, crf, noise_layer, noise_types, self_learning

TRUSTED = "noise types, 10 % trusted"
SYSTEMS = ("noise layer", "CAN", "CRF, analytic", TRUSTED, "self-learning")
FALLING = "worst, falling rate"
CASES = ("aggregate", "random1", "worst", "instance", FALLING)


def entries_of(runner: Runner, case: str) -> tuple[dict[str, Entry], dict[str, dict[str, Any]]]:
    """All methods on one case, and the one option of each that is tuned, over three values."""
    labels = "worst" if case == FALLING else case
    if labels == "instance":
        base = human(runner) | {"labels": None, "noise": "instance:0.4"}
    else:
        base = human(runner, labels)
    if case == FALLING:
        base["schedule"] = "step"

    def of(loss: Any, **options: Any) -> Entry:
        return Entry(baseline.BaselineOptions(loss=loss, **base, **options), baseline.train)

    estimated = estimate(runner, labels, of("cross_entropy").but(schedule="constant"))
    # An epoch visits the trusted tenth as often as half of the others: 20 of these are no more steps than 30 of theirs.
    stages: dict[str, Any] = {"pretrain_epochs": 10, "types_epochs": 10, "epochs": 20, "clean_fraction": 0.1}
    systems = {
        "noise layer": Entry(noise_layer.NoiseLayerOptions(transition_rate=RATE, **base), noise_layer.train),
        "CAN": Entry(can.CANOptions(**base), can.train),
        "CRF, analytic": Entry(crf.CRFOptions(transition=estimated, **base), crf.train),
        TRUSTED: Entry(noise_types.NoiseTypesOptions(**{**base, **stages}), noise_types.train),
        "self-learning": Entry(self_learning.SelfLearningOptions(**base), self_learning.train),
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
        "backward, estimated T": {"learning_rate": SMALLER_RATES},
        "noise layer": {"strength": STRENGTHS},
        "CAN": {"prediction_weight": (4.0, 2.0, 6.0)},
        "CRF, analytic": {"alpha_end": (0.25, 0.5, 1.0)},
        TRUSTED: {"branch_rate": (1.0, 0.3, 0.1)},
        "self-learning": {"last_correction": (None, 5, 10)},
        "soft bootstrap": {"beta": (0.95, 0.8, 0.5)},
        "hard bootstrap": {"beta": (0.8, 0.6, 0.4)},
        "generalized CE": {"q": (0.7, 0.5, 0.9)},
        "symmetric CE": {"alpha": (0.1, 0.5, 1.0)},
    }
    return {**others, **systems}, grids


def leaderboard(runner: Runner) -> Result:
    """Accuracy, recovery, and how well the posterior tells wrong labels, on four labellings."""
    cases = runner.either(CASES, ("worst", FALLING))
    # Tuned once, on the labels with most noise at the constant rate; the same options then serve in all cases.
    entries, grids = entries_of(runner, "worst")
    chosen: dict[str, dict[str, Any]] = {}
    tuning: dict[str, Any] = {}

    def tuned(name: str) -> tuple[Entry, dict[str, Any]]:
        return tune(runner, f"cifar10n worst, {name}", entries[name], grids.get(name, {}))

    for name, (entry, tuning[name]) in zip(entries, runner.map(tuned, entries), strict=True):
        chosen[name] = {option: getattr(entry.options, option) for option in grids.get(name, {})}
    results: dict[str, Any] = {}
    for case in cases:
        entries = {name: entry.but(**chosen[name]) for name, entry in entries_of(runner, case)[0].items()}
        results[case] = all_over_seeds(runner, f"cifar10n {case}", entries)
    given = {case: rows[PLAIN]["given_label_recovery"] for case, rows in results.items() if case != FALLING}
    lines = [
        "# leaderboard: CIFAR-10N as features",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds. A 256-512-512-10 network, SGD without momentum "
        "at a constant 0.05, 30 epochs for all (noise types: no more steps than that, in three stages; estimated T "
        "takes another plain run of 5). In the last column the rate falls to a tenth twice, for noise types in each of "
        "its stages. Of each method at most one option is tuned over three values, on held-out noisy labels of worst "
        "at the constant rate. Best is the best of every fifth epoch, seen in hindsight. Given labels right: "
        + ", ".join(f"{case} {100 * share:.1f}" for case, share in given.items())
        + ".",
        "",
    ]
    names = list(results["worst"])
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
    shown = [
        [
            n,
            f"{min(rows[n]['last']['seconds'][-1] for rows in results.values()):.2f}",
            ", ".join(f"{option} {value}" for option, value in chosen[n].items()),
        ]
        for n in names
    ]
    how = f", {runner.workers} runs at a time, each on one core" if runner.workers > 1 else ""
    lines += [
        f"Seconds of an epoch without its evaluation, the least of the last seed's runs{how}, and what was chosen:",
        "",
    ]
    lines += [*table(["method", "seconds", "chosen"], shown), ""]
    return Result(
        {"results": results, "tuning": tuning}, "\n".join(lines), claims_of(results["worst"], results[FALLING])
    )


def claims_of(rows: dict[str, Any], falling: dict[str, Any]) -> list[Claim]:
    """What the systems are worth on the worst labels, at a constant rate and at one that falls."""
    accuracy = {n: float(np.nanmean(rows[n]["last"]["test_accuracy"])) for n in (*SYSTEMS, PLAIN)}
    gains = {n: accuracy[n] - accuracy[PLAIN] for n in SYSTEMS}
    later = {n: float(np.nanmean(falling[n]["last"]["test_accuracy"])) for n in (*SYSTEMS, PLAIN)}

    def best(names: Sequence[str]) -> Claim:
        """Whether one of some systems reaches 75 %."""
        first, second = max(names, key=accuracy.__getitem__), max(names, key=later.__getitem__)
        return claim(
            f"the best system {'with or ' if TRUSTED in names else ''}without trusted labels reaches 75 % on worst "
            "labels, with either schedule",
            max(accuracy[first], later[second]) >= 0.75,
            f"{first} {100 * accuracy[first]:.1f} at the constant rate, {second} {100 * later[second]:.1f} at the "
            f"falling one, where plain training has {100 * later[PLAIN]:.1f}",
        )

    def aucs(of: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {n: paired(of[n]["last"]["issue_auc"], of[PLAIN]["last"]["issue_auc"]) for n in SYSTEMS}

    text = "each system's posterior tells wrong labels better than the plain model does at the last epoch"
    return [
        claim(
            "at least three of the five systems beat plain training by 10 points on worst labels (means)",
            sum(gain >= 0.10 for gain in gains.values()) >= 3,
            ", ".join(f"{n} {100 * gain:+.1f}" for n, gain in gains.items()),
        ),
        best(SYSTEMS),
        best([n for n in SYSTEMS if n != TRUSTED]),
        claim_ahead(text + ", constant rate", aucs(rows)),
        claim_ahead(text + ", falling rate", aucs(falling)),
    ]
