"""A whole run, from a configuration to a folder with a classifier, cleaned labels and a report."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlx.data import Dataset
from nlx.experiment.assembly import Assembly
from nlx.experiment.console import Console
from nlx.experiment.export import export, facts_of
from nlx.experiment.options import Config, ConfigError, RunConfig
from nlx.experiment.recipe import Plan, Recipe, make_plan
from nlx.experiment.run_folder import open_folder, write_json
from nlx.training.checkpoint import Checkpoints, abstract_state
from nlx.training.loop import MetricsLog, fit
from nlx.training.scores import over_seeds


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
    plan = make_plan(config, recipe, dataset)
    name = f"{plan.method.name}-{plan.dataset.name}".replace("/", "-").replace(":", "-")
    folder = config.run_dir or Path("runs") / name
    with _stop_signals() as should_stop:
        if config.seeds == 1:
            return _run_seed(plan, recipe, folder, should_stop)
        _open_folder(folder, plan.config, facts_of(plan.dataset, plan.method))
        summaries = []
        for seed in range(config.seed, config.seed + config.seeds):
            one = replace(plan, config=replace(plan.config, seed=seed, seeds=1))
            summaries.append(_run_seed(one, recipe, folder / f"seed-{seed}", should_stop))
    if jax.process_index() != 0:
        return {}
    summary = over_seeds(summaries)
    write_json(folder / "summary.json", summary)
    return summary


def _run_seed(plan: Plan, recipe: Recipe[Any], folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
    config, dataset, method, course = plan.config, plan.dataset, plan.method, plan.course
    began = time.monotonic()
    lead = jax.process_index() == 0
    _open_folder(folder, config, facts_of(dataset, method))
    console = Console(f"{method.name} on {dataset.name}, seed {config.seed}", course.epochs, quiet=not lead)
    parts = Assembly(plan)
    state, feed = parts.start(config.seed), parts.feed(config.seed)
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
            evaluate=parts.evaluate,
            evaluate_every=config.evaluate_every,
            refresh=parts.refresh,
            redraw=parts.redraw,
            log=log,
            checkpoints=checkpoints,
            checkpoint_seconds=config.checkpoint_seconds,
            watcher=console,
            should_stop=should_stop,
        )
    posterior = parts.posterior(state)
    features = None
    if recipe.features is not None and recipe.products is not None:
        features = parts.features(state, recipe.features(dataset))
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
