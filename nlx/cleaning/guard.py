"""Whether cleaned labels are better than the given ones, as far as that can be known without the truth."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from nlx.cleaning.held_out import Judge, as_vectors
from nlx.cleaning.table import LabelTable
from nlx.methods.method import Posterior, chosen_candidate
from nlx.metrics import mean_average_precision

_SHOWN_CLASSES = 10
_FEWEST = 4  # labels of a class, below which its loss may be chance


class Interval(NamedTuple):
    """A mean with its 95 % interval: of chance among the examples, not of how good the judging models are."""

    mean: float
    low: float
    high: float

    def percent(self, sign: str = "", unit: str = "%") -> str:
        """In words, such as ``2.4 % [1.5, 3.3]``."""
        return f"{100 * self.mean:{sign}.1f} {unit} [{100 * self.low:{sign}.1f}, {100 * self.high:{sign}.1f}]"


def interval_of(values: np.ndarray) -> Interval:
    """The interval of the mean of ``[m]`` values."""
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


class Guard(NamedTuple):
    """What speaks for and against cleaned labels; no true label has been looked at.

    Attributes:
      noise: estimated share of the given labels (of several classes: of their entries) that are wrong.
      gain: how many more of the cleaned labels are right, as a share.
      hits: share of held-out given labels that models of the given and of the cleaned labels predict, or their mean
        average precision where there are several to an example.
      difference: the second of these less the first.
      classes: given and cleaned labels of each class, ``[K]`` each.
      lost: classes that have a quarter of the cleaned labels that they should have, or less.
      verdict: ``better`` or ``worse`` where the interval of the gain says so. With several labels to an example, what
        is missing cannot be told from what is hard to see; cleaned labels are worse then, too, if models of them
        predict held-out given ones worse.
    """

    noise: Interval
    gain: Interval
    hits: tuple[float, float]
    difference: Interval
    classes: tuple[list[int], list[int]]
    lost: list[str]
    verdict: Literal["better", "worse", "open"]

    @property
    def line(self) -> str:
        """All of it in one line."""
        before, after = self.classes
        few = len(before) <= _SHOWN_CLASSES
        counts = f"; classes {'/'.join(map(str, before))} -> {'/'.join(map(str, after))}" if few else ""
        more = f" and {len(self.lost) - _SHOWN_CLASSES} more" if len(self.lost) > _SHOWN_CLASSES else ""
        gone = f"; nearly LOST: {', '.join(self.lost[:_SHOWN_CLASSES])}{more}" if self.lost else ""
        words = {"better": "better than", "worse": "WORSE than", "open": "not shown to differ from"}[self.verdict]
        gain, hits = self.gain.percent("+", "points"), [f"{100 * share:.1f}" for share in self.hits]
        return (
            f"cleaned labels look {words} the given ones: right more often by {gain}; given ones look wrong: "
            f"{self.noise.percent()}; held-out given labels hit {' -> '.join(hits)} %{counts}{gone}"
        )

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        intervals = {name: getattr(self, name)._asdict() for name in ("noise", "gain", "difference")}
        hits, classes = (dict(zip(("given", "cleaned"), pair, strict=True)) for pair in (self.hits, self.classes))
        about = {"held_out_hits": hits, "classes": classes, "classes_lost": self.lost}
        return {"verdict": self.verdict, **intervals, **about, "line": self.line}


def guard_of(judged: Judge, table: LabelTable) -> Guard:
    """Compare a table's cleaned labels with the given ones."""
    num_classes = table.posterior.shape[1]
    given, cleaned = (as_vectors(labels, num_classes) for labels in (table.noisy_label, table.cleaned_label))
    gain = interval_of(judged.right(cleaned[judged.rows]) - judged.right(judged.given))
    before, after = (_hits(judged, labels[judged.rows]) for labels in (given, cleaned))
    expected = judged.beliefs.mean(axis=0) * len(table)
    lost = (cleaned.sum(axis=0) <= expected / 4) & (expected >= _FEWEST)
    change = interval_of(after - before)
    worse = gain.high < 0 or (not judged.one_class and change.high < 0)
    return Guard(
        interval_of(1 - judged.right(judged.given)),
        gain,
        (float(np.mean(before)), float(np.mean(after))),
        change,
        (given.sum(axis=0, dtype=int).tolist(), cleaned.sum(axis=0, dtype=int).tolist()),
        [table.class_names[c] for c in np.flatnonzero(lost)],
        "worse" if worse else "better" if gain.low > 0 else "open",
    )


def merits(judged: Judge, posterior: Posterior) -> dict[str, float]:
    """How many labels each belief of a posterior gets right, as models judge that have not seen the given ones.

    A belief that copies the given labels gains nothing by it. Candidates of infinite cost are left out.

    Returns:
      Shares by name, the method's own choice first.
    """
    own, merit = chosen_candidate(posterior), {}
    for name, probs in sorted(beliefs_of(posterior).items(), key=lambda pair: pair[0] != own):
        judged_probs = probs[judged.rows]
        classes = as_vectors(np.argmax(judged_probs, axis=1), probs.shape[1])
        merit[name] = float(np.mean(judged.right(classes if judged.one_class else judged_probs >= 0.5)))
    return merit


def beliefs_of(posterior: Posterior) -> dict[str, np.ndarray]:
    """Probabilities ``[n, K]`` that labels may be cleaned with, by name: candidates, and columns that are beliefs."""
    costs = {name: float(np.mean(candidate.cost)) for name, candidate in posterior.candidates.items()}
    beliefs = {name: c.probs for name, c in posterior.candidates.items() if math.isfinite(costs[name])}
    beliefs |= {name: column.values for name, column in posterior.columns.items() if column.kind == "belief"}
    return {name: np.asarray(probs) for name, probs in beliefs.items()}


def _hits(judged: Judge, labels: np.ndarray) -> np.ndarray:
    """How well models of other labels predict held-out given ones: hits ``[m]``, or each fold's average precision."""
    scores = judged.models.scores(labels, judged.one_class)
    if judged.one_class:
        return np.take_along_axis(judged.given, np.argmax(scores, axis=1)[:, None], axis=1)[:, 0].astype(float)
    folds = judged.models.rows_of_folds
    return np.array([float(mean_average_precision(scores[rows], judged.given[rows])) for rows in folds])
