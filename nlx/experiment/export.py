"""What a finished run leaves for its user: cleaned labels, pictures, a report and a summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlx.cleaning.table import LabelTable, clean, write_labels
from nlx.data import Dataset, Split
from nlx.experiment.options import RunConfig
from nlx.experiment.run_folder import versions, write_json
from nlx.experiment.transition import true_transition
from nlx.methods.method import Method, Params, Posterior
from nlx.report.heatmaps import transition_comparison
from nlx.report.plots import outlier_curve, training_curves
from nlx.report.report import write_report
from nlx.training.loop import Row
from nlx.training.scores import best, cheapest, given_recovery, last


@dataclass(frozen=True)
class Cleaned:
    """What a finished run knows of its training set, for a method's own plots.

    Attributes:
      folder: the run's.
      dataset: what it was trained on (without what was held out).
      table: what labels.parquet holds.
      params: what the method has trained, as NumPy arrays.
      features: the backbone's, float32 ``[m, F]``, of the rows that the recipe asked for; None where it asked for none.
      seed: the run's.
    """

    folder: Path
    dataset: Dataset
    table: LabelTable
    params: Params
    features: np.ndarray | None
    seed: int


def export(
    config: RunConfig,
    products: Callable[[Cleaned], list[Path]] | None,
    method: Method,
    dataset: Dataset,
    folder: Path,
    posterior: Posterior,
    params: Params,
    features: np.ndarray | None,
    rows: list[Row],
    wall: float,
) -> dict[str, Any]:
    """Write labels.parquet, the pictures, report.html and summary.json, and return what the last one holds."""
    chosen = cheapest(posterior)
    columns = {name: np.asarray(values) for name, values in posterior.extras.items()}
    columns |= method.columns(columns)
    if len(posterior.candidates) > 1:
        columns |= {f"{name}_posterior": np.asarray(probs) for name, probs in posterior.candidates.items()}
    if dataset.train.trusted is not None:
        columns["trusted"] = dataset.train.trusted
    table = clean(
        with_trusted(np.asarray(posterior.candidates[chosen]), dataset.train),
        dataset.given(dataset.train),
        extras=columns,
        true_label=dataset.train.label,
        chosen=chosen,
        class_names=dataset.class_names,
        dataset=dataset.name,
        method=method.name,
    )
    write_labels(folder / "labels.parquet", table)
    pictures = [folder / "curves.png"]
    training_curves(rows, pictures[0], given_recovery=given_recovery(dataset))
    if method.transition is not None:
        pictures.append(folder / "transition.png")
        learned, true = np.asarray(method.transition(params)), true_transition(dataset)
        transition_comparison(learned, true, dataset.class_names, pictures[-1])
    if dataset.train.outlier is not None and "outlier_score" in columns:
        pictures.append(folder / "outliers.png")
        outlier_curve(columns["outlier_score"], dataset.train.outlier, pictures[-1])
    if products is not None:
        pictures += products(Cleaned(folder, dataset, table, params, features, config.seed))
    summary = {
        "method": method.name,
        "dataset": dataset.name,
        "seeds": [config.seed],
        "epochs": config.epochs,
        "cleaned_with": chosen,
        "cost": {name: float(np.mean(cost)) for name, cost in posterior.cost.items()},
        "given_label_recovery": given_recovery(dataset),
        "last": last(rows),
        "best": best(rows),
        "wall_seconds": round(wall, 1),
        "versions": versions(),
    }
    write_json(folder / "summary.json", summary)
    write_report(
        folder / "report.html",
        title=f"{method.name} on {dataset.name}",
        facts=facts_of(dataset, method) | {"epochs": config.epochs, "seed": config.seed, "model": config.model},
        summary=summary,
        plots=pictures,
        table=table,
        class_names=dataset.class_names,
        inputs=dataset.train.inputs if dataset.train.input_name == "image" else None,
    )
    return summary


def with_trusted(probs: np.ndarray, split: Split) -> np.ndarray:
    """A posterior ``[n, K]`` that is certain where the true label is trusted."""
    trusted = split.trusted_label
    if trusted is None:
        return probs
    known = trusted >= 0 if trusted.ndim == 1 else np.all(trusted >= 0, axis=1)
    certain = probs.copy()
    certain[known] = np.eye(probs.shape[1])[trusted[known]] if trusted.ndim == 1 else trusted[known]
    return certain


def facts_of(dataset: Dataset, method: Method) -> dict[str, Any]:
    """What config.json and the report say of the data and the method."""
    return {
        "method": method.name,
        "data": dataset.name,
        "classes": list(dataset.class_names),
        "training_examples": len(dataset.train),
        "test_examples": 0 if dataset.test is None else len(dataset.test),
        **method.facts,
    }
