"""Weights in orbax checkpoints, array by array: of runs, and of trees that have the names of our own modules.

They are read by tensorstore, without orbax: what is asked for and no more, by each process for itself. ``_METADATA``
says where each leaf lies; arrays are zarr or zarr3, in files of their own or in OCDBT.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore

from nlx.arguments import ArgumentError

_META, _PARTIAL = "_METADATA", ".orbax-checkpoint-tmp"
# What a checkpoint without its leaves has:
_TRACES = ("_CHECKPOINT_METADATA", "manifest.ocdbt", "_sharding", "array_metadatas")
_AVERAGE = re.compile(r"opt_state/\d+/average/(.+)")
_LEFT_OUT = ("step", "opt_state")  # beside the params of a tree


class Tree(NamedTuple):
    """Arrays by their places.

    Attributes:
      arrays: by names such as ``params/head/dense/kernel``.
      params, stats: what stands before a parameter's and a statistic's own place; the same where they are not apart.
    """

    arrays: dict[str, np.ndarray]
    params: str
    stats: str


def checkpoint_in(path: Path) -> Path:
    """The folder that holds the leaves of an orbax checkpoint.

    Args:
      path: that folder; or one of a step that holds it, or one of several steps, of which the last counts, or of a run
        whose steps lie in ``checkpoints``.

    Raises:
      ArgumentError: there is no checkpoint, or none that is whole, or several trees.
    """
    if any(_PARTIAL in part for part in path.parts):
        raise _partial(path)
    if (path / _META).is_file():
        return path
    if (path / "checkpoints").is_dir():
        return checkpoint_in(path / "checkpoints")
    every = sorted(folder for folder in path.iterdir() if folder.is_dir())
    within = [folder for folder in every if _PARTIAL not in folder.name]
    trees = [folder for folder in within if (folder / _META).is_file()]
    if len(trees) > 1:
        names = ", ".join(tree.name for tree in trees)
        raise ArgumentError(f"{path} holds several trees ({names}): name the one of the weights, such as {trees[0]}")
    if trees:
        return trees[0]
    steps = {int(found[1]): folder for folder in within if (found := re.fullmatch(r"(?:\w+_)?(\d+)", folder.name))}
    if steps:
        return checkpoint_in(steps[max(steps)])
    if len(within) < len(every) or any((path / name).exists() for name in _TRACES):
        raise _partial(path)
    raise ArgumentError(
        f"{path} holds no weights: name the folder of a run that has written a checkpoint, or of an orbax checkpoint"
    )


def read_checkpoint(folder: Path) -> Tree:
    """The weights of a checkpoint.

    Args:
      folder: what :func:`checkpoint_in` gives. Of a run's state, the backbone's parameters and statistics are read, and
        its running mean in place of the parameters where there is one; of ``{"params": ..., "batch_stats": ...}`` both,
        and no ``step`` or ``opt_state``; of any other tree all arrays. The level ``value`` that ``nnx.state`` adds
        below each leaf is left out.

    Raises:
      ArgumentError: an array is missing or cannot be read, in a sentence that names it.
    """
    try:
        about = json.loads((folder / _META).read_text(encoding="utf-8"))
        places = dict(_place(leaf) for leaf in about["tree_metadata"].values() if _is_array(leaf))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{folder}/{_META} is not what orbax has written: name another, or save it anew") from error
    if any(name.startswith("params/model/") for name in places):
        tree = Tree({}, "params/model/", "stats/")
        wanted = {name: place for name, place in places.items() if name.startswith((tree.params, tree.stats))}
        means = {found[1]: place for name, place in places.items() if (found := _AVERAGE.fullmatch(name))}
        wanted |= {tree.params + name: place for name, place in means.items()}
    elif any(name.startswith("params/") for name in places):
        tree = Tree({}, "params/", "batch_stats/")
        wanted = {name: place for name, place in places.items() if name.partition("/")[0] not in _LEFT_OUT}
    else:
        tree, wanted = Tree({}, "", ""), places
    for name, place in wanted.items():
        tree.arrays[name] = _read(folder, place, about)
    return tree


def _is_array(leaf: dict[str, Any]) -> bool:
    value = leaf["value_metadata"]
    return not value["skip_deserialize"] and value["value_type"] != "string"


def _place(leaf: dict[str, Any]) -> tuple[str, str]:
    """A leaf's name among ours, and orbax's for its array."""
    keys = [str(key["key"]) for key in leaf["key_metadata"]]
    return "/".join(keys[:-1] if keys[-1] == "value" and len(keys) > 1 else keys), ".".join(keys)


def _read(folder: Path, place: str, about: dict[str, Any]) -> np.ndarray:
    """One array; to be read in turn: side by side, one that cannot be read leaves a traceback of each other one."""
    root = folder.resolve()
    store: dict[str, Any]
    if (root / "manifest.ocdbt").exists():
        store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{root}/"}, "path": f"{place}/"}
    else:
        store = {"driver": "file", "path": f"{root / place}/"}
    form: dict[str, Any] = {"driver": "zarr3" if about.get("use_zarr3") else "zarr", "kvstore": store}
    if about.get("store_array_data_equal_to_fill_value"):  # a part that is not there is then no part of zeros
        form["fill_missing_data_reads"] = False
    try:
        return np.asarray(tensorstore.open(form, read=True).result().read().result())
    except Exception as error:  # a broken file can raise anything
        reason = textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[0], 120)
        raise ArgumentError(
            f"{folder}: {place} cannot be read ({reason}): the checkpoint is damaged or was not written to its end; "
            "name an earlier one, or save it anew"
        ) from error


def _partial(path: Path) -> ArgumentError:
    return ArgumentError(
        f"{path} holds a checkpoint that was not written to its end: name an earlier one, or save it anew"
    )
