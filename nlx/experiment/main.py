"""The command line of a recipe: options from a dataclass, one seed or several, errors as one sentence, exit codes."""

from __future__ import annotations

import logging
import os
import re
import signal
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from typing import Any, TypeVar

import jax
import tyro

from nlx.arguments import ArgumentError
from nlx.data import DataError, Dataset
from nlx.experiment.launch import join
from nlx.experiment.options import RecipeOptions
from nlx.experiment.plan import Planned
from nlx.experiment.run import Result, Run
from nlx.experiment.run_folder import write_json
from nlx.experiment.signals import Stopped, StopSignals
from nlx.experiment.streams import lasting_streams
from nlx.target import devices_of, planned_for
from nlx.training.checkpoint import CheckpointError
from nlx.training.loop import Diverged
from nlx.training.mesh import Layout, laid_out
from nlx.training.observers import Interrupted

Options = TypeVar("Options", bound=RecipeOptions)
Train = Callable[[Options, Run], Result]
_STOPPED = 128 + signal.SIGTERM


def main(options_type: type[Options], train: Train[Options], arguments: list[str] | None = None) -> int:
    """Read options, run a recipe, and return the exit code.

    Args:
      options_type: dataclass of the recipe's options; its attribute docstrings are the help.
      train: the recipe; the docstring of its file stands above the options.
      arguments: instead of the command line's.

    Returns:
      0 when the run is complete, 1 for an error that has been told in one sentence, 128 + SIGTERM (143) when the run
      was stopped and saved; a process of its own ends with that at once. Unknown options exit with 2 (``SystemExit``).
    """
    with lasting_streams():
        code = _main(options_type, train, arguments)
    if code == _STOPPED and arguments is None and jax.process_count() == 1:
        os._exit(code)  # Python would wait for what XLA still compiles
    return code


def _main(options_type: type[Options], train: Train[Options], arguments: list[str] | None) -> int:
    # What orbax logs of a failed write comes again as an exception, which is told in one sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    description = sys.modules[train.__module__].__doc__
    options = tyro.cli(options_type, description=description, args=arguments, use_underscores=True)
    flags = {field.name for field in fields(options)}
    try:
        join(options.distributed)
        run_recipe(options, train)
    except Stopped as stop:
        return _tell(f"{stop}; the state is saved: go on with --resume", _STOPPED)
    except Interrupted:
        return _tell("stopped; what is saved is whole: go on with --resume", _STOPPED)
    except Diverged as error:
        return _tell(f"error: {as_flags(str(error), flags)}, and another --run_dir", 1)
    except CheckpointError as error:
        other = "--run_dir chooses" if options.checkpoint_dir is None else "--run_dir and --checkpoint_dir choose"
        return _tell(f"error: {as_flags(str(error), flags)} (--resume goes on, {other} another folder)", 1)
    except (DataError, ArgumentError) as error:
        return _tell(f"error: {as_flags(str(error), flags)}", 1)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        reason = error.strerror or str(error)
        return _tell(f"error: cannot read or write{where}: {reason}; fix that and go on with --resume", 1)
    return 0


def _planned(topology: str) -> list[jax.Device]:
    try:
        return devices_of(topology)
    except ArgumentError as error:
        raise ArgumentError(f"`plan`={error}") from error


def run_recipe(
    options: Options, train: Train[Options], *, data: Dataset | None = None, pictures: bool = True
) -> dict[str, Any]:
    """Run a recipe under one seed or several.

    Args:
      options: the recipe's.
      train: the recipe.
      data: to train on instead of the data set that the options name.
      pictures: whether recipes' own pictures are to be made.

    Returns:
      What summary.json holds, with means and standard deviations over several seeds; nothing where a run was only
      planned, and on processes other than the first.

    Raises:
      DataError, ArgumentError: something the user has to change.
      Stopped: on SIGINT or SIGTERM, after the state was saved.
    """
    options.check()
    o = options
    with laid_out(Layout(o.model_devices, o.shard_params, o.spread_data, o.shuffle_groups)):
        return _run(options, train, data, pictures)


def _run(options: Options, train: Train[Options], data: Dataset | None, pictures: bool) -> dict[str, Any]:
    if options.plan is not None:
        with planned_for(_planned(options.plan)), ExitStack() as held, suppress(Planned):
            train(replace(options, seeds=1), Run(replace(options, seeds=1), data=data, held=held))
        return {}
    with StopSignals() as signals, ExitStack() as held:
        if options.seeds == 1:
            return train(options, Run(options, signals=signals, data=data, pictures=pictures, held=held)).summary
        summaries = []
        for seed in range(options.seed, options.seed + options.seeds):
            one = replace(options, seed=seed, seeds=1)
            run = Run(one, signals=signals, data=data, among=options, pictures=pictures, held=held)
            summaries.append(train(one, run).summary)
            data = run.source  # read and decoded once for all seeds
    if not summaries[0]:
        return {}
    summary = over_seeds(summaries)
    write_json(run.folder.parent / "summary.json", summary)
    return summary


def over_seeds(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the summaries of several seeds."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values)}

    first = summaries[0]
    return {
        **{name: first[name] for name in ("method", "dataset", "epochs", "given_label_recovery", "versions")},
        "seeds": [seed for s in summaries for seed in s["seeds"]],
        "cleaned_with": [s["cleaned_with"] for s in summaries],
        "guard": [s["guard"]["line"] for s in summaries],
        "own_guard": [s["guard"].get("own", s["guard"])["line"] for s in summaries],
        "last": {name: spread([s["last"][name] for s in summaries]) for name in first["last"]},
        "best": {name: spread([s["best"][name]["value"] for s in summaries]) for name in first["best"]},
        "wall_seconds": round(sum(s["wall_seconds"] for s in summaries), 1),
    }


def as_flags(message: str, flags: set[str]) -> str:
    """A library's message as one of the command line: arguments, in backticks, become its options."""
    return re.sub(r"`(\w+)`", lambda m: f"--{m[1]}" if m[1] in flags else m[1], message)


def _tell(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code
