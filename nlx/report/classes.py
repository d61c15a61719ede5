"""What became of each class: counts, and which is taken for which."""

from __future__ import annotations

import numpy as np

from nlx.cleaning.table import LabelTable
from nlx.report import page

_MOST_CLASSES = 200  # rows of the table
_MOST_CONFUSED = 14  # rows and columns of the picture


def confusions(labels: LabelTable, names: list[str]) -> str:
    """HTML of how often one class is proposed in place of another; each cell is a button that shows these examples.

    Args:
      labels: of one class each, or there is no such table.
      names: of the classes, as HTML.
    """
    if labels.multi_label or not labels.changed.any():
        return ""
    k = len(names)
    given, proposed = labels.noisy_label[labels.changed], labels.cleaned_label[labels.changed]
    counts = np.bincount(given.astype(np.int64) * k + proposed, minlength=k * k).reshape(k, k)
    often = np.argsort(-(counts.sum(axis=0) + counts.sum(axis=1)), kind="stable")[:_MOST_CONFUSED]
    shown = np.sort(often)
    top = int(np.max(counts[np.ix_(shown, shown)]))
    head = "".join(f'<th scope="col"><span>{names[j]}</span></th>' for j in shown)
    rows = []
    for i in shown:
        cells = "".join(_cell(int(counts[i, j]), top, names, i, j) for j in shown)
        rows.append(f'<tr><th scope="row">{names[i]}</th>{cells}</tr>\n')
    note = f"The {len(shown)} classes with the most changes of {k}. " if k > len(shown) else ""
    return (
        "<h2>Which class is taken for which</h2>\n"
        f'<p class="soft">{note}Rows: the given class. Columns: the proposed one. A number shows its examples.</p>\n'
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusions"><table class="heat"><thead><tr>'
        f"<td></td>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table></div>"
    )


def _cell(count: int, top: int, names: list[str], i: int, j: int) -> str:
    if not count:
        return "<td></td>"
    strength = round(100 * (count / top) ** 0.5)
    said = f"{count:,} of {names[i]} to {names[j]}"
    return (
        f'<td style="--heat:{strength}%"><button type="button" data-given="{i}" data-proposed="{j}" '
        f'aria-label="{said}">{count:,}</button></td>'
    )


def by_class(labels: LabelTable, names: list[str]) -> str:
    """HTML table of the classes: how many labels are given, removed, added and remain; those with most changes first.

    Of one label to an example, also how many of the given ones look wrong; recalls where the truth is known.
    """
    k = len(names)

    def count(*several: np.ndarray) -> np.ndarray:
        """Examples of each class by all of several labels ``[n]`` or ``[n, K]``; no array is ``[n, K]`` but these."""
        if labels.multi_label:
            return np.asarray(np.all(np.stack([x.astype(bool) for x in several]), axis=0).sum(axis=0))
        agree = np.all(np.stack([x == several[0] for x in several]), axis=0) & (several[0] >= 0)
        return np.bincount(several[0][agree], minlength=k)

    given, cleaned, true = labels.noisy_label, labels.cleaned_label, labels.true_label
    kept, before, after = count(given, cleaned), count(given), count(cleaned)
    order = np.argsort(-(before + after - 2 * kept), kind="stable")[:_MOST_CLASSES]
    counts = {"Given": before, "Removed": before - kept, "Added": after - kept, "Cleaned": after}
    shares = {}
    if not labels.multi_label:
        wrong = np.bincount(given, 1 - labels.label_score.astype(np.float64), k)
        shares["Look wrong"] = wrong / np.maximum(before, 1)
    if true is not None:
        for name, found in (("given", given), ("cleaned", cleaned)):
            shares[f"Recall of {name}"] = count(found, true) / np.maximum(count(true), 1)
    header = ["Class", *counts, *shares]
    rows = (
        (names[c], *(f"{x[c]:,}" for x in counts.values()), *(f"{float(x[c]):.1%}" for x in shares.values()))
        for c in order
    )
    note = f'<p class="soft">The {_MOST_CLASSES} classes with the most changes of {k}.</p>' if k > _MOST_CLASSES else ""
    return note + page.table(header, rows, numbers=header[1:], style="narrow", caption="Labels by class")
