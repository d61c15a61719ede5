"""The command line of a recipe: options from a dataclass, errors as one sentence, exit codes that scripts can read."""

from __future__ import annotations

import logging
import signal
import sys

import tyro

from nlx.data import DataError
from nlx.experiment.options import Config, ConfigError
from nlx.experiment.recipe import Recipe
from nlx.experiment.run import run
from nlx.training.checkpoint import CheckpointError
from nlx.training.loop import Diverged, Stopped


def main(
    config: type[Config], recipe: Recipe[Config], description: str | None, arguments: list[str] | None = None
) -> int:
    """Read options, run, and return the exit code.

    Args:
      config: dataclass of the recipe's options; its attribute docstrings are the help.
      recipe: what to run.
      description: the recipe's docstring, shown above the options.
      arguments: instead of the command line's.

    Returns:
      0 when the run is complete, 1 for an error that has been told in one sentence, 128 + SIGTERM (143) when the run
      was stopped and saved. Unknown options exit with 2 (``SystemExit``).
    """
    # What orbax logs of a failed write comes again as an exception, which is told in one sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    options = tyro.cli(config, description=description, args=arguments, use_underscores=True)
    try:
        run(options, recipe)
    except Stopped as stop:
        return _tell(f"{stop}; the state is saved: go on with --resume", 128 + signal.SIGTERM)
    except (DataError, ConfigError, CheckpointError, Diverged) as error:
        return _tell(f"error: {error}", 1)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        reason = error.strerror or str(error)
        return _tell(f"error: cannot read or write{where}: {reason}; fix that and go on with --resume", 1)
    return 0


def _tell(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code
