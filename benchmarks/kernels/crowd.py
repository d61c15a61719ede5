"""Dawid-Skene on many answers: seconds an iteration, and memory, beside crowd-kit's and on eight devices."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from nlx import crowd

SCRIPT = Path(__file__).resolve().parents[1] / "crowd.py"
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


def simple(answers: int) -> Answers:
    """Answers at random, seven in ten of them right."""
    rng, n, a = np.random.default_rng(0), answers // 10, max(answers // 1000, 10)
    truth, item = rng.integers(0, 10, n), rng.integers(0, n, answers).astype(np.int32)
    label = np.where(rng.random(answers) < 0.7, truth[item], rng.integers(0, 10, answers)).astype(np.int32)
    return item, rng.integers(0, a, answers).astype(np.int32), label


def one(who: str, size: int) -> dict[str, float]:
    """Seconds of an iteration, by runs that differ in their number, and the process's largest memory in GiB."""
    answers = simple(size)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if who == "nlx":
        sizes = {"num_items": size // 10, "num_annotators": max(size // 1000, 10), "num_classes": 10}
        if len(jax.devices()) > 1:
            mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
            answers = jax.device_put(answers, NamedSharding(mesh, PartitionSpec("d")))
        many, run = 20, lambda n: crowd.dawid_skene(*answers, **sizes, iterations=n, tolerance=0.0)
    else:
        pandas, kit = importlib.import_module("pandas"), importlib.import_module("crowdkit.aggregation")
        table = pandas.DataFrame(dict(zip(("task", "worker", "label"), answers, strict=True)))
        many, run = 3, lambda n: kit.DawidSkene(n_iter=n, tol=-np.inf).fit(table)
    began = time.perf_counter()
    jax.block_until_ready(run(1)) if who == "nlx" else run(1)
    first = time.perf_counter() - began
    seconds = []
    for _ in range(3):
        times = []
        for n in (1, 1 + many):
            began = time.perf_counter()
            jax.block_until_ready(run(n)) if who == "nlx" else run(n)
            times.append(time.perf_counter() - began)
        seconds.append((times[1] - times[0]) / many)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"iteration": float(np.median(seconds)), "first": first, "gib": (most - base) / 2**20}


def table_of_sizes(sizes: tuple[int, ...], largest: int) -> list[str]:
    """A table of sizes, each in a process of its own; ``largest`` is the most that crowd-kit is given."""
    kit = bool(importlib.util.find_spec("crowdkit"))
    lines = [
        "| answers | nlx, s | crowd-kit, s | times | nlx, eight devices, s | nlx, GiB | crowd-kit, GiB | start, s |"
    ]
    lines.append("| --- " * 8 + "|")
    for size in sizes:
        ours, eight = _apart("nlx", size, 1), _apart("nlx", size, 8)
        peer = _apart("crowd-kit", size, 1) if kit and size <= largest else None
        theirs = ("–", "–", "–") if peer is None else (
            f"{peer['iteration']:.4f}", f"{peer['iteration'] / ours['iteration']:.0f}", f"{peer['gib']:.2f}"
        )  # fmt: skip
        lines.append(
            f"| {size:,} | {ours['iteration']:.4f} | {theirs[0]} | {theirs[1]} | {eight['iteration']:.4f} | "
            f"{ours['gib']:.2f} | {theirs[2]} | {ours['first']:.1f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    note = (
        "Seconds an iteration of Dawid-Skene, medians of three, and what the process needs beside the answers; start: "
    )
    return [
        *lines,
        "",
        f"{note}plan, compilation and two iterations. {os.cpu_count()} cores, {jax.devices()[0].platform}.",
    ]


def _apart(who: str, size: int, devices: int) -> dict[str, float]:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, str(SCRIPT), "scale", "--sizes", str(size), f"--one={who}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
