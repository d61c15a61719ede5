"""The run folder: who may write to it, and the small files in it, written so that a kill never leaves half of one."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import jax

from nlx.experiment.options import ConfigError, RunConfig
from nlx.files import replacing

_ABOUT_THE_CALL = ("run_dir", "resume", "data_dir", "checkpoint_seconds")
"""Options that may differ between a run and its resumption: they do not change its numbers."""


def open_folder(folder: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """Make a run's folder and write config.json, or check that a resumed run is the same one.

    Args:
      folder: the run's.
      config: with every default filled in.
      facts: about the data and the method, for config.json; a resumed run has the same.

    Raises:
      ConfigError: the folder holds a run and --resume was not given, or it holds another run.
    """
    options = {name: _plain(value) for name, value in dataclasses.asdict(config).items()}
    path = folder / "config.json"
    if path.exists() and config.resume:
        written = json.loads(path.read_text())
        before = written["options"]
        ours = {name: value for name, value in options.items() if name not in _ABOUT_THE_CALL}
        for name, value in ours.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"{folder} was started with --{name}={before.get(name)}, not {value}: resume with the same "
                    "options, or choose another --run_dir"
                )
        for name, value in facts.items():
            if written.get(name) != value:
                raise ConfigError(
                    f"{folder} was started on other data ({name} was {written.get(name)}, is {value}): bring that data "
                    "back, or choose another --run_dir"
                )
    elif not config.resume and _holds_something(folder):
        raise ConfigError(f"{folder} exists: go on with it by --resume, or choose another --run_dir")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"options": options, **facts, "versions": versions()})


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
