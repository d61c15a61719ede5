"""JPEG files through the library's reader against decoding them and nothing else, on two threads.

The limit is what decoding costs with the decoder that the library uses (Pillow): a reader cannot be faster. Every run
reads all files from the first to the last, so that no side finds batches that were decoded before its clock started.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.kernels.timing import Row, interleaved
from nlx.data import batches, load
from nlx.data.batches import eval_batches
from nlx.data.dataset import ImageFiles, Split

FILES, SIZE, BATCH, THREADS = 768, 224, 64, 2


def measure(rounds: int) -> list[Row]:
    """Rows of the reader against bare decoding by Pillow and, where it is installed, by simplejpeg."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _write(Path(folder))
        split = Split(ImageFiles(paths, SIZE), np.zeros(FILES, np.int32), None)
        sides: dict[str, Callable[[], list[np.ndarray]]] = {
            "two": partial(_batches, split),
            "Pillow": _bare(paths, _pillow),
        }
        for name, other in _in_files(Path(folder), paths).items():
            sides[name] = partial(_batches, other)
        if importlib.util.find_spec("simplejpeg"):
            sides["simplejpeg"] = _bare(paths, _simplejpeg)
        expected = np.concatenate(sides["Pillow"]()).astype(np.int32)
        for name, side in sides.items():
            # Decoders may differ in how they round and smooth colours.
            off = np.abs(np.concatenate(side()) - expected)
            if off.mean() > 1 or (name != "simplejpeg" and off.any()):
                raise AssertionError(f"{name} decodes other pictures than Pillow")
        # Not compared: the reader's own default of threads, as a run uses it.
        t = interleaved({**sides, "default": partial(_batches, split, batches.THREADS)}, rounds)
    about = f"reading {FILES} JPEG files of {SIZE} x {SIZE}, batches of {BATCH}"
    lines = [
        ("two threads: ours / Pillow alone", "two", "Pillow", 1 / 0.85),
        ("threads as a run has them: ours / Pillow alone on two", "default", "Pillow", None),
        ("two threads: ours / simplejpeg alone", "two", "simplejpeg", None),
        ("in a Parquet file, two threads: ours / Pillow alone", "hf", "Pillow", 1 / 0.85),
        ("in an ArrayRecord file, two threads: ours / Pillow alone", "array_record", "Pillow", 1 / 0.85),
    ]
    return [_row(f"{about}, {name}", t, ours, peer, limit) for name, ours, peer, limit in lines if peer in t]


def _batches(split: Split, threads: int = THREADS) -> list[np.ndarray]:
    return [batch["inputs"] for batch, _ in eval_batches(split, BATCH, threads=threads)]


def _in_files(folder: Path, paths: tuple[str, ...]) -> dict[str, Split]:
    """The same pictures in one Parquet and in one ArrayRecord file, which are read by row."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    content = [Path(path).read_bytes() for path in paths]
    pictures = [{"bytes": picture, "path": None} for picture in content]
    pq.write_table(pa.table({"image": pictures, "label": [0] * len(paths)}), folder / "train.parquet")
    writer = ArrayRecordWriter(str(folder / "train.array_record"), "group_size:1")
    for picture in content:
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(picture)
        example.features.feature["label"].int64_list.value.append(0)
        writer.write(example.SerializeToString())
    writer.close()
    os.environ["NLX_CACHE"] = str(folder / "cache")
    names = {"hf": f"hf:{folder / 'train.parquet'}", "array_record": f"array_record:{folder / 'train.array_record'}"}
    return {name: load(dataset, image_size=SIZE, in_memory_gib=0.0).train for name, dataset in names.items()}


def _row(name: str, t: dict[str, float], ours: str, peer: str, limit: float | None) -> Row:
    row: Row = {"name": name, "ours_s": t[ours], "peer_s": t[peer], "ratio": t[ours] / t[peer], "limit": limit}
    return {**row, "images_per_second": FILES / t[ours]}


def _write(folder: Path) -> tuple[str, ...]:
    rng, paths = np.random.default_rng(0), []
    for i in range(FILES):
        paths.append(str(folder / f"{i}.jpg"))
        picture(rng, SIZE).save(paths[-1], quality=90)
    return tuple(paths)


def picture(rng: np.random.Generator, size: int) -> Image.Image:
    """One with edges, gradients and some texture, of about the bytes of a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.float32)
    pixels[:, size // 2 :] *= rng.uniform(0.5, 1)
    pixels += 6 * rng.standard_normal((size, size, 1), np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _bare(paths: tuple[str, ...], decode: Callable[[str], np.ndarray]) -> Callable[[], list[np.ndarray]]:
    """Every file decoded into a batch's memory by one of two threads, and no more than that."""

    def some(start: int) -> np.ndarray:
        batch = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
        for row in range(BATCH):
            batch[row] = decode(paths[start + row])
        return batch

    def run() -> list[np.ndarray]:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(some, range(0, FILES, BATCH)))

    return run


def _pillow(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _simplejpeg(path: str) -> np.ndarray:
    import simplejpeg

    pixels: Any = simplejpeg.decode_jpeg(Path(path).read_bytes())
    return np.asarray(pixels)
