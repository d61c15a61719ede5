"""What to clean labels with where a system's own belief makes them no better: models that have not seen them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from nlx.cleaning.evidence import joined, weigh
from nlx.cleaning.guard import Belief, Guard, guard_of, guarded
from nlx.cleaning.held_out import Judge
from nlx.cleaning.table import LabelTable
from nlx.data.dataset import Split
from nlx.methods.top import Top

JOINED, ALONE = "_joined", "second_opinion"


def helped(chosen: str) -> bool:
    """Whether labels were cleaned with more than the system's own belief."""
    return chosen == ALONE or chosen.endswith(JOINED)


class Opinion(NamedTuple):
    """The table that a belief makes, and how it stands beside the given labels."""

    table: LabelTable
    guard: Guard

    @property
    def standing(self) -> tuple[bool, int, float]:
        """The higher, the better, as judges see it: whether labels gain at all, classes that are not lost, the gain."""
        assert self.guard.gain is not None  # of one label to an example
        gain = float(self.guard.gain.value)
        return gain >= 0, -len(self.guard.lost), gain


def settled(
    judged: Judge,
    own: Belief,
    split: Split,
    built: Callable[[Any, str], LabelTable],
    evidence: Callable[[], np.ndarray] | None,
) -> LabelTable:
    """The table of cleaned labels, with what speaks for and against them.

    Where the labels of a system's own belief do not look better than the given ones, it is joined with held-out
    evidence, see :func:`nlx.cleaning.evidence.joined`, as ``NAME_joined``, if that helps; where these do not look
    better either, and worse than the evidence's own, that is taken alone, as ``second_opinion``; of few examples only
    where the system's own labels look worse than the given ones, for then the judges' word for it is too weak. The
    system's own belief stays as a column, and what spoke against it as ``own`` of the guard.

    Args:
      judged: what judges; other models than those of the evidence.
      own: what the system would clean with.
      split: what it was trained on.
      built: (belief, its name) -> table, in which trusted labels are certain.
      evidence: gives p(true label | x) by models that have not seen the label, float ``[n, K]``; None where there can
        be none, and the system's own belief stands.
    """
    first = _opinion(judged, own.probs, own.name, built)
    possible = judged.beliefs is not None and not isinstance(own.probs, Top)
    if first.guard.verdict == "better" or evidence is None or not possible:
        return guarded(first.table, first.guard)
    probs, known = evidence(), split.trusted_label
    both = joined(own.probs, probs, split.observed, known)
    tried = [first, _opinion(judged, both, own.name + JOINED, built)]
    worse = first.guard.verdict == "worse"
    if tried[-1].guard.verdict != "better" and (worse or not judged.sparse):
        tried.append(_opinion(judged, weigh(probs, split.observed, known).posterior, ALONE, built))
    best = max((o for o in tried if worse or o is first or o.guard.verdict == "better"), key=lambda o: o.standing)
    table = guarded(best.table, best.guard)
    table = replace(table, guard=table.guard | {"asked": [opinion.table.chosen for opinion in tried]})
    if best is first:
        return table
    kept = {} if own.name in table.extras else {f"{own.name}_posterior": own.probs}
    return replace(table, extras=kept | table.extras, guard=table.guard | {"own": first.guard.summary()})


def _opinion(judged: Judge, probs: Any, name: str, built: Callable[[Any, str], LabelTable]) -> Opinion:
    table = built(probs, name)
    return Opinion(table, guard_of(judged, table))
