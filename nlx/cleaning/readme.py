"""README.txt beside the labels: what each column is, and how other tools take them."""

from __future__ import annotations

from pathlib import Path

from nlx.cleaning.table import LabelTable
from nlx.files import replacing
from nlx.methods.top import Top

_COLUMNS = {
    "row": "position of the example in your own file, from 0 on (test rows: in the file of these)",
    "id": "your own id of the example",
    "path": "the picture, as your file or folder names it",
    "given": "the label that it had; several are joined by ';'; empty where there was none",
    "proposed": "the label that is likelier to be right: the given one, unless the evidence is against it",
    "label": "issues.csv alone: empty, for your own decision; see below",
    "is_issue": "whether the given label is held to be wrong{cut}",
    "reason": "what spoke against the label, or for another one, with figures",
    "probability": "that the proposed label is right, in issues.csv of the least sure of several",
    "label_score": "probability that the given label is right, all of it; empty or NaN where there was none",
    "issue_rank": "0 is the most suspicious label",
    "changed": "whether the proposed label is another than the given one",
    "trusted": "whether its true label was known, which is then the proposed one",
    "known_wrong": "whether the given label was known to be wrong, and the true one was not known",
    "split": "train, or the part that it was held out for; of these labels are ranked, but none is an issue",
    "index": "position among the training examples",
    "noisy_label, cleaned_label": "given and proposed label as class numbers or {0, 1} vectors, -1 for none",
    "posterior": "probability of each class, given input and label{kept}",
}

SNIPPETS = {
    "pandas": """
import pandas as pd

labels = pd.read_parquet("labels.parquet")
wrong = labels[labels.is_issue].sort_values("issue_rank")
mine = pd.DataFrame(index=range(len(labels)))  # your own rows, such as pd.read_csv("mine.csv")
mine["proposed"] = labels[labels.split == "train"].set_index("row").proposed
""",
    "pandas, with the names of cleanlab": """
import pandas as pd

labels = pd.read_parquet("labels.parquet").set_index("row")
issues = pd.DataFrame(
    {
        "is_label_issue": labels.is_issue,
        "label_score": labels.label_score,
        "given_label": labels.given,
        "predicted_label": labels.proposed,
    }
)
""",
    "datasets (Hugging Face)": """
from datasets import Dataset

labels = Dataset.from_parquet("labels.parquet")
kept = labels.filter(lambda row: not row["is_issue"])
""",
    "fiftyone": """
import fiftyone as fo
import pandas as pd

samples = []
for row in pd.read_parquet("labels.parquet").itertuples():
    sample = fo.Sample(filepath=str(getattr(row, "path", row.row)))
    sample["given"] = fo.Classification(label=row.given)
    sample["proposed"] = fo.Classification(label=row.proposed)
    sample["label_score"], sample["reason"] = row.label_score, row.reason
    samples.append(sample)
dataset = fo.Dataset()
dataset.add_samples(samples)
""",
    "json (Label Studio: import tasks.json)": """
import csv
import json

with open("issues.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
tasks = []
for row in rows:
    choice = {"from_name": "label", "to_name": "data", "type": "choices"}
    choice["value"] = {"choices": row["proposed"].split(";")}
    data = {name: row[name] for name in ("row", "id", "path", "given", "reason") if name in row}
    tasks.append({"data": data, "predictions": [{"score": float(row["probability"]), "result": [choice]}]})
with open("tasks.json", "w", encoding="utf-8") as file:
    json.dump(tasks, file)
""",
}


def write_readme(path: str | Path, table: LabelTable, precision: float | None = None) -> None:
    """Write README.txt; the file appears whole or not at all.

    Args:
      path: the file.
      table: whose columns it explains.
      precision: that was promised of ``is_issue``, None for none.

    Raises:
      OSError: the file cannot be written.
    """
    key = None if table.origin is None else table.origin.name
    promise = "" if precision is None else f": of these, at least {100 * precision:g} % are wrong, at 95 % confidence"
    cut = promise or ": it would change"
    kept = "; of these the likeliest (classes, probs), of the proposed and the given label in full (best, given)"
    fill = {"cut": cut, "kept": kept if isinstance(table.posterior, Top) else ""}
    told = {name: text.format(**fill) if name in ("is_issue", "posterior") else text for name, text in _COLUMNS.items()}
    absent = {"id", "path", "known_wrong"} - {key, *table.extras}
    told = {name: text for name, text in told.items() if name not in absent}
    lines = [
        "labels.parquet has a row for every example, issues.csv the same for people, the most suspicious label first.",
        "",
        *(f"{name}: {text}" for name, text in told.items()),
        f"Other columns of labels.parquet are of the method: {', '.join(table.extras) or 'none'}.",
        "",
        "Your decisions, for the next round: fill in the column label of issues.csv, the right class where you have",
        "looked, nothing elsewhere, and give that file to the same command:",
        "",
        "    nlx clean INPUTS LABELS --trusted=issues.csv --out=second",
        "",
        "Rows are joined by row, or by id or path where there is one. In Python, in this folder:",
    ]
    for name, code in SNIPPETS.items():
        lines += ["", f"--- {name}", *code.rstrip().splitlines()]
    with replacing(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


CROWD = """What several people's answers say, found by nlx.

consensus.csv: a row an item. label and probability: the proposed class, and that it is right. answers: how many there
are. majority, tied: the most frequent answer, and whether another is as frequent. information: what one more answer is
expected to tell, in nats. trusted: whether its true label was known.
annotators.csv: a row an annotator, the most trusted first. right, low, high: the share of right answers with its
interval. often, often_rate: the most frequent mistake, and how often it is made. group: theirs, if there are several.
answers.parquet: a row an answer, the most suspicious first. proposed: the item's proposed class. probability: that
this answer is right.
questions.csv: what to ask next, the most telling first. ask: whom, of those who have not answered the item; empty for
someone new.
tasks.json, label_config.xml: to import into Label Studio, where they are.

The next round: write the items that you have looked at to a file decided.csv with the columns item and label, and give
it beside the answers:

    {command}
"""


def write_crowd_readme(path: str | Path, command: str) -> None:
    """Write crowd.txt, which says what the tables of a crowd hold.

    Args:
      path: the file.
      command: of the next round, with what a person has decided.

    Raises:
      OSError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(CROWD.format(command=command).encode())
