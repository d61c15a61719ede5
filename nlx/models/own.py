"""Weights by our own names, of runs of this library and of orbax checkpoints, in the place of a model's own."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nlx.arguments import ArgumentError
from nlx.models.checkpoints import Tree, checkpoint_in, read_checkpoint
from nlx.models.hub import fetched
from nlx.models.model import Params, Stats
from nlx.models.stored import header_of, read_safetensors

_PARAMS, _STATS = "params/model/", "stats/"  # before a weight's place
_ABOVE = 3  # folders from the leaves of a checkpoint to the run's: RUN/checkpoints/STEP/state


class Loaded(NamedTuple):
    """Weights of a model.

    Attributes:
      params, stats: as the model has them.
      notes: what a user should know.
    """

    params: Params
    stats: Stats
    notes: tuple[str, ...]


def file_of(path: Path) -> Path:
    """The file of weights itself, where a run's folder is named, or a model of timm's on the hub.

    Of a run that has not finished, and of orbax checkpoints, it is the folder that holds the leaves, see
    :func:`nlx.models.checkpoints.checkpoint_in`.

    Raises:
      ArgumentError: it is the folder of several seeds, or holds no weights, or cannot be fetched.
    """
    path = fetched(path)
    if not path.is_dir():
        return path
    if (file := path / "model.safetensors").exists():
        return file
    if any(path.glob("seed-*")):
        raise ArgumentError(f"{path} holds the runs of several seeds: name one of them, such as {path}/seed-0")
    return checkpoint_in(path)


def of_a_run(path: Path) -> bool:
    """Whether weights have our own names: those that a run has left, or its folder, or an orbax checkpoint."""
    file = file_of(path)
    return file.is_dir() or any(name.startswith(_PARAMS) for name in header_of(file))


def told_beside(file: Path) -> dict[str, Any]:
    """What config.json says in the same folder or, of a checkpoint's, in it or up to three above; else nothing.

    Args:
      file: what :func:`file_of` gives.
    """
    folders = (file, *file.resolve().parents[:_ABOVE]) if file.is_dir() else (file.parent,)
    for folder in folders:
        try:
            return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return {}


def finite(array: np.ndarray, file: Path, name: str) -> np.ndarray:
    """A weight as it is.

    Raises:
      ArgumentError: it holds NaN or infinity.
    """
    if not np.isfinite(array).all():
        raise ArgumentError(f"{file}: {name} holds NaN or infinity: the training that left it failed; name others")
    return array


def places_of(tree: Params, before: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The places of all leaves of a part of a tree."""
    return [(*before, *(str(step.key) for step in place)) for place, _ in jax.tree.leaves_with_path(tree)]


def other_classes(array: np.ndarray | None, shape: tuple[int, ...], classes: Set[tuple[int, ...]]) -> bool:
    """Whether a last layer's weight is not ours because there is no such layer, or for the number of classes alone.

    Args:
      array: the file's, with the classes as its last axis; None where it is missing.
      shape: ours.
      classes: of all that the file has of its last layer, the lengths of that axis.
    """
    if array is None:
        return not classes
    return len(classes) == 1 and array.shape[:-1] == shape[:-1]


def load_own(name: str, params: Params, stats: Stats, path: Path) -> Loaded:
    """The weights of a run or of an orbax checkpoint, in the places that they had there; what is drawn at random stays.

    Args:
      name: of the model.
      params: its parameters, or those of a :func:`nlx.models.pair`, each of which gets those of the same one, or of the
        one that there is; the last layer stays as it is where there is none, or the run had other classes.
      stats: its statistics.
      path: see :func:`of_a_run`.

    Raises:
      ArgumentError: a weight is missing, has no place here, is of another shape, or not finite.
    """
    file = file_of(path)
    arrays, of_params, of_stats = _weights(file)
    two, had_two = "head" not in params, any(key.startswith(f"{of_params}b/") for key in arrays)
    what = "run" if of_params == _PARAMS else "checkpoint"
    used, at_head = set(), False

    def theirs_for(part: str, keys: list[str]) -> str:
        if two and not had_two:
            keys = keys[1:]
        elif had_two and not two:
            keys = ["a", *keys]
        return part + "/".join(keys)

    def taken(part: str, place: Any, ours: Any) -> Any:
        nonlocal at_head
        keys = [str(step.key) for step in place]
        used.add(theirs := theirs_for(part, keys))
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            return ours
        array = arrays.get(theirs)
        if array is not None and array.shape == ours.shape:
            return finite(array, file, theirs).astype(ours.dtype, copy=False)
        if keys[1 if two else 0] == "head":
            layer = theirs[: theirs.index("head/") + len("head/")]
            if other_classes(array, ours.shape, {a.shape[-1:] for key, a in arrays.items() if key.startswith(layer)}):
                at_head = True
                return ours
        found = "is missing" if array is None else f"has the shape {list(array.shape)}, here {list(ours.shape)}"
        raise ArgumentError(f"{file}: {theirs} {found}: give the {what} of a {name} of the same widths and inputs")

    params, stats = (
        jax.tree.map_with_path(lambda *leaf, part=part: taken(part, *leaf), tree)
        for part, tree in ((of_params, params), (of_stats, stats))
    )
    other = tuple(f"{part}b/" for part in (of_params, of_stats)) if had_two and not two else ()
    if unknown := next((key for key in arrays if key not in used and not (other and key.startswith(other))), None):
        raise ArgumentError(
            f"{file}: {unknown} has no place here: give the {what} of a {name} of the same depth and widths"
        )
    notes = (f"weights are those of {file}",) if file.is_dir() and file != fetched(path) else ()
    why = "that run had other classes" if what == "run" else "that checkpoint has none of this size"
    return Loaded(params, stats, (*notes, *((f"the last layer is drawn anew, for {why}",) if at_head else ())))


def _weights(file: Path) -> Tree:
    """What :func:`file_of` gives, read; of a run, nothing but the backbone's."""
    if file.is_dir():
        return read_checkpoint(file)
    arrays = {key: array for key, array in read_safetensors(file).items() if key.startswith((_PARAMS, _STATS))}
    return Tree(arrays, _PARAMS, _STATS)
