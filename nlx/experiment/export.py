"""What a finished run leaves for its user: cleaned labels, pictures, a report and a summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nlx.cleaning.guard import best_belief, unpredicted
from nlx.cleaning.held_out import Judge
from nlx.cleaning.label_files import write_issues, write_labels
from nlx.cleaning.readme import write_readme
from nlx.cleaning.second_opinion import settled
from nlx.cleaning.table import Belief, LabelTable, label_table, with_trusted
from nlx.data import Dataset
from nlx.data.dataset import Split
from nlx.experiment.run_folder import versions, write_json
from nlx.methods.method import Method, Params, Posterior
from nlx.methods.top import likeliest
from nlx.report.heatmaps import transition_comparison
from nlx.report.plots import outlier_curve, training_curves
from nlx.report.report import write_report
from nlx.training.evaluation import best, class_recall, given_recovery, last, recovery, true_transition
from nlx.training.observers import Row

Picture = Callable[[Path, LabelTable, Dataset], list[Path]]
"""(run folder, cleaned labels, data) -> paths of the pictures it has written there."""


def table_of(
    posterior: Posterior, data: Dataset, method: str, judged: Judge, evidence: Callable[[], np.ndarray] | None = None
) -> LabelTable:
    """Cleaned labels, with a method's own columns and candidates, and whether the true label was trusted.

    Held-out models choose the belief that they are cleaned with, and the table says what these hold of the result;
    where that is little, the evidence counts as well, see :func:`nlx.cleaning.second_opinion.settled`.
    """
    extras: dict[str, Belief] = {name: column.values for name, column in posterior.columns.items()}
    if len(posterior.candidates) > 1:
        extras |= {f"{name}_posterior": c.probs for name, c in posterior.candidates.items()}
    if data.train.trusted is not None:
        extras["trusted"] = data.train.trusted
    if data.train.wrong is not None:
        extras["known_wrong"] = data.train.wrong

    def built(probs: Belief, chosen: str) -> LabelTable:
        return label_table(
            with_trusted(probs, data.train),
            data.given(data.train),
            extras=extras,
            true_label=data.train.label if data.train.known.all() else None,
            chosen=chosen,
            class_names=data.class_names,
            dataset=data.name,
            method=method,
            origin=data.train.origin,
        )

    belief = best_belief(judged, posterior)
    table = settled(judged, belief, data.train, built, evidence)
    missed = [data.class_names[c] for c in unpredicted(judged, posterior)]
    return replace(table, guard=table.guard | {"merit": belief.merits, "classes_unpredicted": missed})


def held_out_tables(
    predicted: Mapping[str, tuple[Split, np.ndarray]], data: Dataset, method: str, whole: bool
) -> dict[str, LabelTable]:
    """What a classifier that has not seen them says of held-out labels, true or noisy ones, by name of the part."""
    about: dict[str, Any] = {"dataset": data.name, "method": method, "chosen": "classifier"}
    tables = {}
    for name, (split, probs) in predicted.items():
        given = np.asarray(split.label if split.noisy_label is None else data.given(split))
        belief = probs if whole else jax.tree.map(np.asarray, likeliest(probs, given))
        tables[name] = label_table(belief, given, class_names=data.class_names, origin=split.origin, **about)
    return tables


def write_products(
    folder: Path,
    table: LabelTable,
    posterior: Posterior,
    data: Dataset,
    method: Method,
    params: Params,
    rows: Sequence[Row],
    *,
    pictures: Sequence[Picture],
    about: Mapping[str, Any],
    wall_seconds: float,
    held_out: Mapping[str, LabelTable],
) -> dict[str, Any]:
    """Write labels.parquet, issues.csv, pictures, report.html and summary.json, and return what the last one holds.

    Args:
      folder: the run's.
      table: cleaned labels.
      posterior: what they come from.
      data: what was trained on.
      method: what was trained, and ``params`` what it has learnt.
      rows: of all epochs.
      pictures: the recipe's own.
      about: what the summary and the report say of the run.
      wall_seconds: what it took.
      held_out: what the classifier says of the other parts of the data.
    """
    write_labels(folder / "labels.parquet", table, held_out)
    write_issues(folder / "issues.csv", table, held_out)
    write_readme(folder / "README.txt", table)
    paths = [folder / "curves.png"]
    training_curves(rows, paths[0], given_recovery=given_recovery(data))
    if method.transition is not None:
        paths.append(folder / "transition.png")
        learned = np.asarray(method.transition(params))
        transition_comparison(learned, true_transition(data), data.class_names, paths[-1])
    outlier_scores = [c.values for c in posterior.columns.values() if c.kind == "outlier_score"]
    if data.train.outlier is not None and outlier_scores:
        paths.append(folder / "outliers.png")
        outlier_curve(np.asarray(outlier_scores[0]), data.train.outlier, paths[-1])
    for picture in pictures:
        paths += picture(folder, table, data)
    summary = {
        "method": method.name,
        "dataset": data.name,
        **about,
        "cleaned_with": table.chosen,
        "guard": table.guard,
        "given_label_recovery": given_recovery(data),
        "class_recall": class_recalls(table, data),
        "last": last(rows) | recovery(posterior, data.train, table.posterior),
        "best": best(rows),
        "wall_seconds": round(wall_seconds, 1),
        "versions": versions(),
    }
    write_json(folder / "summary.json", summary)
    write_report(
        folder / "report.html",
        title=f"{method.name} on {data.name}",
        facts={**facts_of(data, method), **about},
        summary=summary,
        plots=paths,
        table=table,
        class_names=data.class_names,
        inputs=data.train.inputs if len(data.input_shape) == 3 else None,
    )
    return summary


def class_recalls(table: LabelTable, data: Dataset) -> dict[str, list[float | None]]:
    """Share of each class's labels that are right, given and cleaned, where the truth is known; None for no example."""
    if table.true_label is None:
        return {}
    rows, k = data.train.scored, data.num_classes
    shares = {
        name: class_recall(labels[rows], table.true_label[rows], k)
        for name, labels in (("given", table.noisy_label), ("cleaned", table.cleaned_label))
    }
    return {name: [None if np.isnan(s) else round(float(s), 4) for s in share] for name, share in shares.items()}


def facts_of(data: Dataset, method: Method) -> dict[str, Any]:
    """What config.json and the report say of the data and the method."""
    return {
        "method": method.name,
        "data": data.name,
        "classes": list(data.class_names),
        "training_examples": len(data.train),
        "test_examples": 0 if data.test is None else len(data.test),
    }
