"""What each step of distillation in folds is worth, and what held-out noisy labels say of it: no true label decides."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.protocols.common import Claim, Result, all_over_seeds, claim, interval, paired, spread, table
from benchmarks.protocols.data import EVALUATE_EVERY, needed_features
from benchmarks.protocols.runner import Entry, Runner
from nlx.cleaning.clean import evidence_of
from nlx.cleaning.table import LabelTable
from nlx.cleaning.trainers import Setting
from nlx.data.dataset import Dataset
from nlx.experiment.first_answer import first_answer
from nlx.experiment.run import Run
from nlx.methods.distill import distill as learn_from
from nlx.methods.method import Method
from recipes import distill

Step = Literal["nothing", "generalized CE", "neighbours", "Bayes' rule", "soft beliefs"]


@dataclass(frozen=True)
class AblationOptions(distill.DistillOptions):
    """Those of distillation, and what to leave out of it."""

    without: Step = "nothing"
    """The step: cross-entropy in place of the first models' loss; no neighbours; what held-out models say in place of
    Bayes' rule with it; or networks that learn the likeliest class of a belief."""


def believed_alone(data: Dataset, **options: Any) -> LabelTable:
    """The first answer with the evidence in place of the posterior."""
    table = first_answer(data, **options)
    return replace(table, posterior=evidence_of(table))


def said_alone(probs: np.ndarray, *_: Any) -> SimpleNamespace:
    """What models say that have not seen the label, whatever the label is."""
    return SimpleNamespace(posterior=probs)


def likeliest_alone(beliefs: ArrayLike) -> Method:
    """Distillation of the likeliest class of each belief."""
    q = np.asarray(beliefs)
    return learn_from(np.eye(q.shape[1], dtype=np.float32)[q.argmax(axis=1)])


INSTEAD: dict[Step, dict[str, Any]] = {
    "nothing": {},
    "generalized CE": dict.fromkeys(
        ("nlx.cleaning.linear.FEW_CLASSES", "nlx.cleaning.linear._SOFTER"), Setting(q=1e-3)
    ),
    "neighbours": {"nlx.cleaning.clean.affordable": lambda n, width: False},
    "Bayes' rule": {"recipes.distill.first_answer": believed_alone, "recipes.distill.weigh": said_alone},
    "soft beliefs": {"recipes.distill.distill": likeliest_alone},
}
WHOLE = "all of it"
CASES: dict[str, dict[str, Any]] = {
    "worst": {"labels": "worst"},
    "aggregate": {"labels": "aggregate"},
    "instance": {"noise": "instance:0.4"},
    "pair": {"noise": "pair:0.3"},
}
PART: dict[str, Any] = {"training_fraction": 0.25, "validation_fraction": 0.1, "evaluate_every": EVALUATE_EVERY}
MEASURES = (
    ("Held-out noisy labels that the last network predicts: what decides", "validation_score"),
    ("Test accuracy", "test_accuracy"),
    ("Training labels that are right, cleaned", "recovery"),
    ("Area under the ROC curve of 'is this label wrong'", "issue_auc"),
)


def train(options: AblationOptions, run: Run) -> Any:
    """Distillation without a step."""
    with ExitStack() as changes:
        for place, other in INSTEAD[options.without].items():
            changes.enter_context(patch(place, other))
        return distill.train(options, run)


ENTRIES: dict[str, Entry] = {
    WHOLE: Entry(AblationOptions(), train),
    **{f"without {step}": Entry(AblationOptions(without=step), train) for step in INSTEAD if step != "nothing"},
    "no networks in folds (rounds 0)": Entry(AblationOptions(rounds=0), train),
    "two rounds of them": Entry(AblationOptions(rounds=2), train),
}


def ablation(runner: Runner) -> Result:
    """Distillation and what is left of it without a step, on four labellings.

    Raises:
      Missing: the features are not there.
    """
    path = needed_features(runner)
    results: dict[str, Any] = {}
    for case in runner.either(tuple(CASES), ("worst",)):
        entries = {n: e.but(dataset=f"npz:{path}", **PART, **CASES[case]) for n, e in ENTRIES.items()}
        results[case] = all_over_seeds(runner, f"ablation {case}", entries)
    lines = [
        "# ablation: distillation in folds without one of its steps",
        "",
        f"Percent, mean ± standard deviation over {runner.seeds} seeds. 10,000 of CIFAR-10N's images as features, of "
        "which a tenth is held out with its noisy labels, by bare defaults.",
        "",
    ]
    for title, measure in MEASURES:
        rows = [[n, *(spread(results[case][n]["last"][measure]) for case in results)] for n in ENTRIES]
        lines += [f"{title}:", "", *table(["", *results], rows), ""]
    return Result({"results": results}, "\n".join(lines), claims_of(results))


def claims_of(results: dict[str, Any]) -> list[Claim]:
    """On each labelling: whether held-out noisy labels speak for leaving a step out, and whether the truth does."""
    claims = []
    for measure, text in (
        ("validation_score", "held-out noisy labels speak for no other form on {}"),
        ("test_accuracy", "no other form has a higher test accuracy on {}"),
        ("recovery", "no other form has more right labels on {}"),
    ):
        for case, rows in results.items():
            whole = rows[WHOLE]["last"][measure]
            gains = {n: paired(row["last"][measure], whole) for n, row in rows.items() if n != WHOLE}
            none = all(gain["verdict"] != "ahead" for gain in gains.values())
            said = "; ".join(f"{name} {interval(gain)}" for name, gain in gains.items())
            claims.append(claim(text.format(case), none, said))
    return claims
