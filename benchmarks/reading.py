"""A hundred thousand JPEG files, as a folder and as ArrayRecord, against decoding them and nothing else.

  python benchmarks/reading.py --record       # some ten minutes on two cores, 3 GiB of disk

Every side goes once through all pictures, from the first to the last, by turns with the others. *Bare* is Pillow in two
threads (or two processes of one), which a reader that decodes by Pillow cannot beat. Of two processes each reads the
rows of its own devices, as the hosts of one training do. Pictures are a thousand different ones, each in a hundred
files; what was written is in the system's cache, so that this is about decoding and not about a disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kernels.loading import picture
from benchmarks.protocols.common import table
from nlx.data import load
from nlx.data.batches import eval_batches
from nlx.data.dataset import Split
from nlx.experiment.run_folder import versions

RESULTS = Path(__file__).resolve().parent / "results" / "reading.md"
BATCH, THREADS, SHARDS = 256, 2, 10


@dataclass(frozen=True)
class Options:
    """What to read."""

    files: int = 100_000
    """Pictures."""
    distinct: int = 1_000
    """Different ones among them."""
    size: int = 224
    """Their pixels, each side."""
    classes: int = 1_000
    """Folders that they lie in."""
    rounds: int = 3
    """How often each side reads them all; the median counts."""
    record: bool = False
    """Whether to write the page to benchmarks/results/reading.md."""


def write(folder: Path, o: Options) -> None:
    """The pictures in a folder for each class, and in ArrayRecord files."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    rng = np.random.default_rng(0)
    for i in range(o.distinct):
        picture(rng, o.size).save(folder / "one.jpg", quality=90)
        content = (folder / "one.jpg").read_bytes()
        for j in range(i, o.files, o.distinct):
            place = folder / "pictures" / f"class{j % o.classes:04d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{j:06d}.jpg").write_bytes(content)
    paths = sorted((folder / "pictures").rglob("*.jpg"))
    for shard in range(SHARDS):
        writer = ArrayRecordWriter(str(folder / f"train-{shard:05d}-of-{SHARDS:05d}.array_record"), "group_size:1")
        for path in paths[shard::SHARDS]:
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(path.read_bytes())
            example.features.feature["label"].int64_list.value.append(int(path.parent.name[5:]))
            writer.write(example.SerializeToString())
        writer.close()


def dataset(folder: Path, kind: str) -> str:
    """What a recipe would be given."""
    return f"folder:{folder / 'pictures'}" if kind == "folder" else f"array_record:{folder}/train-*.array_record"


def loaded(folder: Path, kind: str, size: int) -> Split:
    """The pictures as a recipe has them."""
    return load(dataset(folder, kind), image_size=size, in_memory_gib=0.0).train


def read(split: Split, size: int, places: np.ndarray | None = None, threads: int = THREADS) -> float:
    """Seconds for one pass."""
    began = time.perf_counter()
    for batch, _ in eval_batches(split, BATCH, places, threads=threads):
        assert batch["inputs"].shape[1:] == (size, size, 3)
    return time.perf_counter() - began


def bare(folder: Path, size: int, part: slice = slice(None), threads: int = THREADS) -> float:
    """Seconds for one pass of Pillow alone."""
    paths = sorted((folder / "pictures").rglob("*.jpg"))[part]

    def some(start: int) -> None:
        pixels = np.empty((BATCH, size, size, 3), np.uint8)
        for row, path in enumerate(paths[start : start + BATCH]):
            with Image.open(path) as image:
                pixels[row] = np.asarray(image)

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(0, len(paths), BATCH)))
    return time.perf_counter() - began


def in_two(folder: Path, kind: str, size: int) -> float:
    """Seconds of the slower of two processes, which read half of every batch each in one thread."""
    command = [sys.executable, __file__, "--half", str(folder), kind, str(size)]
    halves = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stdin=subprocess.PIPE) for i in range(2)]
    for half in halves:
        assert half.stdout is not None
        assert half.stdout.readline() == b"ready\n"
    for half in halves:
        assert half.stdin is not None
        half.stdin.write(b"go\n")
        half.stdin.flush()
    return max(float(half.communicate()[0]) for half in halves)


def one_half(folder: Path, kind: str, size: int, number: int) -> None:
    """One of two processes; both begin once both have loaded the data."""
    places = np.arange(number * BATCH // 2, (number + 1) * BATCH // 2)
    work: Callable[[], float] = partial(bare, folder, size, slice(number, None, 2), threads=1)
    if kind != "bare":
        work = partial(read, loaded(folder, kind, size), size, places, threads=1)
    print("ready", flush=True)
    sys.stdin.readline()
    print(work())


def main() -> int:
    """Write, read, print and record."""
    if sys.argv[1:2] == ["--half"]:
        one_half(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return 0
    o = tyro.cli(Options, description=__doc__, use_underscores=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NLX_CACHE"] = str(folder / "cache")
        write(folder, o)
        print(f"{o.files:,} files written", flush=True)
        sides: dict[tuple[str, int], Callable[[], float]] = {("bare", 1): partial(bare, folder, o.size)}
        for kind in ("folder", "ArrayRecord"):
            sides[kind, 1] = partial(read, loaded(folder, kind, o.size), o.size)
        for kind in ("bare", "folder", "ArrayRecord"):
            sides[kind, 2] = partial(in_two, folder, kind, o.size)
        took: dict[tuple[str, int], list[float]] = {side: [] for side in sides}
        for _ in range(o.rounds):
            for side, work in sides.items():
                took[side].append(work())
                print(*side, f"{took[side][-1]:.1f} s", flush=True)
    rows = []
    for (kind, processes), seconds in took.items():
        ratios = np.asarray(took["bare", processes]) / seconds
        speed = f"{o.files / np.median(seconds):,.0f}"
        rows.append([kind, str(processes), speed, "" if kind == "bare" else f"{np.median(ratios):.2f}"])
    page = "\n".join(table(("read from", "processes", "pictures per second", "of bare decoding"), rows))
    print(page)
    if o.record:
        about = ", ".join(f"{name} {version}" for name, version in versions().items())
        RESULTS.write_text(
            f"# Reading {o.files:,} JPEG files\n\n"
            f"{o.size} x {o.size} pixels, {o.classes:,} classes, batches of {BATCH}, {THREADS} threads in all; "
            f"median of {o.rounds} passes, ratios within a round.\n\n{page}\n\n"
            f"`python benchmarks/reading.py --record`; {os.cpu_count()} cores; {about}.\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
