"""What `nlx clean` takes of memory and time as embeddings grow to a million, of a thousand classes.

  python benchmarks/clean_scale.py --record                                # three sizes, up to a million of 768 numbers
  python benchmarks/clean_scale.py --sizes 20000 --dim=32 --classes=100    # a minute

Each run is a process of its own, from .npy files to all that the command writes, a decided list of 90 % precision
included. Its peak is what the system counts (the largest resident set); growth is from each size to the next, for a
million more examples. Embeddings are normal around random centres, and two labels in five are drawn at random.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import measured
from benchmarks.protocols.common import table
from nlx.cleaning.label_files import read_labels
from nlx.experiment.run_folder import versions

RESULTS = Path(__file__).resolve().parent / "results" / "clean-scale.md"
HEAD = (
    "examples",
    "inputs, GiB",
    "all probabilities, GiB",
    "peak, GiB",
    "GiB per million",
    "seconds",
    "seconds per million",
    "labels right, given",
    "cleaned",
    "listed",
    "of these wrong",
)
_BLOCK = 10_000


@dataclass(frozen=True)
class Options:
    """What to run."""

    sizes: tuple[int, ...] = (62_500, 250_000, 1_000_000)
    """Examples, from few to many."""
    dim: int = 768
    """Numbers of an embedding."""
    classes: int = 1_000
    """Classes."""
    spread: float = 0.25
    """Of the centres, where examples spread by 1 around them."""
    record: bool = False
    """Whether to write the page to benchmarks/results/clean-scale.md."""


class Cleaned(NamedTuple):
    """What one run took and found.

    Attributes:
      size: examples.
      peak: largest resident set, GiB.
      seconds: from start to exit.
      given: share of the given labels that are right.
      cleaned: of the cleaned ones.
      listed: how many are decided to be wrong.
      wrong: share of these that are.
    """

    size: int
    peak: float
    seconds: float
    given: float
    cleaned: float
    listed: int
    wrong: float


def write_embeddings(folder: Path, size: int, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Files of embeddings and of noisy labels; these come back, and the true ones."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((options.classes, options.dim), np.float32) * np.float32(options.spread)
    true = rng.integers(0, options.classes, size)
    shape = (size, options.dim)
    file = np.lib.format.open_memmap(folder / "embeddings.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, size, _BLOCK):
        label = true[start : start + _BLOCK]
        file[start : start + _BLOCK] = centres[label] + rng.standard_normal((len(label), options.dim), np.float32)
    file.flush()
    noisy = np.where(rng.random(size) < 0.4, rng.integers(0, options.classes, size), true)
    np.save(folder / "labels.npy", noisy)
    return noisy, true


def run(folder: Path, size: int, options: Options) -> Cleaned:
    """Clean so many examples in a process.

    Raises:
      RuntimeError: it failed; the message has the end of what it said.
    """
    noisy, true = write_embeddings(folder, size, options)
    command = [sys.executable, "-m", "nlx.cli", "clean", str(folder / "embeddings.npy"), str(folder / "labels.npy")]
    command += ["--precision=0.9", f"--out={folder / 'cleaned'}"]
    taken = measured(command, {}, f"{size:,} examples")
    labels = read_labels(folder / "cleaned" / "labels.parquet")
    listed, cleaned = labels.is_issue, labels.cleaned_label
    wrong = float(np.mean((noisy != true)[listed])) if listed.any() else float("nan")
    shares = float(np.mean(noisy == true)), float(np.mean(cleaned == true))
    return Cleaned(size, taken.peak / 2**30, taken.seconds, *shares, int(listed.sum()), wrong)


def rows_of(runs: list[Cleaned], options: Options) -> Iterator[list[str]]:
    """A row for each size, with the growth since the one before."""
    for before, one in zip([None, *runs], runs, strict=False):
        sizes = (4 * one.size * width / 2**30 for width in (options.dim, options.classes))
        more, later = "", ""
        if before is not None:
            each = (one.size - before.size) / 1e6
            more, later = f"{(one.peak - before.peak) / each:.1f}", f"{(one.seconds - before.seconds) / each:,.0f}"
        row = [f"{one.size:,}", *(f"{gib:.2f}" for gib in sizes), f"{one.peak:.2f}", more, f"{one.seconds:,.0f}", later]
        yield [*row, f"{100 * one.given:.1f}", f"{100 * one.cleaned:.1f}", f"{one.listed:,}", f"{100 * one.wrong:.1f}"]


def page_of(options: Options, runs: list[Cleaned]) -> list[str]:
    """The results' page, line by line."""
    about = ", ".join(f"{package} {version}" for package, version in versions().items())
    return [
        "# nlx clean on embeddings, up to a million",
        "",
        f"{options.classes:,} classes, {options.dim} numbers an embedding, spread by 1 around centres that spread by "
        f"{options.spread}; two labels in five drawn at random. A run is a process of its own, "
        "`nlx clean embeddings.npy labels.npy --precision=0.9`, from reading to its last "
        "file. Growth is from one size to the next, for a million more examples; shares in percent.",
        "",
        *table(list(HEAD), list(rows_of(runs, options))),
        "",
        f"`{command_of(options)}`; {os.cpu_count()} cores, {platform.machine()}; {about}.",
    ]


def command_of(options: Options) -> str:
    """The command that measures this, with what is not at its default."""
    command, usual = "python benchmarks/clean_scale.py", Options()
    for name in ("sizes", "dim", "classes", "spread"):
        value = getattr(options, name)
        if value != getattr(usual, name):
            command += f" --{name} {' '.join(map(str, value))}" if name == "sizes" else f" --{name}={value}"
    return command


def main() -> int:
    """Run every size, and print the page."""
    options = tyro.cli(Options, description=__doc__, use_underscores=True)
    if not options.sizes or options.classes < 2 or options.dim < 1 or min(options.sizes) < 10 * options.classes:
        print("error: `sizes` must have ten examples of a class at least, of two classes or more", file=sys.stderr)
        return 2
    runs = []
    for size in sorted(set(options.sizes)):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(Path(folder), size, options))
        print(runs[-1], file=sys.stderr, flush=True)
    page = "\n".join(page_of(options, runs))
    print(page)
    if options.record:
        RESULTS.write_text(page + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
