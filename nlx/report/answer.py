"""The beginning of the page: how much is wrong, what is proposed, and whether that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from nlx.cleaning.guard import some_of
from nlx.cleaning.table import LabelTable
from nlx.report.page import definitions, escape

_SURE = 0.9
_MUCH = 0.4  # of all labels
_CHANCE = 1.5  # times chance, below which models know nothing


def answer(labels: LabelTable, told: Mapping[str, str]) -> str:
    """HTML of what came out, in figures, with what else is told, and of warnings."""
    changed, sure = labels.changed, labels.probability
    if labels.multi_label:
        sure = np.where(changed, sure, 1.0).min(axis=1, initial=1.0)  # of several changes, the least
        changed = np.asarray(changed.any(axis=1))
    count, n = int(changed.sum()), len(labels)
    figures = []
    if noise := labels.guard.get("noise"):
        bounds = f"[{100 * noise['low']:.1f}, {100 * noise['high']:.1f}]"
        figures.append(("Labels that look wrong", f"{100 * noise['value']:.1f} % {bounds}"))
    figures.append(("Labels proposed to change", f"{count:,} of {n:,}" + (f" ({count / n:.1%})" if n else "")))
    if count:
        surest = int((sure[changed] >= _SURE).sum())
        figures.append(("Proposals surer than 90 %", f"{surest:,}; all on average {sure[changed].mean():.0%}"))
    figures += [(name.capitalize(), said) for name, said in told.items()]
    warnings = "".join(f"<li>{escape(text)}</li>" for text in warnings_of(labels, count))
    line = labels.guard.get("line")
    guard = f"<p>Without the truth: {escape(line)}.</p>" if line else ""
    if own := labels.guard.get("own"):
        guard = f"<p>The system's own {escape(own['line'])}; so linear models in folds were asked.</p>{guard}"
    share = f" ({count / n:.1%})" if n else ""
    asked = (
        f'<section class="warning" aria-labelledby="warned"><h2 id="warned">Before you trust this</h2>'
        f"<ul>{warnings}</ul></section>"
        if warnings
        else ""
    )
    return (
        definitions(((name, escape(value)) for name, value in figures), style="answer")
        + asked
        + f"<details><summary>How this is known</summary>{guard}<p>Of {n:,} given labels, {count:,}{share} would "
        f"change, by the posterior <em>{escape(labels.chosen)}</em>.</p></details>"
    )


def warnings_of(labels: LabelTable, changed: int) -> Iterator[str]:
    """Sentences on why what came out may not be right."""
    guard, n, k = labels.guard, len(labels), len(labels.class_names)
    if not n:
        return
    hits = guard.get("held_out_hits", {}).get("given")
    if hits is not None and not labels.multi_label:
        often = np.max(np.bincount(labels.noisy_label, minlength=k)) / n
        if hits < min(_CHANCE / k, 1) or hits <= often:
            yield (
                f"Models that have not seen the labels predict {hits:.0%} of them, about what guessing would "
                f"({max(1 / k, often):.0%}): the inputs, as they are, say too little of the classes."
            )
    if guard.get("verdict") == "worse":
        advice = ": do not train on them" if changed else ", which are kept"
        yield f"Cleaned labels look worse than the given ones{advice}."
    if lost := guard.get("classes_lost"):
        yield f"Classes that nearly vanish among the cleaned labels: {some_of(lost)}."
    if missed := guard.get("classes_unpredicted"):
        yield f"The classifier hardly ever predicts: {some_of(missed)}. Take another loss or method for it."
    if changed > _MUCH * n:
        yield f"{changed / n:.0%} of all labels would change: look at some of them before you take any over."
    noise = guard.get("noise")
    if noise and not changed and noise["low"] > 0.01:
        yield (
            f"No label would change, though {100 * noise['value']:.0f} % look wrong: what was trained has learnt the "
            "labels by heart, or too little; train longer, or take nlx clean."
        )
