"""A run of a recipe: its data, its folder, who looks on, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nlx.cleaning.guard import some_of
from nlx.cleaning.held_out import judge, judged_as_they_are, rows_to_judge
from nlx.cleaning.table import LabelTable
from nlx.data import Dataset, load
from nlx.data.loading import idle_options
from nlx.data.names import with_words
from nlx.data.understanding import doubts, understood
from nlx.experiment.console import Console, Status
from nlx.experiment.defaults import Training, facts_at_start, require_steps, training_for
from nlx.experiment.export import Picture, facts_of, held_out_tables, table_of, write_products
from nlx.experiment.first_answer import evidence_for
from nlx.experiment.log import MetricsLog
from nlx.experiment.options import RecipeOptions, refuse_idle
from nlx.experiment.plan import Planned, plan_of
from nlx.experiment.profile import Profile
from nlx.experiment.run_folder import fingerprint, open_on_first_process
from nlx.experiment.saved import save_trained
from nlx.experiment.signals import StopOnSignal, StopSignals
from nlx.experiment.transition_source import file_of
from nlx.experiment.weights import refuse_idle_layout, with_initial_weights
from nlx.methods.method import Method
from nlx.methods.top import worth_shortening
from nlx.training.checkpoint import Checkpoints
from nlx.training.evaluation import Evaluate
from nlx.training.loop import Fitted
from nlx.training.mesh import on_host
from nlx.training.observers import Observer, polled
from nlx.training.stages import Stage, Stages
from nlx.training.state import TrainState, for_prediction
from nlx.training.trainer import Trainer


class Result(NamedTuple):
    """What a run gives; of several processes, the first one has it.

    Attributes:
      folder: where everything lies.
      summary: what summary.json holds.
      table: cleaned labels.
    """

    folder: Path
    summary: dict[str, Any]
    table: LabelTable | None


class Run:
    """What a recipe needs around its trainer.

    Args:
      options: the recipe's, for one seed.
      signals: what may ask for a stop.
      data: to train on instead of the data set that the options name.
      among: options of a run of several seeds that this one is part of, in a folder within that run's.
      pictures: whether recipes' own pictures are to be made.
      held: keeps other processes out of the run folder until it is closed.

    Attributes:
      options: as given.
      source: the data set before any of it is left out or trusted; None until it is loaded.
      folder: where everything is written, once :meth:`observers` has opened it.
    """

    folder: Path

    def __init__(
        self,
        options: RecipeOptions,
        *,
        signals: StopSignals | None = None,
        data: Dataset | None = None,
        among: RecipeOptions | None = None,
        pictures: bool = True,
        held: ExitStack | None = None,
    ):
        self._held = ExitStack() if held is None else held
        self.options, self.source, self._among, self._pictures = options, data, among, pictures
        self._signals, self._began = signals or StopSignals(), time.monotonic()
        self._lead, self._first = jax.process_index() == 0, among is None or options.seed == among.seed
        self._status = Status(quiet=not self._lead)
        self._held.callback(self._status.end)

    def load(self, *, two_vocabularies: bool = False) -> tuple[Dataset, Training]:
        """The data set that the options name, and how to train on it.

        Args:
          two_vocabularies: whether noisy labels may be of another vocabulary than the classes, or are translated.

        Raises:
          DataError, ArgumentError: something the user has to change.
        """
        o = self.options
        if self.source is None:
            if o.test is None:
                refuse_idle(o, f"for `dataset`={o.dataset}", *idle_options(o.dataset))
            self._status.begin(f"loading {o.dataset}")
            self.source = load(
                o.dataset,
                test=o.test,
                labels=o.labels,
                data_dir=o.data_dir,
                noise=o.noise,
                image_size=o.image_size,
                noise_seed=o.noise_seed,
                in_memory_gib=o.in_memory_gib,
                label_separator=o.label_separator,
                skip_broken=o.skip_broken,
                allow_outside=o.allow_outside,
            )
        if o.words is not None:
            self.source = with_words(self.source, o.words)
        self._status.begin("building the model")
        data = self.source if two_vocabularies else self.source.in_classes()
        if o.training_fraction < 1:
            data = data.keep(o.training_fraction, o.noise_seed)
        if o.clean_fraction:
            data = data.trust(o.clean_fraction, o.noise_seed)
        if o.known_outliers:
            data = data.know_outliers(o.known_outliers, o.noise_seed)
        if o.validation_fraction:
            data = data.hold_out(o.validation_fraction, o.noise_seed)
        self._training = training_for(o, data)
        return data, self._training

    def begin(self, text: str) -> None:
        """Say what takes a while before training begins."""
        self._status.begin(text)

    def warn(self, text: str) -> None:
        """Tell the user of something that may not be meant."""
        if self._lead:
            self._status.say(f"warning: {text}")

    def observers(self, method: Method, data: Dataset, **settled: Any) -> list[Observer]:
        """Who looks on: scores, log, console, checkpoints, and signals that ask for a stop. Opens the run folder.

        Args:
          method: what is trained.
          data: what it is trained on.
          settled: the recipe's own options that it has filled in, for config.json.

        Raises:
          ArgumentError: the folder holds another run.
        """
        if self.options.plan is not None:
            return []
        name = f"{method.name}-{data.name}".replace("/", "-").replace(":", "-")
        about = fingerprint(data, file_of(getattr(self.options, "transition", None)))
        facts = facts_of(data, method) | about | facts_at_start(self.options)
        settled = {**asdict(self._training), **settled}
        self.folder = Path(self.options.run_dir or Path("runs") / name)  # text, from a notebook
        if self._among is not None:
            if self.options.seed == self._among.seed:  # the first of them
                open_on_first_process(self.folder, {**asdict(self._among), **settled}, facts, self._held)
            self.folder /= f"seed-{self.options.seed}"
        told = open_on_first_process(self.folder, {**asdict(self.options), **settled}, facts, self._held)
        if told:
            self.warn(told)
        title = f"{method.name} on {data.name}, seed {self.options.seed}"
        about_data = self._understanding()
        self.console = Console(title, quiet=not self._lead, about=about_data, status=self._status)
        self._log = MetricsLog(self.folder / "metrics.jsonl")
        self._checkpoints = Checkpoints(self._place_of_checkpoints(), self.options.checkpoint_seconds, about)
        return [
            Evaluate(data, self.options.evaluate_every, self._whole(data), self.options.evaluate_examples),
            *([self._log] if self._lead else []),
            self.console,
            *([Profile(self.folder / "profile", self.console.say)] if self.options.profile else []),
            self._checkpoints,
            StopOnSignal(self._signals),
        ]

    def _place_of_checkpoints(self) -> str | Path:
        if self.options.checkpoint_dir is None:
            return self.folder / "checkpoints"
        return self.options.checkpoint_dir + ("" if self._among is None else f"/seed-{self.options.seed}")

    def _whole(self, data: Dataset) -> bool:
        """Whether all classes' probabilities of all examples are kept, or those of the likeliest."""
        limit = self.options.posterior_gib * 2**30
        return data.multi_label or not worth_shortening(len(data.train), data.num_classes, limit)

    def _understanding(self) -> list[str]:
        """How the data were understood, told once however many seeds there are."""
        if self.source is None or not self._first:
            return []
        doubtful = [f"warning: {text}" for text in (*self.source.notes, *doubts(self.source))]
        return [f"{self.source.name}: {understood(self.source)}", *doubtful]

    def restored(self, trainer: Trainer, data: Dataset, stages: int | Stage | Sequence[Stage]) -> TrainState | None:
        """The state to go on with: of the last checkpoint, or with weights from a file; None for a fresh one.

        Args:
          trainer: what is to train.
          data: on what.
          stages: when, as a plan tells it.

        Raises:
          Planned: the run was to be planned for alone, and that is told.
        """
        require_steps(self.options, Stages(stages, len(data.train), trainer.batch_size))
        if self.options.plan is not None:
            if self._lead:
                for sentence in plan_of(trainer, data, self._training, stages, self._whole(data)).sentences:
                    self._status.say(sentence)
            raise Planned
        fresh = partial(with_initial_weights, trainer, data, self.options, self._training.model, self.console.say)
        refuse_idle_layout(self.options, trainer, data.train)
        if not self.options.resume:
            return fresh()
        state = self._checkpoints.load(trainer.abstract_state(data.train))
        if damaged := sorted(self._checkpoints.damaged):
            self.warn(f"checkpoint {', '.join(map(str, damaged))} is damaged and passed over")
        at = "there is no checkpoint yet, starting" if state is None else f"going on after step {int(state.step)}"
        self.console.say(f"{self.folder}: {at}")
        return fresh() if state is None else state

    def export(
        self,
        trainer: Trainer,
        fitted: Fitted,
        data: Dataset,
        *,
        pictures: Sequence[Picture] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> Result:
        """Clean the labels, and write all that the run leaves.

        Args:
          trainer: what was trained.
          fitted: what came of it.
          data: what was trained on.
          pictures: the recipe's own.
          facts: what else the summary and the report are to say.
        """
        with polled(lambda: self._signals.requested):
            self._status.begin("exporting, 1 of 3: what is believed of every label")
            whole = self._whole(data)
            posterior = trainer.posterior(fitted.state, data.train, whole=whole)
            self._status.begin("exporting, 2 of 3: what models believe that have not seen the labels")
            rows = rows_to_judge(len(data.train))
            split = data.train.take(rows)
            seen = split.inputs if judged_as_they_are(split.inputs) else trainer.features(fitted.state, split)
            predicted = {
                name: (part, trainer.predict(fitted.state, part, multi_label=data.multi_label))
                for name, part in (("test", data.test), ("validation", data.validation))
                if part is not None
            }
            learnt = on_host(for_prediction(fitted.state))
        if not self._lead:
            return Result(self.folder, {}, None)
        ends = self._among is None or self.options.seed == self._among.seed + self._among.seeds - 1
        with self._signals.alone() if ends else nullcontext():  # other processes are at the next seed, and would wait
            judged = judge(rows, np.asarray(seen), data.given(data.train), data.num_classes)
            evidence = evidence_for(data) if self.options.second_opinion else None
            table = table_of(posterior, data, trainer.method.name, judged, evidence)
            self._status.begin("exporting, 3 of 3: model, labels, pictures and report")
            save_trained(self.folder, trainer, learnt, data)
            options, training = self.options, self._training
            summary = write_products(
                self.folder,
                table,
                posterior,
                data,
                trainer.method,
                learnt.params["method"],
                self._log.rows,
                pictures=pictures if self._pictures else (),
                about={"seeds": [options.seed], "epochs": training.epochs, "model": training.model, **(facts or {})},
                wall_seconds=time.monotonic() - self._began,
                held_out=held_out_tables(predicted, data, trainer.method.name, whole),
            )
        self._status.end()
        name = f"{trainer.method.name} on {data.name}"
        self.console.say(f"{name}: labels cleaned with: {table.chosen}; all in {self.folder}")
        if "own" in table.guard:
            self.warn(f"the method's own {table.guard['own']['line']}; so linear models in folds were asked")
        if missed := table.guard["classes_unpredicted"]:
            self.warn(f"the classifier hardly ever predicts {some_of(missed)}; take another loss or method")
        (self.warn if table.guard["verdict"] == "worse" else self.console.say)(table.guard["line"])
        return Result(self.folder, summary, table)
