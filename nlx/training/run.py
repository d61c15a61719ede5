"""A whole run, from a configuration to a folder with a classifier, cleaned labels and a report."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlx.data import Dataset, Split, load
from nlx.data.course import Course, Stage
from nlx.data.prepare import normalization, preparer, six_views
from nlx.methods.method import Method
from nlx.reporting.console import Console
from nlx.training.checkpoint import Checkpoints, abstract_state
from nlx.training.config import Config, ConfigError, RunConfig, build_model, crop_size, fill, make_optimizer
from nlx.training.evaluate import Evaluator, Refresher
from nlx.training.export import Cleaned, export, facts_of
from nlx.training.feed import in_order, make_feed
from nlx.training.folder import open_folder, write_json
from nlx.training.loop import MetricsLog, Row, fit
from nlx.training.scores import clean_scores, noisy_score, over_seeds, recovery_scores
from nlx.training.state import init_state, make_mesh, redraw_heads
from nlx.training.step import batch_for_method, make_step
from nlx.training.transition import true_transition

_EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Recipe(Generic[Config]):
    """What makes one recipe different from another.

    Attributes:
      method: (filled-in configuration, data set, course of the run) -> the method to train.
      products: (finished run) -> paths of the pictures it adds to the run folder; None for none.
      stages: (filled-in configuration, data set) -> what is visited when; None for all examples in every epoch.
      fill: (configuration, data set) -> the configuration with the recipe's own defaults that depend on the data.
      data: (configuration, data set) -> the data set to train on; None for the one that was loaded.
      features: data set -> rows of the training set whose features ``products`` needs; None for none.
      two_vocabularies: whether noisy labels may be of another vocabulary than the classes; else they are translated.
    """

    method: Callable[[Config, Dataset, Course], Method]
    products: Callable[[Cleaned], list[Path]] | None = None
    stages: Callable[[Config, Dataset], list[Stage]] | None = None
    fill: Callable[[Config, Dataset], Config] | None = None
    data: Callable[[Config, Dataset], Dataset] | None = None
    features: Callable[[Dataset], np.ndarray] | None = None
    two_vocabularies: bool = False


def run(config: Config, recipe: Recipe[Config], *, dataset: Dataset | None = None) -> dict[str, Any]:
    """Train, evaluate and export one seed or several.

    Args:
      config: options; what depends on the data may still be None.
      recipe: the method and its products.
      dataset: to train on instead of the one the configuration names.

    Returns:
      What summary.json holds; on processes other than the first, nothing.

    Raises:
      DataError, ConfigError: something the user has to change.
      Stopped: on SIGINT or SIGTERM, after the state was saved.
    """
    config.check()
    if dataset is None:
        dataset = load(
            config.dataset,
            labels=config.labels,
            data_dir=config.data_dir,
            noise=config.noise,
            image_size=config.image_size,
            noise_seed=config.noise_seed,
            in_memory_gib=config.in_memory_gib,
        )
    if not recipe.two_vocabularies:
        dataset = dataset.in_classes()
    if config.training_fraction < 1:
        dataset = dataset.keep(config.training_fraction, config.noise_seed)
    if config.clean_fraction:
        dataset = dataset.trust(config.clean_fraction, config.noise_seed)
    if config.known_outliers:
        dataset = dataset.know_outliers(config.known_outliers, config.noise_seed)
    if recipe.data is not None:
        dataset = recipe.data(config, dataset)
    config = fill(config, dataset)
    if recipe.fill is not None:
        config = recipe.fill(config, dataset)
    held_out = None
    if config.validation_fraction:
        dataset, held_out = dataset.hold_out(config.validation_fraction, config.noise_seed)
    assert config.epochs is not None
    assert config.batch_size is not None
    if recipe.stages is None:
        course = Course.whole(len(dataset.train), config.batch_size, config.epochs)
    else:
        course = Course(recipe.stages(config, dataset), config.batch_size)
    method = recipe.method(config, dataset, course)
    folder = config.run_dir or Path("runs") / f"{method.name}-{dataset.name}".replace("/", "-").replace(":", "-")
    with _stop_signals() as should_stop:
        if config.seeds == 1:
            return _run_seed(config, recipe, method, dataset, held_out, course, folder, should_stop)
        _open_folder(folder, config, facts_of(dataset, method))
        summaries = []
        for seed in range(config.seed, config.seed + config.seeds):
            one = replace(config, seed=seed, seeds=1)
            summaries.append(
                _run_seed(one, recipe, method, dataset, held_out, course, folder / f"seed-{seed}", should_stop)
            )
    if jax.process_index() != 0:
        return {}
    summary = over_seeds(summaries)
    write_json(folder / "summary.json", summary)
    return summary


def _run_seed(
    config: RunConfig,
    recipe: Recipe[Any],
    method: Method,
    dataset: Dataset,
    held_out: Split | None,
    course: Course,
    folder: Path,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    assert config.augmentation is not None
    began = time.monotonic()
    lead = jax.process_index() == 0
    _open_folder(folder, config, facts_of(dataset, method))
    console = Console(f"{method.name} on {dataset.name}, seed {config.seed}", course.epochs, quiet=not lead)

    mesh = make_mesh()
    model = build_model(config, dataset)
    size = crop_size(config, dataset)
    mean, scale = normalization(dataset.train.inputs)
    prepare = preparer(mean, scale, augmentation=config.augmentation, size=size)
    optimizer = make_optimizer(config, course.total)
    step = make_step(model, method, optimizer, prepare, mesh)
    evaluation_batch = -(-_EVALUATION_BATCH // mesh.size) * mesh.size
    sample, _ = next(in_order(dataset.train, mesh.size, mesh))
    sample = batch_for_method(sample, prepare, None)
    state = init_state(jax.random.key(config.seed), model, method, optimizer, sample, len(dataset.train), mesh)
    feed = make_feed(dataset.train, course, step, config.seed, jax.random.key(config.seed), mesh)
    if config.six_crops and size is None:
        raise ConfigError("--six_crops needs images stored larger than the model sees them; leave it out")
    if config.six_crops:
        assert size is not None
        whole, views = preparer(mean, scale), six_views(size)
        evaluator = Evaluator(model, method, prepare, mesh)
        tester = Evaluator(model, method, whole, mesh, views)
    else:
        evaluator = tester = Evaluator(model, method, prepare, mesh)

    refresh = None
    if method.refresh is not None:
        refresh = Refresher(model, method, prepare, mesh, dataset.train, evaluation_batch)

    truth = true_transition(dataset)

    def evaluate(state: Any) -> Row:
        row: Row = {}
        if dataset.test is not None:
            assert dataset.test.label is not None
            scores = tester.scores(state, in_order(dataset.test, evaluation_batch, mesh))
            row |= clean_scores(scores, dataset.test.label)
        if held_out is not None:
            scores = tester.scores(state, in_order(held_out, evaluation_batch, mesh))
            row["validation_score"] = noisy_score(scores, dataset.given(held_out))
        if dataset.train.label is not None:
            posterior = evaluator.posterior(state, in_order(dataset.train, evaluation_batch, mesh))
            row |= recovery_scores(posterior, dataset.train)
        if method.transition is not None and truth is not None:
            row["transition_mae"] = float(np.abs(method.transition(state.params["method"]) - truth).mean())
        return row

    with Checkpoints(folder / "checkpoints") as checkpoints:
        if config.resume:
            loaded = checkpoints.load(abstract_state(state))
            state = state if loaded is None else loaded
            at = "there is no checkpoint yet, starting" if loaded is None else f"going on after step {int(state.step)}"
            console.say(f"{folder}: {at}")
        log = MetricsLog(folder / "metrics.jsonl", int(state.step)) if lead else None
        state = fit(
            state,
            feed,
            course=course,
            evaluate=evaluate,
            evaluate_every=config.evaluate_every,
            refresh=refresh,
            redraw=lambda state: redraw_heads(state, model, method, sample, mesh),
            log=log,
            checkpoints=checkpoints,
            checkpoint_seconds=config.checkpoint_seconds,
            watcher=console,
            should_stop=should_stop,
        )
    posterior = evaluator.posterior(state, in_order(dataset.train, evaluation_batch, mesh))
    features = None
    if recipe.features is not None and recipe.products is not None:
        part = dataset.train.take(recipe.features(dataset))
        features = evaluator.features(state, in_order(part, evaluation_batch, mesh))
    if log is None:
        return {}
    params = jax.tree.map(np.asarray, state.params["method"])
    wall = time.monotonic() - began
    summary = export(config, recipe.products, method, dataset, folder, posterior, params, features, log.rows, wall)
    chosen = summary["cleaned_with"]
    console.say(f"{method.name} on {dataset.name}: labels cleaned with: {chosen}; all in {folder}")
    return summary


def _open_folder(folder: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """Open the run folder on the first process, and stop all of them where it cannot be used."""
    refused: ConfigError | None = None
    if jax.process_index() == 0:
        try:
            open_folder(folder, config, facts)
        except ConfigError as error:
            refused = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(refused is not None)):
        raise refused or ConfigError("the first process cannot use the run folder; its message says why")
    if refused is not None:
        raise refused


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """While open, SIGINT and SIGTERM ask for a stop; a second SIGINT ends the process at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
