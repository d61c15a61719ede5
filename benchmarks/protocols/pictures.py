"""CIFAR-10's pictures with the worst human labels, at a size that two cores allow: DivideMix and ELR beside plain.

At the papers' size this is, on a GPU machine (docs/full_size.md), one command a row:
  python recipes/divide_mix.py --dataset=cifar10n --labels=worst --data_dir=DATA --model=preact18 --epochs=300 \
    --learning_rate=0.02 --batch_size=64 --weight_decay=5e-4 --augmentation=crop-flip --schedule=cosine
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.protocols.common import Claim, Result, all_over_seeds, claim, claim_ahead, paired, spread, table
from benchmarks.protocols.data import EVALUATE_EVERY, Missing, image_file
from benchmarks.protocols.runner import Entry, Runner
from nlx.cleaning.second_opinion import helped
from recipes import baseline, co_teaching, distill, divide_mix, elr

PLAIN, CLEAN, OURS = "plain", "clean labels", "distillation in folds"
ENTRIES: dict[str, Entry] = {
    OURS: Entry(distill.DistillOptions(), distill.train),
    "DivideMix": Entry(divide_mix.DivideMixOptions(), divide_mix.train),
    "ELR": Entry(elr.ELROptions(), elr.train),
    "co-teaching": Entry(co_teaching.CoTeachingOptions(forget_rate=0.4), co_teaching.train),
    "generalized CE": Entry(baseline.BaselineOptions(loss="generalized_ce"), baseline.train),
    PLAIN: Entry(baseline.BaselineOptions(), baseline.train),
    CLEAN: Entry(baseline.BaselineOptions(loss="clean"), baseline.train),
}
TRAINING: dict[str, Any] = {
    "labels": "worst",
    "training_fraction": 0.25,
    "model": "convnet",
    "widths": (32, 64, 128, 128),
    "augmentation": "crop-flip",
    "schedule": "cosine",
    "learning_rate": 0.02,
    "weight_decay": 5e-4,
    "epochs": 40,
    "batch_size": 128,
    "evaluate_every": EVALUATE_EVERY,
}
"""The same for all: nothing is tuned."""
MEASURES = (
    ("Test accuracy after the last epoch", "last", "test_accuracy"),
    ("Best test accuracy of any epoch (hindsight)", "best", "test_accuracy"),
    ("Training labels that are right, cleaned", "last", "recovery"),
    ("Area under the ROC curve of 'is this label wrong'", "last", "issue_auc"),
)


def pictures(runner: Runner) -> Result:
    """Accuracy, right labels and their ranking on 10,000 pictures.

    Raises:
      Missing: the pictures are not there.
    """
    path = image_file(runner)
    if path is None:
        raise Missing(f"there are no data/cifar10_images_0.npz and its like in {runner.shared}; say --shared")
    kept = runner.either(tuple(ENTRIES), ("DivideMix", "ELR", PLAIN))
    entries = {n: ENTRIES[n].but(dataset=f"npz:{path}", **TRAINING) for n in kept}
    rows = all_over_seeds(runner, "cifar10n pictures", entries)
    given = rows[PLAIN]["given_label_recovery"]
    lines = [
        "# pictures: 10,000 of CIFAR-10N, worst labels",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds. A small network of strided convolutions, "
        f"random crops and flips, {entries[PLAIN].options.epochs} epochs, a rate that falls to 0 from "
        f"{TRAINING['learning_rate']}; the same for all, nothing tuned. Co-teaching is told 40 % wrong. Given labels "
        f"right: {100 * given:.1f}. Best is the best of every fifth epoch, seen in hindsight. (j): models in folds "
        "helped with the labels. Seconds are of a whole run, on one core each.",
        "",
        *table(
            ["method", *(title for title, _, _ in MEASURES), "seconds"],
            [
                [name, *(cell(row, part, measure) for _, part, measure in MEASURES), seconds(row)]
                for name, row in rows.items()
            ],
        ),
        "",
    ]
    return Result({"results": rows}, "\n".join(lines), claims_of(rows))


def cell(row: dict[str, Any], part: str, measure: str) -> str:
    """Mean and spread, with a mark where cleaned labels are joined ones."""
    if measure not in row[part]:
        return ""
    others = part == "last" and measure != "test_accuracy" and any(map(helped, row["cleaned_with"]))
    return spread(row[part][measure]) + " (j)" * others


def seconds(row: dict[str, Any]) -> str:
    """The least of all runs."""
    return f"{min(row['wall_seconds'], default=float('nan')):.0f}"


def claims_of(rows: dict[str, Any]) -> list[Claim]:
    """What is known of DivideMix and ELR at full size, and whether ours is ahead of them."""
    accuracy = {name: row["last"]["test_accuracy"] for name, row in rows.items()}
    cleaned = {n: row for n, row in rows.items() if "recovery" in row["last"]}  # not the one of clean labels
    gains = {n: float(np.nanmean(r["last"]["recovery"])) - r["given_label_recovery"] for n, r in cleaned.items()}
    of = {n: paired(accuracy[n], accuracy[PLAIN]) for n in rows if n not in (PLAIN, CLEAN)}
    claims = [claim_ahead("each is ahead of plain training (worst, full size: ELR 87.8, DivideMix 92.5, CE 68.3)", of)]
    behind = {n: paired(accuracy["DivideMix"], accuracy[n]) for n in ("ELR", PLAIN)}
    claims.append(claim_ahead("DivideMix is ahead of ELR and of plain training", behind))
    if OURS in rows:
        others = {n: paired(accuracy[OURS], accuracy[n]) for n in rows if n not in (OURS, CLEAN)}
        claims.append(claim_ahead(f"{OURS} has the highest test accuracy", others))
    evidence = ", ".join(f"{n} {100 * gain:+.1f}" for n, gain in gains.items())
    least = min(gains.values())
    claims.append(claim("5 points or more of the labels more are right after cleaning", least > 0.05, evidence))
    return claims
