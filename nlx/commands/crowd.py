"""``nlx crowd``: answers of several people in, tables and a page out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from nlx.arguments import ArgumentError
from nlx.cleaning.beliefs import ModelName
from nlx.cleaning.consensus import consensus
from nlx.cleaning.label_files import write_issues, write_labels
from nlx.cleaning.table import label_table
from nlx.data.origin import Origin
from nlx.report.annotators import IN_REPORT, annotator_plot
from nlx.report.report import write_report

_MOST_NAMED = 12  # classes that a line names


@dataclass(frozen=True)
class Crowd:
    """Find true labels in several people's answers: writes consensus.csv, annotators.csv (most trusted first),
    answers.parquet (most suspicious first), questions.csv (what to ask next, and whom), what these are (crowd.txt),
    labels.parquet, issues.csv and report.html to a folder."""

    answers: tyro.conf.Positional[Path]
    """A table with the columns item, annotator and label, and group where people are of several, or with a column for
    each annotator: .csv, .tsv, .parquet, Label Studio's .json, or a matrix in an .npy file. An empty cell is no
    answer."""
    out: Path = Path("consensus")
    """Folder to write to; it must not exist yet."""
    method: ModelName = "dawid_skene"
    """Model of annotators: dawid_skene has a matrix for each, which leans on what all share."""
    web: Path | None = None
    """A table with the columns item and label: one more label of each, from the web say."""
    trusted: Path | None = None
    """A table with the columns item and label: true labels that are known."""
    tasks: bool = False
    """Write tasks.json and label_config.xml for Label Studio, too: answers as annotations, the consensus as a
    prediction."""

    def run(self) -> None:
        """Read answers, find the labels, write what was found, and say so."""
        if self.out.exists():
            raise ArgumentError(f"{self.out} exists: choose another folder by `out`")
        table = consensus(self.answers, method=self.method, web=self.web, trusted=self.trusted)
        answers, quality = table.answers, table.quality
        people, names = len(answers.annotators), answers.class_names
        print(f"{len(answers):,} answers by {people:,} annotators to {len(table):,} items; labels are {named(names)}")
        for note in table.notes:
            print(f"warning: {note}", file=sys.stderr)
        table.write(self.out, tasks=self.tasks)
        annotator_plot(table, self.out / "annotators.png")
        majority = np.asarray(table.votes.label)
        voted, tied = majority >= 0, int(np.asarray(table.votes.tied).sum())
        changed = int((voted & (majority != table.label)).sum())
        wrong = float((1 - table.answer_probs).mean())
        told = {
            "items without an answer": f"{(~voted).sum():,}",
            "ties of the majority": f"{tied:,}",
            "labels other than the majority's": f"{changed:,}",
            "answers expected to be wrong": f"{wrong:.1%}",
            "Krippendorff's alpha": f"{table.alpha:.3f}",
            "annotators surely right less than half the time": f"{(np.asarray(quality.high) < 0.5).sum():,}",
        }
        if self.method == "dawid_skene":
            told["what an answer is worth beside others"] = f"{table.beliefs.weight:.2g} of an independent one"
        questions = table.questions_table(top=5).to_pydict()
        asked = zip(questions["item"], questions["ask"], strict=True)
        told["to ask first"] = ", ".join(f"{item} ({whom or 'someone new'})" for item, whom in asked)
        given = np.where(voted, majority, table.label)
        listed = label_table(
            table.posterior,
            given,
            class_names=names,
            dataset=self.answers.stem,
            method=self.method,
            extras={} if answers.trusted is None else {"trusted": answers.trusted >= 0},
            origin=Origin(np.arange(len(table)), "id", answers.items),
        )
        write_labels(self.out / "labels.parquet", listed)
        write_issues(self.out / "issues.csv", listed)
        write_report(
            self.out / "report.html",
            title=f"Answers of {self.answers.name}",
            facts={"answers": len(answers), "annotators": people, "items": len(table), "method": self.method},
            summary=told,
            plots=[self.out / name for name in IN_REPORT],
            table=listed,
            class_names=names,
            inputs=None,
        )
        for name, said in told.items():
            print(f"{name}: {said}")
        print(f"the items: {self.out / 'consensus.csv'}; whom to trust: {self.out / 'annotators.csv'}")


def named(names: Sequence[str]) -> str:
    """How many classes there are, and the names of the first."""
    return f"{len(names):,} classes: {', '.join(names[:_MOST_NAMED])}{', …' if len(names) > _MOST_NAMED else ''}"
