"""The page that a run leaves behind: what came out, and which labels to look at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nlx.cleaning.table import LabelTable
from nlx.data.dataset import Inputs
from nlx.files import replacing
from nlx.report import page
from nlx.report.answer import answer
from nlx.report.browse import MOST, suspicious
from nlx.report.classes import by_class, confusions
from nlx.report.page import definitions, document, embedded, escape

_RATES = ("test_accuracy", "test_map", "recovery", "posterior_map", "validation_", "given_label_recovery")
_HEADINGS = {
    "curves": "Training",
    "quality": "Quality of the annotations",
    "transitions": "From latent to noisy labels",
    "annotators.csv": "Whom to trust",
    "answers.parquet": "Answers most likely to be wrong",
    "questions.csv": "What to ask next, and whom",
}
_MOST_LISTED = 20  # entries of a list among the facts
_MOST_ROWS = 20  # of a table beside the labels


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
    told: Mapping[str, str] | None = None,
    top: int = 48,
) -> None:
    """Write a run's report as one HTML file with everything in it: no other file, no network.

    Args:
      path: the file; it appears whole or not at all.
      title: the heading.
      facts: what was run: method, data, sizes.
      summary: what came out: scores under ``last`` and ``best`` (numbers, or ``value`` and ``epoch``), and further
        entries, which are listed below the scores.
      plots: PNG files to show, and tables (.csv, .parquet) of which the first rows are, in this order.
      table: the cleaned labels.
      class_names: K names.
      inputs: the training set's images, uint8 ``[n, H, W, C]`` or files, for thumbnails; feature vectors and None
        give none.
      told: what else is known of the labels, in words, to stand at the beginning.
      top: how many of the most suspicious examples to list where scripts do not run; with them, 5,000 can be filtered,
        sorted, selected and downloaded.

    Raises:
      ValueError: class names or images do not fit the table.
      OSError: a plot or table cannot be read or the page cannot be written.
    """
    if len(class_names) != table.posterior.shape[1]:
        raise ValueError(f"class_names has {len(class_names)} names for {table.posterior.shape[1]} classes")
    if inputs is not None and len(table) > 0 and len(inputs) <= table.index.max():
        raise ValueError(f"inputs has {len(inputs)} examples, the table goes to index {table.index.max()}")
    names = [escape(name) for name in class_names]
    held = f"This page holds the first {MOST:,}; all" if len(table) > MOST else "All"
    parts = [
        f"<h1>{escape(title)}</h1>",
        answer(table, told or {}),
        "<h2>Labels to look at first</h2>",
        "<p>Ordered by the probability that the given label is right, the lowest first. "
        + ("A label of several classes is right if all of its entries are. " if table.multi_label else "")
        + f"{held} are in labels.parquet and issues.csv.</p>",
        suspicious(table, class_names, inputs, top),
        confusions(table, names),
        "<h2>Suggested changes by class</h2>",
        by_class(table, names),
        "<h2>Results</h2>",
        _scores(summary),
        *_figures(plots),
        "<h2>What was run</h2>",
        definitions((_words(name), _shown(name, value)) for name, value in facts.items()),
    ]
    with replacing(path) as file:
        file.write(document(title, "\n".join(parts)).encode())


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
        scores = page.table(header, rows, numbers=header[1:], style="narrow", caption="Scores")
        if best:
            scores += '<p class="soft">The best epoch is known with hindsight only; compare methods by the last.</p>'
    others = [(path, value) for path, value in _flat(summary) if path[0] not in ("last", "best")]
    details = definitions(
        ((" · ".join(map(_words, path)), _shown(path[-1], value)) for path, value in others), style="plain"
    )
    return scores + (f"<details><summary>Run</summary>{details}</details>" if others else "")


def _figures(plots: Sequence[Path]) -> Iterator[str]:
    for plot in map(Path, plots):
        name = _HEADINGS.get(plot.name, _HEADINGS.get(plot.stem, _words(plot.stem)))
        shown = _first_rows(plot) if plot.suffix in (".csv", ".parquet") else _picture(plot, name)
        yield f"<h2>{escape(name)}</h2>\n{shown}"


def _picture(path: Path, name: str) -> str:
    return f"<figure>{embedded(path.read_bytes(), name)}</figure>"


def _first_rows(path: Path) -> str:
    """The first rows of a table, and where the others are."""
    whole = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    first = whole.slice(0, _MOST_ROWS)
    numbers = [
        field.name for field in first.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    ]
    rows = [[_shown("", value) for value in row.values()] for row in first.to_pylist()]
    more = f"The first {len(rows)} of {len(whole):,} rows: all" if len(whole) > len(rows) else "All"
    note = f'<p class="soft">{more} are in {escape(path.name)}.</p>'
    return (
        page.table(
            [_words(name) for name in first.column_names], rows, numbers=list(map(_words, numbers)), caption=path.name
        )
        + note
    )


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
