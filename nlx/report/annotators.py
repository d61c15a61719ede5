"""Pictures of those who answer: how often each is right, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nlx.cleaning.beliefs import Beliefs
from nlx.cleaning.consensus import CrowdTable, table_of
from nlx.cleaning.table import LabelTable
from nlx.crowd import annotator_confusion
from nlx.data.answers import Answers
from nlx.data.dataset import Dataset
from nlx.report.figures import new_figure, save, short

IN_REPORT = ("annotators.png", "annotators.csv", "answers.parquet", "questions.csv")
"""What a report shows of a crowd."""
NEXT_ROUND = "python recipes/crowd.py --answers=ANSWERS --trusted=decided.csv"
_SHOWN = 40  # annotators, half of them from either end
_MOST_TASKS = 200_000  # answers that are written for Label Studio unasked


def annotator_plot(table: CrowdTable, path: str | Path) -> None:
    """Draw the share of right answers with its interval, of the most and the least trusted annotators.

    Args:
      table: what answers say.
      path: the PNG file.

    Raises:
      OSError: it cannot be written.
    """
    rows = table.annotators_table().to_pydict()
    many = len(rows["annotator"])
    shown = np.arange(many) if many <= _SHOWN else np.r_[: _SHOWN // 2, many - _SHOWN // 2 : many]
    right, low, high = (np.asarray(rows[name])[shown] for name in ("right", "low", "high"))
    height = np.arange(len(shown))[::-1]
    figure = new_figure(6.4, 1.2 + 0.19 * len(shown))
    axes = figure.add_subplot()
    axes.hlines(height, low, high, color="0.7", linewidth=3)
    axes.plot(right, height, "o", color="tab:blue", markersize=4)
    axes.set_yticks(height, [f"{short(str(rows['annotator'][i]))} ({rows['answers'][i]:,})" for i in shown], fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of answers that are right, with its interval")
    axes.set_title(
        "Annotators" if many <= _SHOWN else f"The {_SHOWN // 2} most and least trusted of {many:,} annotators"
    )
    save(figure, path)


def annotator_pictures(answers: Answers, beliefs: Beliefs) -> Callable[[Path, LabelTable, Dataset], list[Path]]:
    """What draws annotators.png of a run's cleaned labels, and writes the tables of a crowd beside it.

    These are annotators.csv, answers.parquet, questions.csv, consensus.csv and, for Label Studio, tasks.json of up to
    200,000 answers.

    Args:
      answers: of the training set's examples.
      beliefs: about them without the classifier, which say who repeats whom.
    """

    def write(folder: Path, table: LabelTable, data: Dataset) -> list[Path]:
        del data
        confusion = annotator_confusion(
            table.posterior,
            answers.item,
            answers.annotator,
            answers.label,
            num_annotators=len(answers.annotators),
            groups=answers.groups,
        )
        said = table_of(answers, beliefs._replace(posterior=table.posterior, confusion=np.asarray(confusion)))
        said.write(folder, tasks=len(answers) <= _MOST_TASKS, again=NEXT_ROUND)
        annotator_plot(said, folder / "annotators.png")
        return [folder / name for name in IN_REPORT]

    return write
