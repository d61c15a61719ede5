"""Crowds: several people's answers, a classifier and the people's confusion matrices, learnt together by EM.

  python recipes/crowd.py --dataset=digits --answers=planted:2             # a made-up crowd, seconds on two cores
  python recipes/crowd.py --dataset=digits --answers=planted:2 --method=crowd_layer
  python recipes/crowd.py --dataset=npz:my_arrays.npz --answers=answers.csv --folds=5 --web

Beside what every run leaves: annotators.csv, answers.parquet, questions.csv, consensus.csv, tasks.json (Label Studio).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from nlx import Stage, Trainer
from nlx.arguments import ArgumentError
from nlx.cleaning.beliefs import believed
from nlx.cleaning.consensus import table_of
from nlx.cleaning.folds import out_of_fold
from nlx.crowd import krippendorff_alpha, majority_vote
from nlx.data import Dataset
from nlx.data.answers import Answers, answers_of
from nlx.data.crowds import planted_answers
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_one_label
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.crowd import crowd
from nlx.methods.crowd_layers import conal, crowd_layer
from nlx.report.annotators import annotator_pictures


@dataclass(frozen=True)
class CrowdOptions(RecipeOptions):
    """Options of crowds, after those of every recipe."""

    answers: str = "planted:3"
    """A table of answers (.csv, .tsv, .parquet, .npy, Label Studio's .json): item, annotator and label, maybe group, or
    a column for each annotator; items are rows of the training set, from 0. Or planted:P, P answers an example by a
    made-up crowd of skilled, lazy, adversarial and colluding people, for data whose true labels are known."""
    trusted: Path | None = None
    """A table with the columns item and label: true labels that are known, beside those of --clean_fraction."""
    method: Literal["em", "crowd_layer", "conal"] = "em"
    """em: this system. crowd_layer (Rodrigues and Pereira, 2018), conal (Chu et al., 2021): a layer for each annotator,
    trained by gradient."""
    folds: int | None = None
    """Let models that have not seen an example's answers say what they hold of it: this many, for em. 0 takes the
    classifier as it trains, which comes to know the answers by heart. Default: 5 where most examples have a single
    answer, which nothing else can doubt, else 0."""
    web: bool = False
    """Take the data set's own noisy labels as those of one further annotator, who is like nobody else."""
    strength: float | None = None
    """Answers a row that stand for what all annotators share, in everyone's matrix. Default: what fits best."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, inf)", "folds", "strength")
        refuse_idle(self, "with answers, which are about all rows", "training_fraction", "validation_fraction")
        if self.method != "em":
            refuse_idle(self, f"with `method`={self.method}", "folds", "strength", "clean_fraction", "trusted")


def answered(options: CrowdOptions, data: Dataset) -> tuple[Answers, Dataset]:
    """The answers, and the data set with the majority's labels as the given ones."""
    require_one_label(data, "crowds are")
    train, names = data.train, data.class_names
    table: Any = options.answers
    if table.startswith("planted"):
        if train.label is None or not train.known.all():
            raise ArgumentError(f"{data.name} has no true labels to plant answers on: give a table by `answers`")
        table = planted_answers(train.label, names, table, options.noise_seed)
    web = train.observed if options.web else None
    answers = answers_of(table, web=web, trusted=options.trusted, class_names=names, num_items=len(train))
    votes = majority_vote(answers.item, answers.of_people, num_items=len(train), num_classes=len(names))
    label = np.where(np.asarray(votes.label) < 0, train.observed, votes.label).astype(np.int32)
    train = replace(answers.trusted_in(train), noisy_label=label, wrong=None)
    return answers, replace(data, train=train)


def train(options: CrowdOptions, run: Run) -> Result:
    """Data, answers, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    answers, data = answered(options, data)
    beliefs = believed(answers)  # without the classifier: tells who repeats others, whose answers count once
    for note in table_of(answers, beliefs).notes:
        run.warn(note)
    people: dict[str, Any] = {name: answers.sizes[name] for name in ("num_annotators", "num_classes")}
    given, trusted, groups = answers.by_item(~beliefs.repeated), data.train.trusted_label, answers.groups
    model, optimizer = build_model(options, training, data), build_optimizer(options, training)
    stage, key = Stage(training.epochs, schedule=build_schedule(options, training)), jax.random.key(options.seed)
    if options.method == "em":
        make = partial(crowd, *given, **people, trusted=trusted, groups=groups, strength=options.strength)
        method = make()
        folds = (5 if answers.mostly_single else 0) if options.folds is None else options.folds
        if folds:
            judges = Trainer(model, method, optimizer, batch_size=training.batch_size)
            held_out = out_of_fold(judges, data.train, key, folds=folds, stages=stage).probs
            method = make(held_out=held_out)
    else:
        method = {"crowd_layer": crowd_layer, "conal": conal}[options.method](*given, **people)
    observers = run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    fitted = trainer.fit(data.train, key, stage, state=run.restored(trainer, data, stage))
    alpha = krippendorff_alpha(answers.item, answers.of_people, num_items=len(data.train), num_classes=data.num_classes)
    facts = {"answers": len(answers), "annotators": len(answers.annotators), "krippendorff_alpha": float(alpha)}
    return run.export(trainer, fitted, data, pictures=[annotator_pictures(answers, beliefs)], facts=facts)


if __name__ == "__main__":
    sys.exit(main(CrowdOptions, train))
