"""``nlx.consensus``: several people's answers in, true labels out, with who is to be trusted and what to ask next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from nlx import crowd
from nlx.arguments import ArgumentError
from nlx.cleaning.beliefs import Beliefs, ModelName, believed
from nlx.cleaning.readme import write_crowd_readme
from nlx.data.answers import Answers, Repeats, answers_of
from nlx.data.checks import memory
from nlx.data.label_studio import config, tasks_of
from nlx.files import replacing

NEXT_ROUND = "nlx crowd ANSWERS --trusted=decided.csv --out=second"
_COPIES = 5  # of everyone's matrix, while they are fitted
_NAMED = 5  # annotators in a note
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
_SAMPLED = 100  # items whose names tell whether they are pictures


@dataclass(frozen=True)
class CrowdTable:
    """What answers say, made by :func:`consensus`.

    Attributes:
      answers: as they were read.
      beliefs: about items and annotators; ``posterior`` and ``confusion`` are theirs.
      votes: the majority's labels and its ties.
      quality: how often annotators are right, with intervals.
      answer_probs: the probability of each answer to be right, float32 ``[M]``.
      alpha: Krippendorff's, of the people's answers.
    """

    answers: Answers
    beliefs: Beliefs
    votes: crowd.Votes
    quality: crowd.Quality
    answer_probs: np.ndarray
    alpha: float

    def __len__(self) -> int:
        return len(self.posterior)

    @property
    def posterior(self) -> np.ndarray:
        """p(true class given all answers), float32 ``[N, K]``."""
        return self.beliefs.posterior

    @property
    def confusion(self) -> np.ndarray:
        """``p(annotator a answers j | true class i)``, float32 ``[A, K, K]``."""
        return self.beliefs.confusion

    @property
    def label(self) -> np.ndarray:
        """The likeliest class of each item, int32 ``[N]``."""
        return self.posterior.argmax(axis=1).astype(np.int32)

    @property
    def probability(self) -> np.ndarray:
        """That it is right, float32 ``[N]``."""
        return np.asarray(self.posterior.max(axis=1))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before trusting the probabilities."""
        notes = list(self.answers.notes)
        group = self.beliefs.group
        if (alike := np.bincount(group)[group] > 1).any():
            names = self.answers.annotators[alike]
            shown = ", ".join(map(str, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
            notes.append(f"{len(names):,} annotators repeat one another, and count once an item: {shown}")
        several = np.bincount(self.answers.item, minlength=len(self)) > 1
        if not several.any() and self.answers.trusted is None:
            notes.append("no item has two answers: nothing tells how often people are right, and 7 in 10 is assumed")
        return tuple(notes)

    def items_table(self) -> pa.Table:
        """A row an item: its label with probability, the majority's and whether it was a tie, how many answers."""
        given = np.asarray(self.votes.counts).sum(axis=1)
        columns = {
            "item": self.answers.items,
            "label": self._names(self.label),
            "probability": self.probability,
            "answers": given,
            "majority": self._names(np.asarray(self.votes.label)),
            "tied": np.asarray(self.votes.tied),
            "information": self._information(),
        }
        if self.answers.trusted is not None:
            columns["trusted"] = self.answers.trusted >= 0
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def annotators_table(self) -> pa.Table:
        """A row an annotator, the most trusted first: answers, share right with its interval, most frequent mistake."""
        q, wrong = self.quality, self.confusion * (1 - np.eye(self.confusion.shape[1]))
        place = wrong.reshape(len(wrong), -1).argmax(axis=1)
        true, said = np.divmod(place, self.confusion.shape[1])
        names = self.answers.class_names
        columns = {
            "annotator": self.answers.annotators,
            "answers": np.asarray(q.answers).astype(np.int64),
            "right": np.asarray(q.right),
            "low": np.asarray(q.low),
            "high": np.asarray(q.high),
            "often": [f"{names[i]} as {names[j]}" for i, j in zip(true, said, strict=True)],
            "often_rate": wrong.reshape(len(wrong), -1).max(axis=1).astype(np.float32),
        }
        if len(self.answers.group_names) > 1:
            columns["group"] = [self.answers.group_names[g] for g in self.answers.groups]
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        return table.take(pa.array(np.argsort(-np.asarray(q.low), kind="stable")))

    def answers_table(self) -> pa.Table:
        """A row an answer, the most suspicious first: who said what, what is proposed, how likely it is right."""
        a, order = self.answers, np.argsort(self.answer_probs, kind="stable")
        columns = {
            "item": a.items[a.item[order]],
            "annotator": a.annotators[a.annotator[order]],
            "label": self._names(a.label[order]),
            "proposed": self._names(self.label[a.item[order]]),
            "probability": self.answer_probs[order],
        }
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def questions_table(self, top: int = 100) -> pa.Table:
        """What to ask next, the most telling first: items, whom of those who have not answered yet, and how much.

        Args:
          top: how many items.
        """
        a, gain = self.answers, self._information()
        rows = np.argsort(-gain, kind="stable")[:top]
        told = np.array(crowd.expected_information(self.posterior[rows], self.confusion))
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        asked = place[a.item] >= 0
        told[place[a.item[asked]], a.annotator[asked]] = -1.0
        told[:, a.of_web] = -1.0
        best = told.argmax(axis=1)
        someone = told.max(axis=1) >= 0
        columns = {
            "item": a.items[rows],
            "label": self._names(self.label[rows]),
            "probability": self.probability[rows],
            "ask": pa.array([str(a.annotators[b]) if s else None for b, s in zip(best, someone, strict=True)]),
            "information": np.where(someone, told.max(axis=1), gain[rows]).astype(np.float32),
        }
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def label_studio(self) -> list[dict[str, Any]]:
        """Tasks for Label Studio: answers are annotations, trusted labels ground truth, predictions the consensus and
        labels from the web. :func:`consensus` reads them, and its export of them, back.
        """
        a = self.answers
        names = np.array([*a.class_names, None], object)
        known = np.full(len(self), -1) if a.trusted is None else a.trusted
        return tasks_of(
            a.item,
            a.annotators[a.annotator].tolist(),
            names[a.label].tolist(),
            names=a.items.tolist(),
            consensus=names[self.label].tolist(),
            score=self.probability,
            trusted=names[known].tolist(),
        )

    def write(self, folder: str | Path, *, tasks: bool = True, again: str = NEXT_ROUND) -> None:
        """Write consensus.csv, annotators.csv, answers.parquet and questions.csv, crowd.txt, which says what they hold,
        and, for Label Studio, tasks.json and label_config.xml.

        Args:
          folder: where; files of these names are replaced.
          tasks: whether to write the last two, of which the first is large.
          again: the command of the next round, for crowd.txt.

        Raises:
          OSError: a file cannot be written.
        """
        folder = Path(folder)
        sheets = {"consensus": self.items_table(), "annotators": self.annotators_table()}
        for name, table in {**sheets, "questions": self.questions_table()}.items():
            with replacing(folder / f"{name}.csv") as file:
                pyarrow.csv.write_csv(table, file)
        with replacing(folder / "answers.parquet") as file:
            pq.write_table(self.answers_table(), file)
        write_crowd_readme(folder / "crowd.txt", again)
        if tasks:
            with replacing(folder / "tasks.json") as file:
                file.write(json.dumps(self.label_studio(), ensure_ascii=False).encode())
            pictures = all(str(item).lower().endswith(_PICTURES) for item in self.answers.items[:_SAMPLED])
            with replacing(folder / "label_config.xml") as file:
                file.write(config(self.answers.class_names, pictures=pictures).encode())

    def _names(self, labels: np.ndarray) -> pa.Array:
        names = pa.array([*self.answers.class_names, None])
        return names.take(pa.array(np.where(labels < 0, len(names) - 1, labels)))

    def _information(self) -> np.ndarray:
        """What one more answer of the people as a whole is expected to say, in nats, ``[N]``."""
        people = ~self.answers.of_web
        weight = np.asarray(self.quality.answers)[people]
        pooled = np.average(self.confusion[people], axis=0, weights=weight + 1e-6)
        return np.asarray(crowd.expected_information(self.posterior, pooled[None].astype(np.float32)))[:, 0]


def consensus(
    answers: Any,
    *,
    method: ModelName = "dawid_skene",
    web: Any = None,
    trusted: Any = None,
    probs: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    repeats: Repeats = "last",
    confidence: float = 0.95,
) -> CrowdTable:
    """True labels from several people's answers, and what they say of those who answer.

    Args:
      answers: a long table with the columns item, annotator and label, maybe with the group of each annotator, or one
        with a column for each annotator: a path (.csv, .tsv, .parquet, Label Studio's .json, .npy), a frame, or columns
        by name; or rows ``(item, annotator, label)``; or a tuple of three arrays; or a matrix ``[N, A]``. Ids may be of
        any type; an empty cell, None, NaN or -1 is no answer.
      method: the model of annotators, see :mod:`nlx.crowd`.
      web: one further label of items, from the web say, in the form ``{item: label}``, as a table with the columns item
        and label, or one for each item; it counts as one more annotator, who is like nobody else.
      trusted: true labels where they are known, likewise; they are certain.
      probs: p(true class | item) by a classifier that has not seen the answers, float ``[N, K]``, items in order.
      class_names: the classes; by default all labels that occur, in order.
      repeats: what counts of several answers by one annotator to one item: the last one, or all.
      confidence: of the intervals of annotators' quality.

    Returns:
      The labels with probabilities, the annotators' quality, the answers' and what to ask next.

    Raises:
      ArgumentError, DataError: one sentence that says what to change.

    Examples:
      >>> said = ["cat", "cat", "dog", "dog", "dog"]
      >>> table = consensus({"item": [1, 1, 1, 2, 2], "annotator": list("abcab"), "label": said})
      >>> table.items_table()["label"].to_pylist()
      ['cat', 'dog']
      >>> table.answers_table()["annotator"][0].as_py()
      'c'
    """
    if method not in get_args(ModelName):
        raise ArgumentError(f"`method` must be one of {', '.join(get_args(ModelName))}, got {method!r}")
    if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise ArgumentError(f"`confidence` must lie between 0 and 1, got {confidence!r}")
    names = None if class_names is None else tuple(class_names)
    read = answers_of(answers, web=web, trusted=trusted, class_names=names, repeats=repeats)
    n, k = len(read.items), len(read.class_names)
    if (needed := _COPIES * 4 * len(read.annotators) * k * k) > (free := memory()):
        raise ArgumentError(
            f"`answers` are by {len(read.annotators):,} annotators in {k:,} classes, whose matrices take "
            f"{needed / 2**30:.0f} of {free / 2**30:.0f} GiB: leave out annotators of few answers, or join classes"
        )
    log_prior = None if probs is None else _log_prior(probs, n, k)
    return table_of(read, believed(read, method, log_prior), confidence)


def _log_prior(probs: ArrayLike, n: int, k: int) -> np.ndarray:
    try:
        given = np.asarray(probs, np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"`probs` must be numbers, [{n}, {k}]: {error}") from error
    if given.shape != (n, k):
        raise ArgumentError(f"`probs` must be [{n}, {k}], a row an item and a column a class, got {list(given.shape)}")
    if (bad := np.flatnonzero(~(np.abs(given.sum(axis=1) - 1) < 1e-3) | (given < 0).any(axis=1))).size:
        raise ArgumentError(f"`probs` must be rows that sum to 1, but row {bad[0]} is {given[bad[0]].tolist()}")
    return np.log(np.maximum(given, 1e-6)).astype(np.float32)


def table_of(answers: Answers, beliefs: Beliefs, confidence: float = 0.95) -> CrowdTable:
    """What beliefs about items and annotators say of answers, see :class:`CrowdTable`."""
    item, annotator, label = answers.item, answers.annotator, answers.label
    posterior, (n, k) = beliefs.posterior, beliefs.posterior.shape
    votes = crowd.majority_vote(item, answers.of_people, num_items=n, num_classes=k)
    alpha = crowd.krippendorff_alpha(item, answers.of_people, num_items=n, num_classes=k)
    quality = crowd.annotator_quality(
        posterior, item, annotator, label, num_annotators=len(answers.annotators), confidence=confidence
    )
    probs = np.asarray(crowd.answer_probs(posterior, item, label))
    return CrowdTable(answers, beliefs, votes, quality, probs, float(alpha))
