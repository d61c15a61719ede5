"""The CRF's tables: its parts (Table 1), its posterior while training, prediction and recovery by noise (Table 2)."""

from __future__ import annotations

from typing import Any

from benchmarks.protocols.common import (
    SMALLER_RATES,
    Result,
    all_over_seeds,
    claim_ahead,
    compare,
    over_seeds,
    paired,
    spread,
    table,
)
from benchmarks.protocols.data import EVALUATE_EVERY, features, human, named, pictures
from benchmarks.protocols.runner import Entry, Runner
from recipes import baseline, crf

PAPER_1 = {
    "clean": 68.57,
    "noisy": 56.88,
    "no pairwise": 63.67,
    "no hidden": 64.26,
    "hidden": 65.73,
    "no x-y link": 66.61,
    "no x-y link, alpha 0": 48.53,
}
PAPER_2 = {
    "plain": (91.2, 90.0, 89.1, 87.1, 80.2),
    "backward": (87.4, 87.4, 84.6, 76.5, 45.6),
    "forward": (90.9, 90.3, 89.4, 88.4, 80.0),
    "CRF": (91.6, 91.0, 90.6, 89.4, 84.3),
}
RATES = (0.1, 0.2, 0.3, 0.4, 0.5)
SMALL: dict[str, Any] = {"chains": 50, "sweeps": 30, "hidden": 20}
TRAINING: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.001, "batch_size": 32, "epochs": 40}
FIFTH = "clean, a fifth of the scenes"
CRF, CRF_PAPER = "CRF", "CRF, alpha to 1 (paper)"


def parts(runner: Runner) -> dict[str, dict[str, Any]]:
    """Every row of Table 1 on tags/sample, over the seeds."""
    base: dict[str, Any] = {"dataset": "tags", "evaluate_every": EVALUATE_EVERY, **TRAINING}

    def field(**options: Any) -> Entry:
        return Entry(crf.CRFOptions(**base, **SMALL, **options), crf.train)

    entries = {
        "clean": Entry(baseline.BaselineOptions(loss="clean", **base), baseline.train),
        # As many clean labels as are trusted, and as many steps: what they are worth without any words.
        FIFTH: Entry(
            baseline.BaselineOptions(
                loss="clean",
                **{**base, "epochs": 5 * TRAINING["epochs"], "training_fraction": 0.2, "evaluate_every": 25},
            ),
            baseline.train,
        ),
        "noisy": Entry(baseline.BaselineOptions(**base), baseline.train),
        "no pairwise": field(field="no_pairwise"),
        "no hidden": field(field="no_hidden"),
        "hidden": field(field="hidden"),
        "no x-y link": field(field="no_link"),
        "no x-y link, alpha to 1": field(field="no_link", alpha_end=1.0),
        "no x-y link, alpha 0": field(field="no_link", alpha_start=0.0, alpha_end=0.0),
    }
    return all_over_seeds(runner, "tags/sample", entries)


def table_1(runner: Runner) -> Result:
    """Table 1: each part adds; without the link is best; alpha 0 ruins it."""
    rows = parts(runner)
    lines = [
        "# crf-1, small: the parts of the CRF on tags/sample",
        "",
        f"mAP over the ten classes in percent, mean ± standard deviation over {runner.seeds} seeds, after the last "
        "epoch. A fifth of the training scenes has clean labels; noisy learns from the words that name classes, clean "
        "from all true labels, a fifth of the scenes from as many as are trusted, in as many steps. "
        f"{SMALL['chains']} chains, {SMALL['sweeps']} sweeps, {SMALL['hidden']} hidden units. The same training for "
        "all, 40 epochs of Adam at 0.001 in batches of 32, which scored better on held-out noisy labels than 60 epochs "
        "in batches of 128 at 0.003, constant or falling, with and without pairwise terms, and than 60 epochs at 0.002 "
        "in batches of 32 with them (one seed, 10 chains, 10 sweeps). The paper: COCO captions, ResNet-50.",
        "",
        *table(
            ["row", "paper", "test mAP", "best (hindsight)", "mAP of q, not trusted"],
            [
                [
                    name,
                    str(PAPER_1.get(name, "")),
                    spread(row["last"]["test_map"]),
                    spread(row["best"]["test_map"]),
                    spread(row["last"]["posterior_map_posterior"]) if "posterior_map_posterior" in row["last"] else "",
                ]
                for name, row in rows.items()
            ],
        ),
        "",
    ]
    score = {name: row["last"]["test_map"] for name, row in rows.items()}
    variants = ("no hidden", "hidden", "no x-y link")

    def over(a: str, *others: str) -> dict[str, dict[str, Any]]:
        return {f"{a} - {b}": paired(score[a], score[b]) for b in others}

    best, ruined = "no x-y link", "no x-y link, alpha 0"
    claims = [
        claim_ahead("crf-1: noisy < no pairwise", over("no pairwise", "noisy")),
        claim_ahead(
            "crf-1: no pairwise <= every CRF variant (within a point)",
            {name: d for v in variants for name, d in over(v, "no pairwise").items()},
            -0.01,
        ),
        claim_ahead("crf-1: without the x-y link is best (within a point)", over(best, "no hidden", "hidden"), -0.01),
        claim_ahead("crf-1: alpha 0 ruins it (over 5 points)", over(best, ruined), 0.05),
        claim_ahead("crf-1: clean is on top", over("clean", *(name for name in rows if name != "clean"))),
    ]
    return Result({"results": rows}, "\n".join(lines), claims)


