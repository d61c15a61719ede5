"""Whether cleaned labels are better than the given ones, as far as that can be known without the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from nlx.cleaning.estimates import Interval
from nlx.cleaning.held_out import Judge, as_vectors
from nlx.cleaning.table import LabelTable
from nlx.methods.method import Posterior, chosen_candidate
from nlx.methods.top import Top
from nlx.metrics import mean_average_precision

_SHOWN_CLASSES = 10
_FEWEST = 4  # labels of a class, below which its loss may be chance


def interval_of(values: np.ndarray) -> Interval:
    """The mean of ``[m]`` values with its 95 % interval: of chance among the examples, not of how good judges are."""
    mean, half = np.mean(values), 1.96 * np.std(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def some_of(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - _SHOWN_CLASSES
    return ", ".join(map(str, names[:_SHOWN_CLASSES])) + (f" and {more} more" if more > 0 else "")


class Guard(NamedTuple):
    """What speaks for and against cleaned labels; no true label has been looked at.

    Attributes:
      noise: estimated share of the given labels that are wrong; None where there are several to an example.
      gain: how many more of the cleaned labels are right, as a share; None likewise.
      hits: share of held-out given labels that models of the given and of the cleaned labels predict, or their mean
        average precision where there are several to an example.
      difference: the second of these less the first.
      classes: given and cleaned labels of each class, ``[K]`` each.
      lost: classes that have a quarter of the cleaned labels that they should have, or less.
      verdict: ``worse`` where a class is lost; else ``better`` or ``worse`` where the interval of the gain says so, or
        that of the difference where there is no gain; ``open`` where the judges know no more of one label to an example
        than which class is the most frequent.
      remaining: share of the cleaned labels that are wrong, where that is estimated.
    """

    noise: Interval | None
    gain: Interval | None
    hits: tuple[float, float]
    difference: Interval
    classes: tuple[list[int], list[int]]
    lost: list[str]
    verdict: Literal["better", "worse", "open"]
    remaining: Interval | None = None

    @property
    def line(self) -> str:
        """All of it in one line."""
        before, after = self.classes
        few = len(before) <= _SHOWN_CLASSES
        counts = f"; classes {'/'.join(map(str, before))} -> {'/'.join(map(str, after))}" if few else ""
        gone = f"classes nearly LOST: {some_of(self.lost)}; " if self.lost else ""
        words = {"better": "better than", "worse": "WORSE than", "open": "not shown to differ from"}[self.verdict]
        hits = " -> ".join(f"{100 * share:.1f}" for share in self.hits)
        known = f"held-out given labels ranked, mAP {hits} %"
        if self.noise is not None and self.gain is not None:
            known = f"right more often by {self.gain.percent('+', ' points')}; given ones look wrong: "
            known += f"{self.noise.percent()}; held-out given labels hit {hits} %"
        kept = ", which are kept" if self.keeps else ""
        return f"cleaned labels look {words} the given ones{kept}: {gone}{known}{counts}"

    @property
    def keeps(self) -> bool:
        """Whether given labels are kept, see :func:`guarded`."""
        return self.gain is None and bool(self.difference.high < 0)

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        each = {name: getattr(self, name) for name in ("noise", "gain", "difference", "remaining")}
        intervals = {
            name: None if value is None else {bound: float(x) for bound, x in value._asdict().items()}
            for name, value in each.items()
        }
        hits, classes = (dict(zip(("given", "cleaned"), pair, strict=True)) for pair in (self.hits, self.classes))
        about = {"held_out_hits": hits, "classes": classes, "classes_lost": self.lost}
        return {"verdict": self.verdict, **intervals, **about, "line": self.line}


def guard_of(judged: Judge, table: LabelTable) -> Guard:
    """Compare a table's cleaned labels with the given ones."""
    num_classes = table.posterior.shape[1]
    both = table.noisy_label, table.cleaned_label
    given, cleaned = (as_vectors(labels[judged.rows], num_classes) for labels in both)
    given_count, cleaned_count = (_count(labels, num_classes) for labels in both)
    noise, gain, expected = None, None, given_count
    if judged.beliefs is not None:
        right = [np.sum(judged.beliefs * labels, axis=1) for labels in (judged.given, cleaned)]
        noise, gain = interval_of(1 - right[0]), interval_of(right[1] - right[0])
        expected = _expected(judged.beliefs, len(table))
    before, after = (_hits(judged, labels) for labels in (given, cleaned))
    lost = _nearly_gone(cleaned_count, expected)
    change = interval_of(after - before)
    decides, informed = change, True
    if gain is not None:
        frequent = judged.given[:, np.argmax(judged.given.sum(axis=0))]
        decides, informed = gain, bool(interval_of(before - frequent).low > 0)
    better, worse = informed and decides.low > 0, informed and decides.high < 0
    return Guard(
        noise,
        gain,
        (float(np.mean(before)), float(np.mean(after))),
        change,
        (given_count.tolist(), cleaned_count.tolist()),
        [table.class_names[c] for c in np.flatnonzero(lost)],
        "worse" if worse or lost.any() else "better" if better else "open",
    )


