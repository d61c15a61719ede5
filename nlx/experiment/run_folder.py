"""The run folder: who may write to it, and the small files in it, written so that a kill never leaves half of one."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlx.arguments import ArgumentError
from nlx.files import replacing

_ABOUT_THE_CALL = ("run_dir", "resume", "data_dir", "checkpoint_seconds")
"""Options that may differ between a run and its resumption: they do not change its numbers."""


def open_folder(folder: Path, options: dict[str, Any], facts: dict[str, Any]) -> None:
    """Make a run's folder and write config.json, or check that a run that goes on is the same one.

    Args:
      folder: the run's.
      options: all of them, with every default filled in; ``resume`` says whether the run goes on.
      facts: about the data and the method, for config.json; a run that goes on has the same.

    Raises:
      ArgumentError: the folder holds a run that is not to go on, or another run.
    """
    options = {name: _plain(value) for name, value in options.items()}
    path = folder / "config.json"
    if path.exists() and options["resume"]:
        written = json.loads(path.read_text())
        for name, value in options.items():
            before = written["options"].get(name)
            if name not in _ABOUT_THE_CALL and before != value:
                raise ArgumentError(
                    f"{folder} was started with `{name}`={before}, not {value}: resume with the same options, or "
                    "choose another `run_dir`"
                )
        for name, value in facts.items():
            if written.get(name) != value:
                raise ArgumentError(
                    f"{folder} was started on other data ({name} was {written.get(name)}, is {value}): bring that data "
                    "back, or choose another `run_dir`"
                )
    elif not options["resume"] and _holds_something(folder):
        raise ArgumentError(f"{folder} exists: go on with it by `resume`, or choose another `run_dir`")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"options": options, **facts, "versions": versions()})


def open_on_first_process(folder: Path, options: dict[str, Any], facts: dict[str, Any]) -> None:
    """:func:`open_folder` on the first process; all of them stop where it cannot be used."""
    refused: ArgumentError | None = None
    if jax.process_index() == 0:
        try:
            open_folder(folder, options, facts)
        except ArgumentError as error:
            refused = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(refused is not None)):
        raise refused or ArgumentError("the first process cannot use the run folder; its message says why")
    if refused is not None:
        raise refused


def _holds_something(folder: Path) -> bool:
    """Whether there is more than what a run leaves that ended before its first epoch."""
    if not folder.exists():
        return False
    return any(
        p.name != "config.json" and not (p.name == "checkpoints" and not any(p.iterdir())) for p in folder.iterdir()
    )


def versions() -> dict[str, str]:
    """Versions and device that a figure depends on."""
    packages = ("nlx", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
