"""How fast the training step and the kernels are, as ratios to peers and limits measured in the same run.

  python benchmarks/speed.py
  python benchmarks/speed.py --only step gibbs --rounds=5
  python benchmarks/speed.py --device=gpu --batch_size=128

Compilation is left out; every call is waited for; each figure is the median of interleaved runs. Two sides of a ratio
do the same work, and where both give a result the results are compared before anything is timed. Peers that are not
installed are left out: `pip install -e '.[bench]'` brings them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kernels import (
    answers,
    backbones,
    confident_joint,
    gibbs,
    loading,
    metrics,
    noise_types,
    prototypes,
    seeds,
    step,
)
from benchmarks.kernels.timing import Row, met
from nlx.experiment.run_folder import versions, write_json

RESULTS = Path(__file__).resolve().parent / "results"
PEERS = ("torch", "cleanlab", "thrml", "simplejpeg")
Kernel = Literal[
    "step",
    "many_classes",
    "backbones",
    "full_size",
    "sampling",
    "dispatch",
    "seeds",
    "gibbs",
    "noise_types",
    "prototypes",
    "confident_joint",
    "map",
    "answers",
    "loading",
]


@dataclass(frozen=True)
class Options:
    """What to time."""

    only: tuple[Kernel, ...] = get_args(Kernel)
    """Which measurements: the step of every method, the noise layer at 1000 classes, every method behind a ResNet-18
    and, on a GPU, behind a ResNet-50 (full_size), the CRF's chains beside a ResNet-50, dispatch, several seeds in one
    program, the kernels, and what cleaning is made of."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where: one device of this kind. torch's peers run there too; NumPy, cleanlab and scikit-learn know CPUs only."""
    batch_size: int = 64
    """Examples per step of the ResNet."""
    model: str = "resnet20"
    """Backbone of the steps' comparison, at 32 pixels."""
    rounds: int = 11
    """Interleaved runs of each side, at least 5."""


def measurements(options: Options) -> dict[Kernel, Callable[[int], list[Row]]]:
    """What each name stands for: number of rounds -> rows."""
    return {
        "step": lambda rounds: step.measure(rounds, options.model, options.batch_size),
        "many_classes": lambda rounds: step.many_classes(rounds, options.model, options.batch_size),
        "backbones": backbones.measure,
        "full_size": backbones.at_full_size,
        "sampling": step.sampling,
        "dispatch": step.dispatch,
        "seeds": seeds.measure,
        "gibbs": gibbs.measure,
        "noise_types": noise_types.measure,
        "prototypes": prototypes.measure,
        "confident_joint": confident_joint.measure,
        "map": metrics.measure,
        "answers": answers.measure,
        "loading": loading.measure,
    }


def table(rows: list[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| measurement | ours | peer | value | limit | met |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        times = f"{1e3 * row['ours_s']:.3f} ms | {1e3 * row['peer_s']:.3f} ms"
        value = f"{row['ratio']:.3f}"
        if "spread" in row:
            value += " [{:.2f}, {:.2f}]".format(*row["spread"])
        if "cpu_ratio" in row:
            value += f"; CPU {row['cpu_ratio']:.3f}"
        if "cpu_spread" in row:
            value += " [{:.2f}, {:.2f}]".format(*row["cpu_spread"])
        if "images_per_second" in row:
            value += f"; {row['images_per_second']:,.0f} images/s"
        if row.get("share_of_peak"):
            value += f", {row['share_of_peak']:.2f} of the peak"
        limit = "" if row["limit"] is None else f"{row['limit']:.3g}"
        lines.append(f"| {row['name']} | {times} | {value} | {limit} | {row['met']} |")
    return lines


def main() -> int:
    """Measure, print a table and write it."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    jax.config.update("jax_platforms", "cpu" if options.device == "cpu" else "cuda,cpu")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where JAX was installed without its plugin for GPUs
        print(f"no {options.device} here. {error}", file=sys.stderr)
        return 1
    if absent := [name for name in PEERS if importlib.util.find_spec(name) is None]:
        print(f"not installed, and left out: {', '.join(absent)}", file=sys.stderr)
    known = measurements(options)
    for name in options.only:
        began, load = time.monotonic(), os.getloadavg()[0]
        rows = known[name](options.rounds)
        if not rows:
            print(f"{name}: nothing to measure on a {options.device}", file=sys.stderr)
            continue
        for row in rows:
            row["met"] = met(row)
        section = {
            "rows": rows,
            "rounds": options.rounds,
            "load": [load, os.getloadavg()[0]],
            "cores": os.cpu_count(),
            "seconds": time.monotonic() - began,
            "versions": versions(),
        }
        print("\n".join(_section(name, section)), flush=True)
        _write(options.device, name, section)
    return 0


def _section(name: str, section: dict[str, Any]) -> list[str]:
    before, after = section["load"]
    load = f"Load average {before:.1f} before and {after:.1f} after, on {section['cores']} cores"
    about = ", ".join(f"{package} {version}" for package, version in section["versions"].items())
    return [f"## {name}", "", *table(section["rows"]), "", f"{load}; {section['seconds']:.0f} s; {about}.", ""]


def _write(device: str, name: str, section: dict[str, Any]) -> None:
    """Put a section in the place of its last measurement; the others stay, with the versions they were taken with."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"speed-{device}.json"
    kept = json.loads(path.read_text()).get("sections", {}) if path.exists() else {}
    kept[name] = section
    sections = {known: kept[known] for known in get_args(Kernel) if known in kept}
    write_json(path, {"sections": sections})
    lines = [
        "# Speed",
        "",
        f"`python benchmarks/speed.py --device={device}`; medians of interleaved runs. Rows without a limit are there",
        "for information. In brackets, the quartiles of a ratio over rounds: where the limit lies between them, this",
        "run leaves it open. After CPU, the same in CPU seconds, which other work on the machine hardly moves.",
        "",
    ]
    for known, one in sections.items():
        lines += _section(known, one)
    path.with_suffix(".md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