def guarded(table: LabelTable, guard: Guard) -> LabelTable:
    """The table with what speaks for and against it.

    Where several labels to an example look worse after cleaning, the given ones are kept, and nothing is proposed: a
    model that ranks held-out labels worse knows too little of them. Order and probabilities stay. (Of one label to an
    example nothing is kept back: judges that are too weak for that call good labels worse.)
    """
    table = replace(table, guard=guard.summary())
    if not guard.keeps:
        return table
    given, trusted = np.asarray(table.noisy_label), table.extras.get("trusted")
    if trusted is not None:
        given = np.where(trusted[:, None], table.cleaned_label, given)
    probability = np.where(given == 1, table.posterior, 1 - table.posterior)
    return replace(table, cleaned_label=given, probability=probability)


def unpredicted(judged: Judge, posterior: Posterior) -> list[int]:
    """Classes that the classifier hardly ever predicts, though examples of it are there.

    A robust loss may never learn a rare class; test accuracy suffers then, however well labels are cleaned. None is
    named where there are several labels to an example.
    """
    probs = beliefs_of(posterior).get("classifier")
    if judged.beliefs is None or probs is None:
        return []
    size, num_classes = judged.beliefs.shape
    count = _count(np.argmax(probs[judged.rows], axis=1), num_classes)
    return np.flatnonzero(_nearly_gone(count, _expected(judged.beliefs, size))).tolist()


def _expected(beliefs: np.ndarray, size: int) -> np.ndarray:
    """Examples of each class among ``size`` of them, as judges believe, ``[K]``."""
    return np.asarray(beliefs.mean(axis=0) * size)


def _nearly_gone(count: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Classes ``[K]`` with a quarter of what they should have, or less."""
    return np.asarray((count <= expected / 4) & (expected >= _FEWEST))


def _count(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels of each class, int ``[K]``."""
    if labels.ndim == 2:
        return np.asarray(labels.sum(axis=0, dtype=int))
    return np.bincount(labels[labels >= 0], minlength=num_classes)


class Belief(NamedTuple):
    """What labels are cleaned with.

    Attributes:
      name: of a candidate or a column of the posterior.
      probs: p(true label), ``[n, K]``, or the likeliest classes of it.
      merits: of one label to an example, the share that each belief gets right, as the judges see it.
    """

    name: str
    probs: Any
    merits: dict[str, float]


def best_belief(judged: Judge, posterior: Posterior) -> Belief:
    """The belief that gets most labels right, as models judge that have not seen the given ones.

    One that copies the given labels gains nothing by it. Candidates of infinite cost are left out. Among equals, and
    where there are several labels to an example, it is the method's own choice.
    """
    beliefs, name, merits = beliefs_of(posterior), chosen_candidate(posterior), {}
    if judged.beliefs is not None:
        each = np.arange(len(judged.rows))
        for belief, probs in beliefs.items():
            merits[belief] = float(np.mean(judged.beliefs[each, np.argmax(probs[judged.rows], axis=1)]))
        name = max(merits, key=lambda belief: (merits[belief], belief == name))
    return Belief(name, beliefs[name], merits)


def beliefs_of(posterior: Posterior) -> dict[str, Any]:
    """Probabilities ``[n, K]`` that labels may be cleaned with, by name: candidates, and columns that are beliefs."""
    costs = {name: float(np.mean(candidate.cost)) for name, candidate in posterior.candidates.items()}
    beliefs = {name: c.probs for name, c in posterior.candidates.items() if math.isfinite(costs[name])}
    beliefs |= {name: column.values for name, column in posterior.columns.items() if column.kind == "belief"}
    return {name: probs if isinstance(probs, Top) else np.asarray(probs) for name, probs in beliefs.items()}


def _hits(judged: Judge, labels: np.ndarray) -> np.ndarray:
    """How well models of other labels predict held-out given ones: hits ``[m]``, or each fold's average precision."""
    scores = judged.models.scores(labels, judged.one_class)
    if judged.one_class:
        return np.take_along_axis(judged.given, np.argmax(scores, axis=1)[:, None], axis=1)[:, 0].astype(float)
    folds = judged.models.rows_of_folds
    return np.array([float(mean_average_precision(scores[rows], judged.given[rows])) for rows in folds])
