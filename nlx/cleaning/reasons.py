"""Why a label is doubted, in words: what spoke against it, with figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from nlx.cleaning.neighbours import NEIGHBOURS
from nlx.cleaning.table import LabelTable
from nlx.methods.top import Top

_LOW = 0.5  # score below which a label that stays is explained too


def reasons(table: LabelTable, rows: np.ndarray | None = None) -> list[str]:
    """A sentence for each label that is changed or doubted or missing, and nothing for the others; of some rows.

    Which evidence there is depends on what was run: models that have not seen the label (``out_of_fold``), the given
    labels of the nearest neighbours (``near_given``, ``near_proposed``), networks' margins (``aum``), or the posterior.

    Examples:
      >>> from nlx.cleaning.table import label_table
      >>> reasons(label_table(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 1]), class_names=("ant", "bee")))
      ['posterior: ant 90 %, given bee 10 %', '']
    """
    rows = np.arange(len(table)) if rows is None else rows
    wanted = (table.changes | ~(_least(table) >= _LOW) | table.marked("trusted"))[rows]
    told = dict((_several if table.multi_label else _single)(table, rows[wanted]))
    return [told.get(row, "") for row in rows.tolist()]


def _least(table: LabelTable) -> np.ndarray:
    """Probability that the given label is right; of several classes, of its least probable entry."""
    if not table.multi_label:
        return table.label_score
    entries = np.where(table.noisy_label == 1, table.posterior, 1 - np.asarray(table.posterior))
    return np.where(table.labelled, entries.min(axis=1), np.nan)


def _single(table: LabelTable, rows: np.ndarray) -> Iterator[tuple[int, str]]:
    names, trusted, extras = table.class_names, table.marked("trusted"), table.extras
    wrong = table.marked("known_wrong")
    who = "models that have not seen the label" if "out_of_fold" in extras else _words(table.chosen)
    probs: Any = extras.get("out_of_fold", table.posterior)
    near = min(NEIGHBOURS, int(table.labelled.sum()) - 1)
    place = np.argsort(np.argsort(extras["aum"])) / max(1, len(table) - 1) if "aum" in extras else None
    of_proposed, of_given = (_entries(probs, rows, labels[rows]) for labels in (table.cleaned_label, table.noisy_label))
    for i, p_proposed, p_given in zip(rows.tolist(), of_proposed.tolist(), of_given.tolist(), strict=True):
        given, proposed = int(table.noisy_label[i]), int(table.cleaned_label[i])
        if trusted[i]:
            yield i, f"checked: {names[proposed]}"
            continue
        differs = given not in (-1, proposed) and not wrong[i]
        parts = ["no label"] if given < 0 else [f"checked: not {names[given]}"] if wrong[i] else []
        parts.append(f"{who}: {names[proposed]} {_percent(p_proposed)}")
        parts[-1] += f", given {names[given]} {_percent(p_given)}" if differs else ""
        if "near_given" in extras and given >= 0:
            parts.append(f"of {near} neighbours {extras['near_proposed'][i]} are {names[proposed]}")
            parts[-1] += f", {extras['near_given'][i]} {names[given]}" if differs else ""
        if place is not None and given >= 0:
            lower = _percent(1 - place[i])
            parts.append(f"while networks train its margin is {extras['aum'][i]:.1f}, lower than that of {lower}")
        yield i, "; ".join(parts)


def _entries(probs: Any, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What rows of a belief say of a label each, -1 being any, ``[m]``."""
    if isinstance(probs, Top):
        return jax.tree.map(lambda column: column[rows], probs).entries(labels)
    return np.asarray(probs[rows, labels])


def _several(table: LabelTable, rows: np.ndarray) -> Iterator[tuple[int, str]]:
    for i in rows.tolist():
        given, posterior = table.noisy_label[i], table.posterior[i]
        changes = [
            f"{'without' if given[c] == 1 else 'with'} {table.class_names[c]} {_percent(table.probability[i, c])}"
            for c in np.flatnonzero(table.changed[i])
        ]
        least = table.class_names[int(np.argmin(np.where(given == 1, posterior, 1 - posterior)))]
        said = "no label" if given[0] < 0 else ", ".join(changes) or f"{least} is in doubt"
        yield i, "checked" if table.marked("trusted")[i] else f"{_words(table.chosen)}: {said}"


def _percent(share: float) -> str:
    return f"{100 * float(share):.0f} %"


def _words(name: str) -> str:
    return name.replace("_", " ")