def posterior(runner: Runner) -> Result:
    """The posterior over clean labels gets better while training."""
    base: dict[str, Any] = {"dataset": "tags", "evaluate_every": EVALUATE_EVERY, **TRAINING, **SMALL}
    start = over_seeds(
        runner,
        "tags/sample, q at the start",
        Entry(crf.CRFOptions(**{**base, "epochs": 1, "learning_rate": 1e-9}), crf.train),
    )
    end = over_seeds(runner, "tags/sample, no x-y link", Entry(crf.CRFOptions(**base), crf.train))
    first, last = (row["last"]["posterior_map_posterior"] for row in (start, end))
    gain = paired(last, first)
    lines = [
        "# crf-q, small: mAP of the posterior q on the examples without clean labels",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds: {spread(first)} at the start, when only the "
        f"auxiliary distribution speaks; {spread(last)} at the end. The paper: 49.4 and 69.4.",
        "",
    ]
    text = "crf-q: the posterior gets better while training (49.4 to 69.4)"
    return Result({"start": start, "end": end}, "\n".join(lines), [claim_ahead(text, {"end - start": gain})])


def table_2(runner: Runner) -> Result:
    """Table 2: prediction and recovery with one label per example, symmetric noise and human labels."""
    cases: dict[str, dict[str, Any]] = {
        f"{rate:.0%}": {**pictures(), "noise": f"symmetric:{rate}", "evaluate_every": EVALUATE_EVERY}
        for rate in runner.either(RATES, RATES[2:3])
    }
    if features(runner) is not None:
        cases["cifar10n worst"] = human(runner)
    about = f"{pictures()['dataset']} with symmetric noise, and CIFAR-10N's worst labels as features"
    return by_noise(runner, "crf-2", cases, about)


def flips(runner: Runner) -> Result:
    """Table 2 under the noise that the paper has: three one-way flips, cat to dog and back."""
    cases = {
        f"{rate:.0%}": {**named(runner), "noise": f"asymmetric:{rate}", "training_fraction": 0.25}
        for rate in runner.either(RATES[:4], RATES[2:3])
    }
    return by_noise(runner, "crf-flips", cases, "a quarter of CIFAR-10's features with asymmetric noise")


def by_noise(runner: Runner, title: str, cases: dict[str, dict[str, Any]], about: str) -> Result:
    """Prediction and recovery of all methods that know the noise, in the form of Table 2."""
    rows: dict[str, dict[str, Any]] = {}
    for case, options in cases.items():
        entries = {
            "plain": Entry(baseline.BaselineOptions(**options), baseline.train),
            "backward": Entry(baseline.BaselineOptions(loss="backward", transition="true", **options), baseline.train),
            "forward": Entry(baseline.BaselineOptions(loss="forward", transition="true", **options), baseline.train),
            CRF_PAPER: Entry(crf.CRFOptions(alpha_end=1.0, transition="true", **options), crf.train),
            CRF: Entry(crf.CRFOptions(transition="true", **options), crf.train),
        }
        compared = compare(runner, f"{title}, {case}", entries, {"backward": {"learning_rate": SMALLER_RATES}})
        for name, row in compared.items():
            rows.setdefault(name, {})[case] = row
    paper = "; ".join(f"{name} {' '.join(map(str, figures))}" for name, figures in PAPER_2.items())
    lines = [
        f"# {title}, small: {about}",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds, after the last epoch; all methods know the "
        "true noise; same backbone and budget. Only Backward's learning rate is tuned, for its loss has no floor and "
        "at 0.05 it diverges. That the CRF's alpha ends at 0.25 and not at the paper's 1 was chosen with recovery in "
        "view (docs/crf.md). Backward and Forward "
        "recover labels by Bayes' rule, in the paper by their classifier. The paper, CIFAR-10 with a ResNet-32, "
        f"prediction at 10 to 50 %: {paper}.",
        "",
    ]
    for heading, measure in (("Prediction", "test_accuracy"), ("Recovery of the training labels", "recovery")):
        shown = [[name, *(spread(row["last"][measure]) for row in by.values())] for name, by in rows.items()]
        lines += [heading + ":", "", *table(["method", *cases], shown), ""]
    claims = []
    for measure, words in (("test_accuracy", "prediction"), ("recovery", "recovery")):
        differences = {
            f"{case}, against {other}": paired(rows[CRF][case]["last"][measure], rows[other][case]["last"][measure])
            for case in cases
            for other in ("forward", "backward")
        }
        claims.append(claim_ahead(f"{title}: {words} of the CRF beats Forward and Backward", differences))
    return Result({"results": rows}, "\n".join(lines), claims)
