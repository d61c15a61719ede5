"""The list of suspicious labels: a table that is there without a script, and data for one that filters and sorts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from nlx.cleaning.reasons import reasons
from nlx.cleaning.table import LabelTable
from nlx.data.dataset import Inputs
from nlx.report import page
from nlx.report.page import escape, visible
from nlx.report.thumbnails import is_large, thumbnails

MOST = 5000  # rows that the page holds
_BYTES = 6_000_000  # of pictures in the page

_CONTROLS = """<form id="controls" hidden aria-label="Filter and sort">
<label>Given <select name="given"><option value="">any class</option></select></label>
<label>Proposed <select name="proposed"><option value="">any class</option></select></label>
<label>Order <select name="order"><option value="rank">most suspicious first</option>
<option value="-rank">least suspicious first</option><option value="-sure">surest proposal first</option>
<option value="given">given class</option><option value="proposed">proposed class</option>
<option value="row">row</option></select></label>
<label>Search <input type="search" name="text" autocomplete="off"></label>
<label class="check"><input type="checkbox" name="changed"> only proposed changes</label>
<div class="buttons"><button type="button" name="everything">Show all</button>
<button type="button" name="select">Select these</button><button type="button" name="none">Select none</button>
<button type="button" name="save">Download CSV</button></div>
</form>
<p id="status" role="status" tabindex="-1"></p>
"""
_PAGER = """<nav id="pager" hidden aria-label="Pages"><button type="button" name="back">Previous</button>
<button type="button" name="on">Next</button></nav>
"""


def suspicious(labels: LabelTable, names: Sequence[str], inputs: Inputs | None, top: int) -> str:
    """HTML of the most suspicious labels: controls, a table of the first, and the data of up to 5,000.

    Args:
      labels: the table.
      names: of the classes.
      inputs: images for thumbnails.
      top: rows of the table that is there without a script.
    """
    order = labels.most_suspicious(MOST)
    index = labels.index[order].tolist()
    pictures = thumbnails(inputs, index, _BYTES)
    extra = _told(labels, order)
    rows = [_row(labels, names, int(row), [column[i] for column in extra.values()]) for i, row in enumerate(order)]
    data = {
        "classes": [visible(name) for name in names],
        "extra": [name.capitalize() for name in extra],
        "true": labels.true_label is not None,
        "large": is_large(inputs),
        "pictures": pictures,
        "rows": rows,
    }
    header = ["Picture", "Row"] if pictures else ["Row"]
    header += [*map(str.capitalize, extra), "Given", "p(given)", "Proposed", "p(proposed)"]
    header += ["True"] if labels.true_label is not None else []
    cells = (_cells(row, pictures[i] if i < len(pictures) else "", data) for i, row in enumerate(rows[:top]))
    shown = page.table(
        header,
        cells,
        numbers=("Row", "p(given)", "p(proposed)"),
        style="labels",
        caption=f"The {min(top, len(rows)):,} most suspicious labels",
    )
    # Within a script only "</" and "<!--" end or begin anything; no other character of markup is left either.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return f'{_CONTROLS}<div id="list">{shown}</div>{_PAGER}<script type="application/json" id="data">{text}</script>'


def _row(labels: LabelTable, names: Sequence[str], row: int, extra: list[str]) -> list[Any]:
    """Row, further columns, given, its probability, proposed, its probability, whether it changes, classes, true."""
    given, proposed = labels.noisy_label[row], labels.cleaned_label[row]
    if labels.multi_label:
        classes = [np.flatnonzero(label).tolist() for label in (given, proposed)]
        told = _changes(labels, names, row)
    else:
        classes, told = [[int(given)], [int(proposed)]], visible(names[int(proposed)])
    numbers = float(labels.label_score[row]), float(np.min(labels.probability[row]))
    true = "" if labels.true_label is None else _label(labels.true_label[row], names)
    changed = int(np.any(labels.changed[row]))
    place = labels.index[row] if labels.origin is None else labels.origin.row[row]
    return [
        *(int(place), extra, _label(given, names), round(numbers[0], 4)),
        *(told, round(numbers[1], 4), changed, *classes, true),
    ]


def _cells(row: list[Any], picture: str, data: dict[str, Any]) -> list[str]:
    index, extra, given, score, proposed, sure, changed, _, _, true = row
    image = f'<img{" class=large" if data["large"] else ""} alt="example {index}" src="{picture}">' if picture else ""
    style = "added" if changed else "soft"
    return [
        *([image] if data["pictures"] else []),
        f"{index}",
        *map(escape, extra),
        escape(given),
        f"{score:.1%}",
        f'<span class="{style}">{escape(proposed)}</span>',
        f"{sure:.1%}",
        *([escape(true)] if data["true"] else []),
    ]


def _changes(labels: LabelTable, names: Sequence[str], row: int) -> str:
    """The classes to add to a label and to remove from it, each with its probability to be right."""
    changes = [
        f"{'−' if labels.noisy_label[row, c] else '+'}{visible(names[int(c)])}\xa0{labels.probability[row, c]:.1%}"
        for c in np.flatnonzero(labels.changed[row])
    ]
    return ", ".join(changes) or "no change"


def _label(label: np.ndarray, names: Sequence[str]) -> str:
    if label.ndim == 0:
        return visible(names[int(label)])
    return ", ".join(visible(names[int(c)]) for c in np.flatnonzero(label)) or "none"


def _told(labels: LabelTable, order: np.ndarray) -> dict[str, list[str]]:
    """What else is known of these rows, in words: the user's own id or path, and why the label is doubted."""
    origin, why = labels.origin, reasons(labels, order)
    key = {} if origin is None or origin.name is None or origin.key is None else {str(origin.name): origin.key[order]}
    told = key | ({"reason": why} if any(why) else {})
    return {name: [visible(value) for value in np.asarray(values).tolist()] for name, values in told.items()}
