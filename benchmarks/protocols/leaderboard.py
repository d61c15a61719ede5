"""Every method of the library by its recipe's bare defaults, on the same labellings of the same features."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.protocols.common import Claim, Result, all_over_seeds, claim, claim_ahead, paired, spread, table
from benchmarks.protocols.data import EVALUATE_EVERY, needed_features
from benchmarks.protocols.peers import CLEANLAB, cleanlab
from benchmarks.protocols.runner import Entry, Runner
from nlx.cleaning.second_opinion import helped
from recipes import (
    agreement,
    baseline,
    can,
    clean_net,
    co_teaching,
    crf,
    distill,
    elr,
    joint_optimization,
    linear,
    noise_layer,
    noise_types,
    self_learning,
    sop,
)

PLAIN, CLEAN, OURS = "plain", "clean labels", "distillation in folds"
TRUSTED: dict[str, Any] = {"clean_fraction": 0.1}
SYSTEMS: dict[str, Entry] = {
    "noise layer": Entry(noise_layer.NoiseLayerOptions(), noise_layer.train),
    "CAN": Entry(can.CANOptions(), can.train),
    "CRF, 10 % trusted": Entry(crf.CRFOptions(transition="trusted", **TRUSTED), crf.train),
    "noise types, 10 % trusted": Entry(noise_types.NoiseTypesOptions(**TRUSTED), noise_types.train),
    "self-learning": Entry(self_learning.SelfLearningOptions(), self_learning.train),
}
OTHERS: dict[str, Entry] = {
    OURS: Entry(distill.DistillOptions(), distill.train),
    PLAIN: Entry(baseline.BaselineOptions(), baseline.train),
    "logistic regression (NI-ERM)": Entry(linear.LinearOptions(), linear.train),
    "soft bootstrap": Entry(baseline.BaselineOptions(loss="bootstrap_soft"), baseline.train),
    "hard bootstrap": Entry(baseline.BaselineOptions(loss="bootstrap_hard"), baseline.train),
    "generalized CE": Entry(baseline.BaselineOptions(loss="generalized_ce"), baseline.train),
    "symmetric CE": Entry(baseline.BaselineOptions(loss="symmetric_ce"), baseline.train),
    "forward, held-out T": Entry(baseline.BaselineOptions(loss="forward", transition="held_out"), baseline.train),
    "ELR": Entry(elr.ELROptions(), elr.train),
    "SOP": Entry(sop.SOPOptions(), sop.train),
    "co-teaching": Entry(co_teaching.CoTeachingOptions(), co_teaching.train),
    "agreement (CUFIT)": Entry(agreement.AgreementOptions(), agreement.train),
    "joint optimization": Entry(joint_optimization.JointOptimizationOptions(), joint_optimization.train),
    "CleanNet, 10 % trusted": Entry(clean_net.CleanNetOptions(**TRUSTED), clean_net.train),
    CLEAN: Entry(baseline.BaselineOptions(loss="clean"), baseline.train),
}
CASES: dict[str, dict[str, Any]] = {
    "aggregate": {"labels": "aggregate"},
    "random1": {"labels": "random1"},
    "worst": {"labels": "worst"},
    "instance": {"labels": None, "noise": "instance:0.4"},
}
MEASURES = (
    ("Test accuracy after the last epoch", "last", "test_accuracy"),
    ("Best test accuracy of any epoch (hindsight)", "best", "test_accuracy"),
    ("Training labels that are right, cleaned", "last", "recovery"),
    ("Area under the ROC curve of 'is this label wrong'", "last", "issue_auc"),
)
JOINTLY = ("recovery", "issue_auc")
"""What a second opinion changes."""


def leaderboard(runner: Runner) -> Result:
    """Accuracy, right labels, and how well the posterior tells wrong labels, on four labellings.

    Raises:
      Missing: the features are not there.
    """
    path = needed_features(runner)
    results: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for case in runner.either(tuple(CASES), ("worst",)):
        data = {"dataset": f"npz:{path}", **CASES[case]}
        entries = {n: e.but(evaluate_every=EVALUATE_EVERY, **data) for n, e in (OTHERS | SYSTEMS).items()}
        theirs[case] = cleanlab(runner, f"cifar10n {case}", data)
        results[case] = all_over_seeds(runner, f"cifar10n {case}", entries)
    right = ", ".join(f"{case} {100 * rows[PLAIN]['given_label_recovery']:.1f}" for case, rows in results.items())
    lines = [
        "# leaderboard: CIFAR-10N as features, by bare defaults",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds. Every recipe as it is, on 256 values of each "
        "of 40,000 images: a 256-512-512-10 network, momentum 0.9, a rate that falls to 0, dropout, 30 epochs (noise "
        "types: in three stages). Held-out T is what linear models estimate that have not seen an example's label. "
        f"Best is the best of every fifth epoch, seen in hindsight. Given labels right: {right}. (j): where a run "
        "found its own cleaned labels no better than the given ones, linear models in folds helped.",
        "",
    ]
    names = list(OTHERS | SYSTEMS)
    for title, part, measure in MEASURES:
        shown = [[n, *(cell(rows[n], part, measure) for rows in results.values())] for n in names]
        if measure in JOINTLY and all(theirs.values()):
            shown.append([CLEANLAB, *(spread(row[measure]) for row in theirs.values())])
        lines += [title + ":", "", *table(["method", *results], shown), ""]
    how = f", {runner.workers} runs at a time, each on one core" if runner.workers > 1 else ""
    seconds = {n: np.nanmin([rows[n]["last"]["seconds"] for rows in results.values()]) for n in names}
    shown = [[name, f"{least:.2f}"] for name, least in seconds.items()]
    lines += [f"Seconds of an epoch without its evaluation, the least of all runs' last ones{how}:", ""]
    lines += [*table(["method", "seconds"], shown), ""]
    return Result({"results": results, "cleanlab": theirs}, "\n".join(lines), claims_of(results, theirs))


def cell(row: dict[str, Any], part: str, measure: str) -> str:
    """Mean and spread, with a mark where cleaned labels are joined ones."""
    if measure not in row[part]:
        return ""
    others = measure in JOINTLY and any(map(helped, row["cleaned_with"]))
    return spread(row[part][measure]) + " (j)" * others


def claims_of(results: dict[str, Any], theirs: dict[str, Any]) -> list[Claim]:
    """What the systems are worth by their defaults, beside plain training by the same ones; and ours beside all."""
    claims = []
    for case, rows in results.items():
        given = rows[PLAIN]["given_label_recovery"]
        gains = {n: float(np.nanmean(rows[n]["last"]["recovery"])) - given for n in SYSTEMS}
        for measure, text in (
            ("test_accuracy", f"each system's test accuracy is ahead of plain training's on {case}"),
            ("issue_auc", f"each system's posterior tells wrong labels better than plain training's on {case}"),
        ):
            of = {n: paired(rows[n]["last"][measure], rows[PLAIN]["last"][measure]) for n in SYSTEMS}
            claims.append(claim_ahead(text, of))
        least = 0.05 if given <= 0.8 else 0.0
        text = f"more of each system's cleaned labels than of the given ones are right on {case}"
        text += ", by 5 points or more" if least else ""
        evidence = ", ".join(f"{n} {100 * gain:+.1f}" for n, gain in gains.items())
        claims.append(claim(f"{text} (means)", min(gains.values()) > least, evidence))
        if case == "worst":
            reached = float(np.nanmean(rows["CAN"]["last"]["test_accuracy"]))
            claims.append(claim("CAN reaches 73 % on worst by default", reached >= 0.73, f"{100 * reached:.1f}"))
        for measure, text in (
            ("test_accuracy", "has the highest test accuracy"),
            ("recovery", "gets most labels right"),
            ("issue_auc", "tells wrong labels best"),
        ):
            last = {n: row["last"][measure] for n, row in rows.items() if n != CLEAN and "trusted" not in n}
            if theirs[case] and measure in theirs[case]:
                last[CLEANLAB] = theirs[case][measure]
            of = {n: paired(last[OURS], values) for n, values in last.items() if n != OURS}
            claims.append(claim_ahead(f"{OURS} {text} on {case}, of all without trusted labels", of))
    return claims
