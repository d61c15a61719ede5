"""The page that a run leaves behind: what came out, and which labels to look at first."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nlx.cleaning.table import LabelTable
from nlx.data.dataset import ImageFiles, Inputs
from nlx.data.decode import decode
from nlx.files import replacing
from nlx.report import page
from nlx.report.page import definitions, document, embedded, escape

_THUMBNAIL = 144  # pixels; shown at half of that, so that it is sharp on fine screens
_MOST_CLASSES = 200  # rows of the table of classes
_RATES = ("test_accuracy", "test_map", "recovery", "posterior_map", "validation_", "given_label_recovery")
_HEADINGS = {
    "curves": "Training",
    "quality": "Quality of the annotations",
    "transitions": "From latent to noisy labels",
}
_MOST_LISTED = 20  # entries of a list among the facts


def write_report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    summary: Mapping[str, Any],
    plots: Sequence[Path],
    table: LabelTable,
    class_names: Sequence[str],
    inputs: Inputs | None,
    top: int = 48,
) -> None:
    """Write a run's report as one HTML file with everything in it: no other file, no network.

    Args:
      path: the file; it appears whole or not at all.
      title: the heading.
      facts: what was run: method, data, sizes.
      summary: what came out: scores under ``last`` and ``best`` (numbers, or ``value`` and ``epoch``), and further
        entries, which are listed below the scores.
      plots: PNG files to show, in this order.
      table: the cleaned labels.
      class_names: K names.
      inputs: the training set's images, uint8 ``[n, H, W, C]`` or files, for thumbnails; feature vectors and None
        give none.
      top: how many of the most suspicious examples to list.

    Raises:
      ValueError: class names or images do not fit the table.
      OSError: a plot cannot be read or the page cannot be written.
    """
    if len(class_names) != table.posterior.shape[1]:
        raise ValueError(f"class_names has {len(class_names)} names for {table.posterior.shape[1]} classes")
    if inputs is not None and len(table) > 0 and len(inputs) <= table.index.max():
        raise ValueError(f"inputs has {len(inputs)} examples, the table goes to index {table.index.max()}")
    names = [escape(name) for name in class_names]
    parts = [
        f"<h1>{escape(title)}</h1>",
        _lead(table),
        definitions((_words(name), _shown(name, value)) for name, value in facts.items()),
        "<h2>Results</h2>",
        _scores(summary),
        *_figures(plots),
        f"<h2>The {min(top, len(table)):,} most suspicious labels</h2>",
        "<p>Ordered by the probability that the given label is right, the lowest first. "
        + ("A label of several classes is as probable as its least probable entry. " if table.multi_label else "")
        + "The whole list is in labels.parquet.</p>",
        _suspicious(table, names, inputs, top),
        "<h2>Suggested changes by class</h2>",
        _by_class(table, names),
    ]
    with replacing(path) as file:
        file.write(document(title, "\n".join(parts)).encode())


def _lead(labels: LabelTable) -> str:
    changed = labels.changed.any(axis=1) if labels.multi_label else labels.changed
    count = int(changed.sum())
    share = f" ({count / len(labels):.1%})" if len(labels) else ""
    line = labels.guard.get("line")
    guard = f"<p>Without the truth: {escape(line)}.</p>" if line else ""
    return guard + (
        f'<p class="soft">Of {len(labels):,} given labels, {count:,}{share} would change, by the posterior '
        f"<em>{escape(labels.chosen)}</em>.</p>"
    )


def _scores(summary: Mapping[str, Any]) -> str:
    last, best = (dict(summary.get(name) or {}) for name in ("last", "best"))
    rows = []
    for name in dict.fromkeys([*last, *best]):
        at = best.get(name)
        epoch = at.get("epoch", "") if isinstance(at, Mapping) else ""
        value = at.get("value") if isinstance(at, Mapping) else at
        rows.append((_words(name), _shown(name, last.get(name)), _shown(name, value), escape(epoch)))
    scores = ""
    if rows:
        header = ("Score", "Last epoch", "Best epoch", "which was")
        scores = page.table(header, rows, numbers=header[1:], style="narrow")
        if best:
            scores += '<p class="soft">The best epoch is known with hindsight only; compare methods by the last.</p>'
    others = [(path, value) for path, value in _flat(summary) if path[0] not in ("last", "best")]
    details = definitions(
        ((" · ".join(map(_words, path)), _shown(path[-1], value)) for path, value in others), style="plain"
    )
    return scores + (f"<details><summary>Run</summary>{details}</details>" if others else "")


def _figures(plots: Sequence[Path]) -> Iterator[str]:
    for plot in plots:
        name = _HEADINGS.get(Path(plot).stem, _words(Path(plot).stem))
        picture = embedded(Path(plot).read_bytes(), name)
        yield f"<h2>{escape(name)}</h2>\n<figure>{picture}</figure>"


def _suspicious(labels: LabelTable, names: list[str], inputs: Inputs | None, top: int) -> str:
    images = inputs if inputs is not None and len(inputs.shape) == 4 else None
    header = [] if images is None else ["Image"]
    header += ["Example", "Given", "p(given)", "Suggested", "p(suggested)"]
    header += ["True"] if labels.true_label is not None else []
    rows = []
    for row in labels.most_suspicious(top):
        index = int(labels.index[row])
        suggested = _changes(labels, names, row) if labels.multi_label else _class(labels, names, row)
        cells = [] if images is None else [_thumbnail(images, index)]
        cells += [f"{index}", _label(labels.noisy_label[row], names), _percent(labels.label_score[row])]
        cells += [suggested, _percent(labels.probability[row].min())]
        cells += [_label(labels.true_label[row], names)] if labels.true_label is not None else []
        rows.append(cells)
    return page.table(header, rows, numbers=("Example", "p(given)", "p(suggested)"))


def _class(labels: LabelTable, names: list[str], row: int) -> str:
    style = "added" if labels.changed[row] else "soft"
    return f'<span class="{style}">{names[labels.cleaned_label[row]]}</span>'


def _changes(labels: LabelTable, names: list[str], row: int) -> str:
    """The classes to add to a label and to remove from it, each with its probability to be right."""
    changes = []
    for c in np.flatnonzero(labels.changed[row]):
        style, sign = ("removed", "−") if labels.noisy_label[row, c] else ("added", "+")
        changes.append(f'<span class="{style}">{sign}{names[c]}</span>&nbsp;{_percent(labels.probability[row, c])}')
    return ", ".join(changes) or '<span class="soft">no change</span>'


def _label(label: np.ndarray, names: list[str]) -> str:
    if label.ndim == 0:
        return names[int(label)]
    return ", ".join(names[c] for c in np.flatnonzero(label)) or '<span class="soft">none</span>'


def _by_class(labels: LabelTable, names: list[str]) -> str:
    k = len(names)
    if labels.multi_label:
        given = labels.noisy_label.astype(bool)
        cleaned = labels.cleaned_label.astype(bool)
    else:
        given, cleaned = (np.arange(k) == label[:, None] for label in (labels.noisy_label, labels.cleaned_label))
    removed, added = (given & ~cleaned).sum(axis=0), (~given & cleaned).sum(axis=0)
    order = np.argsort(-(removed + added), kind="stable")[:_MOST_CLASSES]
    header, recalls = ["Class", "Given", "Removed", "Added", "Cleaned"], []
    if labels.true_label is not None:
        true = labels.true_label.astype(bool) if labels.multi_label else np.arange(k) == labels.true_label[:, None]
        recalls = [(found & true).sum(axis=0) / np.maximum(true.sum(axis=0), 1) for found in (given, cleaned)]
        header += ["Recall of given", "Recall of cleaned"]
    rows = (
        (
            names[c],
            *(f"{counts[c]:,}" for counts in (given.sum(axis=0), removed, added, cleaned.sum(axis=0))),
            *(_percent(recall[c]) for recall in recalls),
        )
        for c in order
    )
    note = f'<p class="soft">The {_MOST_CLASSES} classes with the most changes of {k}.</p>' if k > _MOST_CLASSES else ""
    return note + page.table(header, rows, numbers=header[1:], style="narrow")


def _thumbnail(inputs: Inputs, index: int) -> str:
    if isinstance(inputs, ImageFiles):
        pixels = decode(inputs.paths[index], min(inputs.size, _THUMBNAIL), inputs.top)
    else:
        pixels = inputs[index]
        # One channel is grey, three are colours; of any other number the first is shown.
        pixels = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    large = max(image.size) > _THUMBNAIL // 2  # smaller ones are shown with their pixels as squares
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return embedded(buffer.getvalue(), f"example {index}", style="large" if large else "")


def _flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        more = f", … ({len(value)})" if len(value) > _MOST_LISTED else ""
        return escape(", ".join(map(str, value[:_MOST_LISTED])) + more)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escape(value)
    if name.startswith(_RATES):
        return _percent(value)
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(value: Any) -> str:
    return f"{float(value):.1%}"


def _words(name: str) -> str:
    words = name.replace("_", " ").replace("-", " ")
    return (words[:1].upper() + words[1:]).replace(" map", " mAP")
