"""Label Studio's tasks: answers of people out of its export, and tasks that it imports, with what they are labelled by.

A single choice is an answer. Annotations marked as ground truth are trusted labels, and no answers. Annotators' names
lie in the choices themselves (``meta``), for who an annotation is of must be a member of the project when it is
imported; labels from the web are a prediction of a model called ``web``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pyarrow as pa

from nlx.data.dataset import DataError
from nlx.data.names import ROLES, clean_name

WEB = "web"
"""The annotator whom labels from the web are of."""
TRUSTED = "trusted"
"""The column of true labels that are known, beside those of answers."""
_CONTROL, _OBJECT = "label", "item"


def answers_in(tasks: Any, where: str) -> dict[str, pa.Array]:
    """Answers of an export, whole (JSON) or short (JSON-MIN), as columns.

    Args:
      tasks: what the file holds.
      where: its name, for messages.

    Returns:
      Columns item, annotator, label and, where there is ground truth, trusted: rows that are no answer have none of the
      other two. Of JSON-MIN its own columns.

    Raises:
      DataError: answers of several choices, or of several controls.
    """
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError("not a list of tasks")
    if not any("annotations" in task or "predictions" in task for task in tasks):
        given = dict.fromkeys(name for task in tasks for name in task)
        return {name: pa.array([_plain(name, task.get(name), where) for task in tasks], pa.string()) for name in given}
    control = _control(tasks, where)
    rows: list[tuple[str, str | None, str | None, str | None]] = []
    for task in tasks:
        item = str(task.get("data", {}).get("item", task["id"]))
        found = list(_of_task(task, control, where))
        rows += [(item, *row) for row in found] or [(item, None, None, None)]
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    names = ("item", "annotator", "label", TRUSTED)
    table = {name: pa.array(list(x), pa.string()) for name, x in zip(names, columns, strict=True)}
    if table[TRUSTED].null_count == len(rows):
        del table[TRUSTED]
    return table


def _of_task(
    task: dict[str, Any], control: str | None, where: str
) -> Iterator[tuple[str | None, str | None, str | None]]:
    """Who says what, or what is true; who chooses nothing abstains."""
    for annotation in task.get("annotations", []):
        parts = [] if annotation.get("was_cancelled") else _choices(annotation, control)
        said = [choice for part in parts for choice in part["value"]["choices"]]
        if len(said) > 1:
            raise DataError(
                f"{where}: task {task['id']} has an answer of several choices ({', '.join(said)}): give one."
            )
        who = annotation.get("completed_by")
        who = who.get("email", who.get("id")) if isinstance(who, dict) else who
        who = parts[0].get("meta", {}).get("annotator", who) if parts else who
        label = said[0] if said else None
        true = bool(annotation.get("ground_truth"))
        yield None if who is None or true else str(who), None if true else label, label if true else None
    for prediction in task.get("predictions", []):
        if prediction.get("model_version") == WEB:
            yield from (
                (WEB, said, None) for part in _choices(prediction, control) for said in part["value"]["choices"]
            )


def _choices(annotation: dict[str, Any], control: str | None) -> list[dict[str, Any]]:
    parts = [part for part in annotation.get("result", []) if "choices" in part.get("value", {})]
    return [part for part in parts if control is None or part.get("from_name") == control]


def _control(tasks: list[dict[str, Any]], where: str) -> str | None:
    """The control whose choices are the answers: the only one, or that called label."""
    every = (
        part for task in tasks for annotation in task.get("annotations", []) for part in _choices(annotation, None)
    )
    names = sorted({str(part["from_name"]) for part in every if "from_name" in part})
    if len(names) < 2:
        return names[0] if names else None
    if _CONTROL not in names:
        raise DataError(
            f"{where} has choices of several controls ({', '.join(names)}): export one, or call it {_CONTROL!r}."
        )
    return _CONTROL


def _plain(name: str, value: Any, where: str) -> str | None:
    if isinstance(value, dict):
        if "choices" in value and clean_name(name).lower() in ROLES["label"]:
            raise DataError(f"{where} has an answer of several choices ({', '.join(value['choices'])}): give one.")
        value = value.get("email", value.get("id"))
    if value is None or isinstance(value, list):
        return None
    return str(value)


def tasks_of(
    item: np.ndarray,
    annotator: Sequence[str],
    label: Sequence[str],
    *,
    names: Sequence[Any],
    consensus: Sequence[str],
    score: np.ndarray,
    trusted: Sequence[str | None],
) -> list[dict[str, Any]]:
    """Tasks to import: each answer as an annotation, labels from the web and the consensus as predictions.

    Args:
      item: which item an answer is about, int ``[M]``.
      annotator: who gives it, M names.
      label: the answer, M names.
      names: N ids of items.
      consensus: N proposed labels.
      score: that they are right, float ``[N]``.
      trusted: N true labels, None where they are not known.
    """
    tasks: list[dict[str, Any]] = []
    for row, (name, proposed, p) in enumerate(zip(names, consensus, score, strict=True)):
        predictions = [{"model_version": "nlx", "score": float(p), "result": [_choice(proposed)]}]
        tasks.append({"id": row + 1, "data": {"item": str(name)}, "annotations": [], "predictions": predictions})
    for row, who, said in zip(item.tolist(), annotator, label, strict=True):
        if who == WEB:
            tasks[row]["predictions"].append({"model_version": WEB, "result": [_choice(said)]})
        else:
            tasks[row]["annotations"].append({"result": [_choice(said) | {"meta": {"annotator": str(who)}}]})
    for task, true in zip(tasks, trusted, strict=True):
        if true is not None:
            task["annotations"].append({"result": [_choice(true)], "ground_truth": True})
    return tasks


def _choice(name: str) -> dict[str, Any]:
    return {"from_name": _CONTROL, "to_name": _OBJECT, "type": "choices", "value": {"choices": [name]}}


def config(class_names: Sequence[str], *, pictures: bool) -> str:
    """The labelling configuration that these tasks belong to: one choice among the classes, of a picture or a text."""
    kind = "Image" if pictures else "Text"
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in class_names)
    shown = f'  <{kind} name="{_OBJECT}" value="${_OBJECT}"/>'
    asked = f'  <Choices name="{_CONTROL}" toName="{_OBJECT}" choice="single">'
    return f"<View>\n{shown}\n{asked}\n{choices}\n  </Choices>\n</View>\n"
