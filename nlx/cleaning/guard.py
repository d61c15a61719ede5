"""Whether cleaned labels are better than the given ones, as far as that can be known without the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from nlx.cleaning.held_out import Judge, as_vectors
from nlx.cleaning.table import LabelTable
from nlx.methods.method import Posterior, chosen_candidate

_SHOWN_CLASSES = 10


class Interval(NamedTuple):
    """A mean with its 95 % interval: of chance among the examples, not of how good the judging models are."""

    mean: float
    low: float
    high: float

    def percent(self, sign: str = "") -> str:
        """In words, such as ``2.4 % [1.5, 3.3]``."""
        return f"{100 * self.mean:{sign}.1f} % [{100 * self.low:{sign}.1f}, {100 * self.high:{sign}.1f}]"


def interval_of(values: np.ndarray) -> Interval:
    """The interval of the mean of ``[m]`` values."""
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


class Guard(NamedTuple):
    """What speaks for and against cleaned labels; no true label has been looked at.

    Attributes:
      noise: estimated share of the given labels (of several classes: of their entries) that are wrong.
      gain: how many more of the cleaned labels are right, as a share.
      hits: share of held-out given labels that models of the given and of the cleaned labels predict.
      difference: the second of these less the first.
      classes: given and cleaned labels of each class, ``[K]`` each.
      verdict: ``better`` or ``worse`` where the interval of the gain says so.
    """

    noise: Interval
    gain: Interval
    hits: tuple[float, float]
    difference: Interval
    classes: tuple[list[int], list[int]]
    verdict: Literal["better", "worse", "open"]

    @property
    def line(self) -> str:
        """All of it in one line."""
        before, after = self.classes
        few = len(before) <= _SHOWN_CLASSES
        counts = f"; classes {'/'.join(map(str, before))} -> {'/'.join(map(str, after))}" if few else ""
        lost = sum(b > 0 and a == 0 for b, a in zip(before, after, strict=True))
        gone = f"; {lost} of {len(before)} classes lose all labels" if lost else ""
        words = {"better": "better than", "worse": "WORSE than", "open": "not shown to differ from"}[self.verdict]
        return (
            f"cleaned labels look {words} the given ones: right more often by {self.gain.percent('+')}; given ones look "
            f"wrong: {self.noise.percent()}; held-out given labels hit {100 * self.hits[0]:.1f} -> "
            f"{100 * self.hits[1]:.1f} %{counts}{gone}"
        )

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        intervals = {name: getattr(self, name)._asdict() for name in ("noise", "gain", "difference")}
        hits, classes = (dict(zip(("given", "cleaned"), pair, strict=True)) for pair in (self.hits, self.classes))
        return {"verdict": self.verdict, **intervals, "held_out_hits": hits, "classes": classes, "line": self.line}


def guard_of(judged: Judge, table: LabelTable) -> Guard:
    """Compare a table's cleaned labels with the given ones."""
    num_classes = table.posterior.shape[1]
    given, cleaned = (as_vectors(labels, num_classes) for labels in (table.noisy_label, table.cleaned_label))
    gain = interval_of(judged.right(cleaned[judged.rows]) - judged.right(judged.given))
    before, after = (_hits(judged, labels[judged.rows]) for labels in (given, cleaned))
    return Guard(
        interval_of(1 - judged.right(judged.given)),
        gain,
        (float(np.mean(before)), float(np.mean(after))),
        interval_of(after - before),
        (given.sum(axis=0, dtype=int).tolist(), cleaned.sum(axis=0, dtype=int).tolist()),
        "better" if gain.low > 0 else "worse" if gain.high < 0 else "open",
    )


def best_belief(judged: Judge, posterior: Posterior) -> tuple[str, np.ndarray]:
    """The belief whose labels are right most often, and its probabilities ``[n, K]``.

    Judged by models that have not seen the label: a belief that copies the given labels gains nothing by it.

    Args:
      judged: what these models believe.
      posterior: a method's; its candidates, and columns that are beliefs. Of equal ones the method's own choice.
    """
    beliefs = candidates(posterior)
    own = chosen_candidate(posterior)

    def merit(name: str) -> tuple[float, bool]:
        probs = beliefs[name][judged.rows]
        labels = as_vectors(np.argmax(probs, axis=1), probs.shape[1]) if _one_class(judged) else probs >= 0.5
        return round(float(np.mean(judged.right(labels))), 6), name == own

    best = max(beliefs, key=merit)
    return best, beliefs[best]


def candidates(posterior: Posterior) -> Mapping[str, np.ndarray]:
    """Probabilities ``[n, K]`` that labels may be cleaned with, by name."""
    columns = {name: column.values for name, column in posterior.columns.items() if column.kind == "belief"}
    return {name: np.asarray(p) for name, p in {**{n: c.probs for n, c in posterior.candidates.items()}, **columns}.items()}


def _one_class(judged: Judge) -> bool:
    return bool((judged.given.sum(axis=1) == 1).all())


def _hits(judged: Judge, labels: np.ndarray) -> np.ndarray:
    """How much of each given label the models of other labels predict out of fold, ``[m]``."""
    scores = judged.models.scores(labels)
    if _one_class(judged):
        return np.take_along_axis(judged.given, np.argmax(scores, axis=1)[:, None], axis=1)[:, 0].astype(float)
    return np.mean((scores > 0) == (judged.given == 1), axis=1)
