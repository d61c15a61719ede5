"""The run folder: who may write to it, and the small files in it, written so that a kill never leaves half of one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nlx.arguments import ArgumentError
from nlx.data.dataset import Dataset, ImageFiles, Split
from nlx.data.records import content_of, file_of
from nlx.files import locked, replacing, sweep, to_json

_LAYOUT = ("distributed", "shard_params", "model_devices", "spread_data")
ABOUT_THE_CALL = ("run_dir", "resume", "data_dir", "checkpoint_seconds", "checkpoint_dir", "profile", *_LAYOUT)
"""Options that may differ between a run and its resumption: they do not change its numbers, but for rounding."""


def open_folder(folder: Path, options: dict[str, Any], facts: dict[str, Any], held: ExitStack) -> str:
    """Make a run's folder and write config.json, or check that a run that goes on is the same one.

    Args:
      folder: the run's.
      options: all of them, with every default filled in; ``resume`` says whether the run goes on.
      facts: about the data and the method, for config.json; a run that goes on has the same.
      held: keeps other processes out of the folder until it is closed.

    Returns:
      What a run that goes on should be told of, empty where there is nothing.

    Raises:
      ArgumentError: another process is writing there, or the folder holds a run that is not to go on, another run, or
        something else.
    """
    options = {name: _plain(value) for name, value in options.items()}
    path = folder / "config.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(locked(folder))
    except BlockingIOError:
        raise ArgumentError(
            f"another process is writing to {folder}: wait for its end, or choose another `run_dir`"
        ) from None
    sweep(folder)
    told, present, holds = "", os.path.lexists(path), _holds_something(folder)
    differs: tuple[str, str] | None = None
    if present or (options["resume"] and holds):
        written = _read_config(path, present)
        differs = _difference(written, options, facts)
        told = _other_versions(written.get("versions", {})) if options["resume"] else ""
    if differs and options["resume"]:
        raise ArgumentError(f"{folder} was started {differs[0]}: {differs[1]}, or choose another `run_dir`")
    if differs and holds:
        raise ArgumentError(f"{folder} exists, started {differs[0]}: choose another `run_dir`")
    if holds and not options["resume"]:
        raise ArgumentError(f"{folder} exists: go on with it by `resume`, or choose another `run_dir`")
    write_json(path, {"options": options, **facts, "versions": versions()})
    return told


def _read_config(path: Path, present: bool) -> dict[str, Any]:
    """What config.json says of the run that was started in its folder."""
    if not present:
        raise ArgumentError(
            f"{path.parent} holds no config.json, which says what was started there: bring it back, or choose another "
            "`run_dir`"
        )
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(written["options"], dict):
            return dict(written)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ArgumentError(f"{path} is not what a run has written: choose another `run_dir`")


def _difference(written: dict[str, Any], options: dict[str, Any], facts: dict[str, Any]) -> tuple[str, str] | None:
    """How the run that was started differs from this one, and the cure; None where it does not."""
    if (method := written.get("method")) != facts["method"]:
        return f"with another method ({method}, not {facts['method']})", "resume with the same recipe"
    for name, value in options.items():
        before = written["options"].get(name, value)  # an option that there was not yet
        if name not in ABOUT_THE_CALL and before != value:
            return f"with `{name}`={before}, not {value}", "resume with the same options"
    for name, value in facts.items():
        if written.get(name) != value:
            was, now = (textwrap.shorten(str(v), 80, placeholder=" …") for v in (written.get(name), value))
            return f"on other data ({name} was {was}, is {now})", "bring that data back"
    return None


def _other_versions(before: dict[str, str]) -> str:
    changed = [
        f"{name} {before.get(name)} there, {now} here" for name, now in versions().items() if before.get(name) != now
    ]
    return (
        f"the run was started with other versions, so that its numbers may differ: {', '.join(changed)}"
        if changed
        else ""
    )


def fingerprint(data: Dataset, given: Path | None = None) -> dict[str, str]:
    """Digests of what a run trains on: inputs, labels, and a file that an option names.

    Of files that stay on disk, sizes and the names count, and the bytes of a thousand.
    """
    splits = [split for split in (data.train, data.test, data.validation) if split is not None]
    about = {"inputs_digest": _digest(p for s in splits for p in _input_parts(s))}
    known = [p for s in splits for p in (s.noisy_label, s.label, s.trusted, s.outlier)]
    known += [s.wrong for s in splits if s.wrong is not None]  # of which runs of before knew nothing
    about["labels_digest"] = _digest(known)
    return about if given is None else about | {"transition_digest": _digest([given.read_bytes()])}


def _input_parts(split: Split) -> Any:
    if not isinstance(split.inputs, ImageFiles):
        yield split.inputs
        return
    paths = split.inputs.paths
    sizes = {file: os.path.getsize(file) for file in map(file_of, paths)}
    yield "\n".join(f"{os.path.basename(path)} {sizes[file_of(path)]}" for path in paths).encode()
    yield from map(content_of, paths[:: -(-len(paths) // 1000)])


def _digest(parts: Any) -> str:
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype} {part.shape}".encode())
            part = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        total.update(b"none" if part is None else part)
    return total.hexdigest()[:16]


def open_on_first_process(folder: Path, options: dict[str, Any], facts: dict[str, Any], held: ExitStack) -> str:
    """:func:`open_folder` on the first process; all of them stop where it cannot be used."""
    refused: ArgumentError | None = None
    told = ""
    if jax.process_index() == 0:
        try:
            told = open_folder(folder, options, facts, held)
        except ArgumentError as error:
            refused = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(refused is not None)):
        raise refused or ArgumentError("the first process cannot use the run folder; its message says why")
    if refused is not None:
        raise refused
    return told


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
        file.write((to_json(content, indent=2) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
