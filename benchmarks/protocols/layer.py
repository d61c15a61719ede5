"""The noise layer's tables: noise rates (Fig. 3), outliers (Fig. 5), and all losses on human label noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.protocols.common import (
    SMALLER_RATES,
    Result,
    all_over_seeds,
    claim,
    claim_ahead,
    compare,
    over_seeds,
    paired,
    spread,
    table,
    tune,
)
from benchmarks.protocols.data import EVALUATE_EVERY, human, pictures
from benchmarks.protocols.runner import RESULTS, Entry, Runner
from nlx import transitions
from nlx.cleaning.label_files import read_labels
from nlx.files import replacing
from recipes import baseline, noise_layer

PLAIN, LEARNED, GIVEN = "plain", "learned T", "true T"
PART = "clean part alone"
RATES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8)
STRENGTHS = (0.1, 0.2, 0.3)


def fig3(runner: Runner) -> Result:
    """Fig. 3: how much noise plain training copes with, and how much with T learned or given."""
    data = pictures()
    rows: dict[str, Any] = {}
    rates = runner.either(RATES, (0.0, 0.5))
    for rate in rates:
        base = {**data, "noise": f"sparse:{rate}" if rate else "none", "evaluate_every": EVALUATE_EVERY}
        entries = {
            PLAIN: Entry(baseline.BaselineOptions(**base), baseline.train),
            LEARNED: Entry(noise_layer.NoiseLayerOptions(transition_rate=RATE, **base), noise_layer.train),
            GIVEN: Entry(noise_layer.NoiseLayerOptions(layer="given", transition="true", **base), noise_layer.train),
        }
        rows[str(rate)] = compare(runner, f"{data['dataset']}, noise {rate}", entries, {})
        if rate == 0.5:
            paper = entries[LEARNED].but(**PAPER_SCHEDULE)
            rows[str(rate)]["learned T, paper's schedule"] = over_seeds(runner, "paper's schedule, noise 0.5", paper)
    lines = [
        f"# layer-fig3, small: {data['dataset']} with structured label flips",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds, after the last epoch. A class goes to three "
        "others, each as likely. Backbone, data, learning rate and epochs are the same for all; nothing is tuned here.",
        "",
        *table(
            ["noise", "plain", "learned T", "true T", "learned T, mean error", "plain, best (hindsight)"],
            [
                [
                    f"{float(rate):.0%}",
                    *(spread(by[name]["last"]["test_accuracy"]) for name in (PLAIN, LEARNED, GIVEN)),
                    f"{np.mean(by[LEARNED]['last']['transition_mae']):.3f}",
                    spread(by[PLAIN]["best"]["test_accuracy"]),
                ]
                for rate, by in rows.items()
            ],
        ),
        "",
    ]
    paper_row = rows["0.5"]["learned T, paper's schedule"]["last"]
    lines += [
        f"With the paper's schedule (T held at the identity for 5 epochs, no limit to its gradient) at 50 % noise: "
        f"accuracy {spread(paper_row['test_accuracy'])}, mean error {np.mean(paper_row['transition_mae']):.3f}.",
        "",
    ]

    def mean(rate: float, name: str, measure: str = "test_accuracy") -> float:
        return float(np.mean(rows[str(rate)][name]["last"][measure]))

    loss_of_plain = {r: mean(0.0, PLAIN) - mean(r, PLAIN) for r in rates}
    gaps = {
        f"{r:.0%}": paired(*(rows[str(r)][name]["last"]["test_accuracy"] for name in (LEARNED, GIVEN)))
        for r in rates
        if r <= 0.6
    }
    error = mean(0.5, LEARNED, "transition_mae")
    claims = [
        claim(
            "layer-fig3: plain training degrades badly past 30 % noise (loses over 5 points at 50 %)",
            loss_of_plain[0.5] > 0.05,
            "lost " + ", ".join(f"{100 * lost:.1f} at {r:.0%}" for r, lost in loss_of_plain.items() if r),
        ),
        claim_ahead("layer-fig3: learned T is as good as true T (within 2 points up to 60 % noise)", gaps, -0.02),
        claim(
            "layer-fig3: learned and true T hardly differ (mean absolute error below 0.03 at 50 % noise)",
            error < 0.03,
            f"{error:.3f}",
        ),
    ]
    return Result({"dataset": data["dataset"], "results": rows}, "\n".join(lines), claims)


RATE = 0.05  # of T, the backbone's, as in the paper
PAPER_SCHEDULE = {"learn_from": 5.0, "learn_until": None, "strength": 0.1, "gradient_limit": None}


def table_1(runner: Runner) -> Result:
    """Table 1: the noise layer against plain training, and against training on the clean part alone."""
    data = pictures() | {"evaluate_every": EVALUATE_EVERY}
    rows: dict[str, dict[str, Any]] = {}
    for case, noise, rate in (("random flips", "symmetric", 0.5), ("adversarial flips", "adversarial", 0.4)):
        noisy = {**data, "noise": f"{noise}:{rate}"}
        # The clean part in as many steps.
        share, epochs = data.get("training_fraction", 1.0) * (1 - rate), round(data["epochs"] / (1 - rate))
        part = {**data, "noise": "none", "training_fraction": share, "epochs": epochs}
        entries = {
            "clean": Entry(baseline.BaselineOptions(loss="clean", **{**data, "noise": "none"}), baseline.train),
            PART: Entry(baseline.BaselineOptions(loss="clean", **part), baseline.train),
            PLAIN: Entry(baseline.BaselineOptions(**noisy), baseline.train),
            LEARNED: Entry(noise_layer.NoiseLayerOptions(transition_rate=RATE, **noisy), noise_layer.train),
            GIVEN: Entry(noise_layer.NoiseLayerOptions(layer="given", transition="true", **noisy), noise_layer.train),
        }
        rows[f"{case}, {rate:.0%}"] = all_over_seeds(runner, f"layer-1, {case}", entries)
    lines = [
        f"# layer-1, small: {data['dataset']}, learned T against plain training and against the clean part",
        "",
        f"Test error in percent after the last epoch, mean ± standard deviation over {runner.seeds} seeds. The clean "
        "part is as many examples as have right labels, in as many steps. The paper, ImageNet: 39.8 clean, 48.5 clean "
        "half, 53.7 plain, 45.2 learned T, 41.4 true T at 50 % random flips; 50.5 plain, 46.7 learned T, 43.3 true T "
        "at 40 % adversarial ones.",
        "",
        *table(
            ["training", *rows],
            [
                [name, *(spread([1 - a for a in by[name]["last"]["test_accuracy"]]) for by in rows.values())]
                for name in ("clean", PART, PLAIN, LEARNED, GIVEN)
            ],
        ),
        "",
    ]

    def ahead(case: str, other: str) -> dict[str, Any]:
        return paired(*(rows[case][name]["last"]["test_accuracy"] for name in (LEARNED, other)))

    claims = [
        claim_ahead(f"layer-1: learned T beats {words}", {case: ahead(case, other) for case in rows})
        for other, words in ((PLAIN, "plain training"), (PART, "training on the clean part alone"))
    ]
    return Result({"dataset": data["dataset"], "results": rows}, "\n".join(lines), claims)


def fig5(runner: Runner) -> Result:
    """Fig. 5: foreign images among the training set, found by a class of their own."""
    data = pictures() | {"noise": "outlier:0.5", "evaluate_every": EVALUATE_EVERY}
    has_mnist = data["dataset"] == "fashion_mnist" and (runner.shared / "data" / "mnist.npz").exists()
    if has_mnist:
        data["data_dir"] = runner.shared / "data"
    known: dict[str, Any] = {"known_outliers": 0.1}
    entries = {
        "plain, entropy": Entry(baseline.BaselineOptions(**data, **known), baseline.train),
        "outlier class": Entry(noise_layer.NoiseLayerOptions(layer="outliers", **data, **known), noise_layer.train),
    }
    for alpha in (0.05, 0.3):
        entries[f"outlier class, alpha {alpha} instead of 0.1"] = entries["outlier class"].but(alpha=alpha)
    rows = all_over_seeds(runner, "outliers", entries)
    foreign = "MNIST" if has_mnist else "scrambled"
    lines = [
        f"# layer-fig5, small: {data['dataset']}, half of its training images replaced by {foreign} ones",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds, after the last epoch. The replaced images "
        "carry random labels; a tenth of them is known to be outliers while training.",
        "",
        *table(
            ["method", "test accuracy", "average precision of finding outliers"],
            [
                [name, spread(row["last"]["test_accuracy"]), spread(row["last"]["outlier_ap"])]
                for name, row in rows.items()
            ],
        ),
        "",
    ]
    plain, ours = rows["plain, entropy"]["last"], rows["outlier class"]["last"]
    claims = []
    for measure, words in (("outlier_ap", "better average precision"), ("test_accuracy", "better test error")):
        difference = paired(ours[measure], plain[measure])
        claims.append(claim_ahead(f"layer-fig5: the outlier model has {words}", {"outlier class - plain": difference}))
    return Result({"results": rows}, "\n".join(lines), claims)


def loss_entries(runner: Runner, labels: str = "worst") -> tuple[dict[str, Entry], dict[str, dict[str, Any]]]:
    """All baselines and the noise layer on one labelling, and what is tuned of each."""
    base = human(runner, labels)

    def of(loss: Any, **options: Any) -> Entry:
        return Entry(baseline.BaselineOptions(loss=loss, **base, **options), baseline.train)

    estimated = estimate(runner, labels, of("cross_entropy"))
    entries = {
        PLAIN: of("cross_entropy"),
        "soft bootstrap": of("bootstrap_soft"),
        "hard bootstrap": of("bootstrap_hard"),
        "backward, true T": of("backward", transition="true"),
        "backward, estimated T": of("backward", transition=estimated),
        "forward, true T": of("forward", transition="true"),
        "forward, estimated T": of("forward", transition=estimated),
        "generalized CE": of("generalized_ce"),
        "symmetric CE": of("symmetric_ce"),
        "MAE": of("mae"),
        "noise layer, learned T": Entry(noise_layer.NoiseLayerOptions(transition_rate=RATE, **base), noise_layer.train),
        "clean labels": of("clean"),
    }
    lower: dict[str, Any] = {"learning_rate": SMALLER_RATES}
    grids: dict[str, dict[str, Any]] = {
        "backward, true T": lower,
        "backward, estimated T": lower,
        "soft bootstrap": {"beta": (0.95, 0.8, 0.5)},
        "hard bootstrap": {"beta": (0.8, 0.6, 0.4)},
        "generalized CE": {"q": (0.7, 0.5, 0.9)},
        "symmetric CE": {"alpha": (0.1, 0.5, 1.0)},
        "noise layer, learned T": {"strength": STRENGTHS},
    }
    return entries, grids


def estimate(runner: Runner, labels: str, plain: Entry) -> str:
    """A file with T as the confident joint of a plain run, stopped early, has it."""
    kept = RESULTS / "runs" / f"plain-{labels}{'-quick' if runner.quick else ''}.parquet"
    runner(f"predictions for {kept.stem}", plain.but(epochs=5, seed=2000), keep=kept)
    predicted, path = read_labels(kept), kept.with_suffix(".npy")
    joint = transitions.confident_joint(predicted.posterior, predicted.noisy_label)
    with replacing(path) as file:
        np.save(file, np.asarray(transitions.from_confident_joint(joint, predicted.noisy_label)))
    return str(path)


def losses(runner: Runner) -> Result:
    """Every loss on CIFAR-10N's worst labels, same backbone and budget."""
    entries, grids = loss_entries(runner)
    rows = compare(runner, "cifar10n worst", entries, grids)
    # Without a correction and with the true one, once more with the learning rate tuned as well.
    for name in (PLAIN, "forward, true T"):
        rates: dict[str, Any] = {"learning_rate": (0.05, 0.02, 0.01, 0.005)}
        tuned, scores = tune(runner, f"cifar10n worst, {name}", entries[name], rates)
        own = f"{name}, learning rate tuned"
        rows[own] = {"tuning": scores, **over_seeds(runner, own.replace("learning rate ", ""), tuned)}
    rows["generalized CE, q 0.7"] = {"tuning": {}, **over_seeds(runner, "q 0.7", entries["generalized CE"].but(q=0.7))}
    given = rows[PLAIN]["given_label_recovery"]
    lines = [
        "# losses, small: CIFAR-10N's worst labels, as features",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds; {100 * given:.1f} % of the given labels are "
        "right. A 256-512-512-10 network, SGD without momentum at a constant 0.05, 30 epochs for all. Up to three "
        "values of one option of each loss are compared on held-out noisy labels; clean labels are not looked at.",
        "",
        *table(
            ["loss", "last epoch", "best (hindsight)", "labels recovered", "chosen"],
            [
                [
                    name,
                    spread(row["last"]["test_accuracy"]),
                    spread(row["best"]["test_accuracy"]),
                    spread(row["last"]["recovery"]) if "recovery" in row["last"] else "",
                    ", ".join(f"{option} {tried['chosen']}" for option, tried in row["tuning"].items()),
                ]
                for name, row in rows.items()
            ],
        ),
        "",
        "Labels recovered: by the posterior over true labels where a method has one, else by its prediction. Estimated "
        "T: from the confident joint of a plain run of 5 epochs.",
        "",
    ]
    accuracy = {name: row["last"]["test_accuracy"] for name, row in rows.items()}
    learned = paired(accuracy["noise layer, learned T"], accuracy[PLAIN])
    claims = [
        claim(f"{name} reaches {goal:.0%}", float(np.mean(accuracy[name])) >= goal, spread(accuracy[name]))
        for name, goal in (("forward, true T", 0.71), ("generalized CE, q 0.7", 0.73))
    ]
    goal = "learned T is above plain training by 5 points"
    claims.append(claim_ahead(goal, {"learned T - plain": learned}, 0.05))
    return Result({"results": rows}, "\n".join(lines), claims)
