"""The weights that a run of this library has left, in the place of a model's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nlx.arguments import ArgumentError
from nlx.models.hub import fetched
from nlx.models.model import Params, Stats
from nlx.models.stored import header_of

_PARAMS, _STATS = "params/model/", "stats/"  # before a weight's place


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

    Raises:
      ArgumentError: it is the folder of several seeds, or cannot be fetched.
    """
    path = fetched(path)
    if not path.is_dir():
        return path
    if not (file := path / "model.safetensors").exists() and any(path.glob("seed-*")):
        raise ArgumentError(f"{path} holds the runs of several seeds: name one of them, such as {path}/seed-0")
    return file


def of_a_run(path: Path) -> bool:
    """Whether a file of weights is one that a run has left, which has its own names for them; or that run's folder."""
    return any(name.startswith(_PARAMS) for name in header_of(file_of(path)))


def load_own(name: str, params: Params, stats: Stats, arrays: Mapping[str, np.ndarray], path: Path) -> Loaded:
    """The weights of a run, in the places that they had there; what is drawn at random stays.

    Args:
      name: of the model.
      params: its parameters, or those of a :func:`nlx.models.pair`, each of which gets those of the same one, or of the
        one that there is; the last layer stays as it is where the run had other classes.
      stats: its statistics.
      arrays: of the run's file.
      path: of it.

    Raises:
      ArgumentError: a weight is missing, has no place here, or is of another shape.
    """
    two, had_two = "head" not in params, any(key.startswith(f"{_PARAMS}b/") for key in arrays)
    used, at_head = set(), False

    def theirs_for(part: str, keys: list[str]) -> str:
        if two and not had_two:
            keys = keys[1:]
        elif had_two and not two:
            keys = ["a", *keys]
        return part + "/".join(keys)

    def taken(part: str, place: Any, ours: Any) -> Any:
        nonlocal at_head
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            return ours
        keys = [str(step.key) for step in place]
        used.add(theirs := theirs_for(part, keys))
        array = arrays.get(theirs)
        if array is not None and array.shape == ours.shape:
            return array
        if keys[1 if two else 0] == "head":
            at_head = True
            return ours
        found = "is missing" if array is None else f"has the shape {list(array.shape)}, here {list(ours.shape)}"
        raise ArgumentError(f"{path}: {theirs} {found}: give the run of a {name} of the same widths and inputs")

    params, stats = (
        jax.tree.map_with_path(lambda *leaf, part=part: taken(part, *leaf), tree)
        for part, tree in ((_PARAMS, params), (_STATS, stats))
    )
    other = tuple(f"{part}b/" for part in (_PARAMS, _STATS)) if had_two and not two else ()
    ours = (key for key in arrays if key.startswith((_PARAMS, _STATS)) and not (other and key.startswith(other)))
    if unknown := next((key for key in ours if key not in used), None):
        raise ArgumentError(
            f"{path}: {unknown} has no place here: give the run of a {name} of the same depth and widths"
        )
    return Loaded(params, stats, ("the last layer is drawn anew, for that run had other classes",) if at_head else ())
