"""cleanlab with cross-validated logistic regression, on the very labels that a recipe's run is given."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from typing import Any

import numpy as np

from benchmarks.cleaning import measured, peers
from benchmarks.protocols.runner import RESULTS, Runner
from nlx.data import load
from nlx.experiment.run_folder import write_json

CLEANLAB = "cleanlab, logistic regression"


def cleanlab(
    runner: Runner, label: str, data: dict[str, Any], *, fresh_noise: bool = False
) -> dict[str, list[float]] | None:
    """Its ``recovery`` and ``issue_auc`` of each seed, in [0, 1]; None without cleanlab, and for pictures.

    (Logistic regression takes minutes for the pixels of a few thousand of them.)

    Args:
      runner: says how many seeds, and where the real data lie.
      label: what the console calls it.
      data: the options of a recipe that name the data.
      fresh_noise: whether each seed draws its synthetic noise anew.
    """
    if not importlib.util.find_spec("cleanlab") or not vectors(data):
        return None
    seeds = [(seed, seed if fresh_noise else 0) for seed in range(runner.seeds)]
    found = [_of_seed(runner, f"{label}, {CLEANLAB}, seed {seed}", data, seed, noise) for seed, noise in seeds]
    return {name: [one[name] for one in found] for name in ("recovery", "issue_auc")}


def vectors(data: dict[str, Any]) -> bool:
    """Whether the data are features, or pictures as small as the digits."""
    return str(data["dataset"]).startswith("npz:") or data["dataset"] == "digits"


def _of_seed(runner: Runner, label: str, data: dict[str, Any], seed: int, noise_seed: int) -> dict[str, float]:
    about = {
        "peer": CLEANLAB,
        "seed": str(seed),
        "noise_seed": str(noise_seed),
        **{name: str(value) for name, value in sorted(data.items())},
    }
    about = {name: value.replace(str(runner.shared), "shared") for name, value in about.items()}
    path = RESULTS / "runs" / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]}.json"
    if path.exists():
        kept = json.loads(path.read_text())["found"]
        return {name: math.nan if value is None else value for name, value in kept.items()}
    named = {name: data[name] for name in ("dataset", "labels", "noise") if data.get(name) is not None}
    part = load(named.pop("dataset"), noise_seed=noise_seed, **named).in_classes()
    if share := data.get("training_fraction"):
        part = part.keep(share, noise_seed)
    train = part.train
    x, true = np.asarray(train.inputs, np.float32).reshape(len(train), -1), train.label
    given = np.asarray(part.given(train))
    assert true is not None
    right, area, *_ = measured(*peers(x, given, seed)["cleanlab"], given, true)
    found = {"recovery": right / 100, "issue_auc": area / 100}
    write_json(path, {"label": label, **about, "found": found})
    runner.console.say(f"{label}: recovery {right:.1f}, issue_auc {area:.1f}")
    return found
