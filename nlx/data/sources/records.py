"""``hf:PATH``, ``array_record:GLOB`` and ``tfds:NAME``: pictures in a few large files, read by row."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlx.data.cache import cache_dir, cached
from nlx.data.checks import check_class_range, checked_labels, partly_known
from nlx.data.dataset import DataError, Dataset, ImageFiles, Inputs, Split
from nlx.data.decode import decode_all
from nlx.data.names import clean_name
from nlx.data.origin import Origin
from nlx.data.records import COLUMN, MARK, PICTURE, SOURCE, array_record_reader, features_of, picture_of
from nlx.files import replacing

LABEL = ("label", "labels", "fine_label", "image/class/label", "target")
NOISY = "noisy_label"
_PART = re.compile(r"(?<![a-z])(train|test|validation|valid|val)(?![a-z])")
_BLOCK = 256  # rows of a Parquet file or records that are held at once


class _Shard(NamedTuple):
    """What is known of a file once it has been read.

    Attributes:
      file: that pictures are read from.
      source: that the user gave.
      noisy: labels to learn from, int ``[n]``.
      label: true ones where the file has both, -1 where one is unknown, or None.
    """

    file: str
    source: str
    noisy: np.ndarray
    label: np.ndarray | None


def hugging_face(path: str, image_size: int, in_memory_gib: float, clean: bool = False) -> Dataset:
    """Parquet files of Hugging Face's form: a column of pictures, ``label``, and optionally ``noisy_label``.

    Parquet cannot be read by row, so pictures are copied once into Arrow files in nlx's cache, as Hugging Face's own
    library does; these are then mapped into memory.

    Args:
      path: a folder of Parquet files, whose names tell train from test or validation, or one file.
      image_size: height and width of pictures, pixels.
      in_memory_gib: pictures that fill no more than this are decoded at once, others stay on disk.
      clean: whether the labels are right.

    Returns:
      The data set, named after the folder. Where there is ``noisy_label``, ``label`` is the true one, or -1 or null for
      an unknown one, the others then being trusted.

    Raises:
      DataError: no such files, or one that is broken or has no such columns.
    """
    root = Path(path).expanduser()
    files = [root] if root.is_file() else sorted(root.rglob("*.parquet"))
    if not files:
        raise DataError(f"{root}: holds no .parquet file: name the folder that a data set of the Hub was saved in.")
    return _dataset(
        root.stem, [str(f) for f in files], _of_parquet, _names_of(files[0]), image_size, in_memory_gib, clean
    )


def array_record(
    pattern: str, image_size: int, in_memory_gib: float, clean: bool = False, names: Sequence[str] | None = None
) -> Dataset:
    """ArrayRecord files of ``tf.train.Example`` with an encoded picture and its label, as TFDS writes them.

    A record with ``noisy_label`` whose true ``label`` is unknown has -1 there, or none.

    Args:
      pattern: of the files, whose names tell train from test or validation.
      names: of the classes; by default their numbers.
      image_size, in_memory_gib, clean: as for :func:`hugging_face`.

    Raises:
      DataError: no such files, or one that is broken or has no such features.
    """
    files = sorted(glob.glob(str(Path(pattern).expanduser())))
    if not files:
        raise DataError(f"{pattern}: there is no such file: write a pattern such as DIR/imagenet2012-*.array_record*.")
    name = Path(files[0]).name.partition("-")[0]
    return _dataset(name, files, _of_array_record, names, image_size, in_memory_gib, clean)


def tfds(name: str, data_dir: str | Path | None, image_size: int, in_memory_gib: float, clean: bool = False) -> Dataset:
    """A data set that TensorFlow Datasets has prepared under the data folder, with ``file_format=array_record``.

    Args:
      name: ``imagenet2012``, say, or ``NAME/CONFIG``; its newest version is taken.
      data_dir: TFDS's data folder.
      image_size, in_memory_gib, clean: as for :func:`hugging_face`.

    Raises:
      DataError: it is not there, or in another format.
    """
    root = Path(data_dir or "data").expanduser() / name
    folders = sorted({path.parent for path in root.rglob("*.array_record*")}, key=lambda path: path.stat().st_mtime)
    if not folders:
        raise DataError(
            f"{root}: holds no .array_record files: prepare them by `tfds build {name} --file_format=array_record`."
        )
    listed = folders[-1] / "label.labels.txt"
    names = listed.read_text("utf-8").split("\n") if listed.is_file() else None
    names = None if names is None else [line for line in names if line]
    return array_record(f"{folders[-1]}/*.array_record*", image_size, in_memory_gib, clean, names)


def _dataset(
    name: str,
    files: Sequence[str],
    read: Callable[[str], _Shard],
    names: Sequence[str] | None,
    image_size: int,
    in_memory_gib: float,
    clean: bool,
) -> Dataset:
    shards: dict[str, list[_Shard]] = {"train": [], "test": []}
    held = _held_out_name(files)
    for file in files:
        found = _PART.findall(Path(file).name.lower())
        part = found[-1] if found else "train"
        if part == "train" or part == held:
            shards["train" if part == "train" else "test"].append(read(file))
    if not shards["train"]:
        raise DataError(f"{files[0]}: is there no file to train on? Call it train-0.parquet, say.")
    every = [label for part in shards.values() for s in part for label in (s.noisy, s.label) if label is not None]
    classes = tuple(map(clean_name, names or map(str, range(1 + max(int(label.max()) for label in every)))))
    for part in shards.values():
        for shard in part:
            for label in (shard.noisy, shard.label):
                if label is not None:
                    check_class_range(f"{shard.source}: labels", label, len(classes), "the file")
    both = [shard.label is not None for shard in shards["train"]]
    if len(set(both)) > 1:
        lacking = shards["train"][both.index(False)].source
        raise DataError(f"{lacking}: has no {NOISY}, which other files have: write it in all of them.")
    for shard in shards["test"]:
        if shard.label is not None and len(rows := np.flatnonzero(shard.label < 0)):
            raise DataError(f"{shard.source}: labels row {rows[0]} is unknown: remove it, for it is to be tested on.")
    total = sum(len(shard.noisy) for part in shards.values() for shard in part)
    in_memory = total * image_size**2 * 3 <= in_memory_gib * 2**30

    def split(part: str) -> Split:
        paths = tuple(f"{s.file}{MARK}{row}" for s in shards[part] for row in range(len(s.noisy)))
        inputs: Inputs = decode_all(paths, image_size) if in_memory else ImageFiles(paths, image_size)
        noisy = np.concatenate([s.noisy for s in shards[part]])
        known = [s.label for s in shards[part] if s.label is not None]
        label = np.concatenate(known) if len(known) == len(shards[part]) else None
        origin = Origin(np.arange(len(paths)))
        if part == "test":
            return Split(inputs, None, noisy if label is None else label, origin=origin)
        return Split(inputs, noisy, noisy if label is None and clean else label, origin=origin).partly_trusted()

    return Dataset(name, classes, split("train"), split("test") if shards["test"] else None)


def _held_out_name(files: Sequence[str]) -> str | None:
    """What the files to test on are called: test where there are such with labels, else validation."""
    found = {part for file in files for part in _PART.findall(Path(file).name.lower())}
    return next((part for part in ("test", "validation", "valid", "val") if part in found), None)


def _digest(file: str) -> str:
    about = Path(file).stat()
    return hashlib.sha256(f"{Path(file).resolve()} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()[:20]


def _of_parquet(file: str) -> _Shard:
    try:
        source = pq.ParquetFile(file)
        columns = source.schema_arrow.names
    except Exception as error:  # a broken file can raise anything
        raise DataError(f"{file}: no Parquet file, or a broken one: get it again.") from error
    picture, label = (next((name for name in some if name in columns), None) for some in (PICTURE, LABEL))
    if picture is None or label is None:
        raise DataError(
            f"{file}: has the columns {', '.join(columns)}: there must be a picture, {PICTURE[1]}, and a {LABEL[0]}."
        )
    noisy = NOISY if NOISY in columns else label
    arrow = cache_dir() / "arrow" / f"pictures_{_digest(file)}.arrow"
    if not arrow.is_file():
        schema = pa.schema([(COLUMN, pa.large_binary())], {SOURCE: str(Path(file).resolve()).encode()})
        with replacing(arrow) as stored, pa.ipc.new_file(stored, schema) as writer:
            for batch in source.iter_batches(_BLOCK, columns=[picture]):
                pictures = batch.column(0)
                pictures = pictures.field("bytes") if pa.types.is_struct(pictures.type) else pictures
                if pictures.null_count:
                    raise DataError(f"{file}: column {picture!r} has rows without bytes: save the pictures in it.")
                writer.write_batch(pa.record_batch([pictures.cast(pa.large_binary())], schema=schema))
    given = checked_labels(f"{file}: {noisy!r}", source.read([noisy]).column(0).to_numpy())
    if noisy == label:
        return _Shard(str(arrow), file, given, None)
    true = source.read([label]).column(0)
    true = true.cast(pa.int64()) if pa.types.is_null(true.type) else true
    true = true.fill_null(-1) if pa.types.is_integer(true.type) else true
    return _Shard(str(arrow), file, given, partly_known(f"{file}: {label!r}", true.to_numpy()))


def _names_of(file: Path) -> tuple[str, ...] | None:
    """Class names as Hugging Face keeps them beside the columns."""
    try:
        about = json.loads((pq.read_schema(file).metadata or {})[b"huggingface"])["info"]["features"]
        return next(tuple(about[name]["names"]) for name in LABEL if "names" in about.get(name, {}))
    except Exception:  # there are none, or not in this form
        return None


def _of_array_record(file: str) -> _Shard:
    def read() -> dict[str, np.ndarray]:
        found: dict[str, list[int]] = {NOISY: [], "label": []}
        reader = array_record_reader(file)
        for start in range(0, reader.num_records(), _BLOCK):
            stop = min(start + _BLOCK, reader.num_records())
            for features in map(features_of, reader.read(start, stop)):
                picture_of(features)
                label = next((name for name in LABEL if name in features), "")
                given = {"label": features[label].int64_list.value, NOISY: features[NOISY].int64_list.value}
                if not any(given.values()):
                    raise KeyError("no label")
                for name, values in given.items():
                    found[name].append(values[0] if values else -1)
        if not found["label"]:
            raise ValueError("no records")
        arrays = {name: np.array(values, np.int64) for name, values in found.items()}
        return arrays if (arrays[NOISY] >= 0).any() else {"label": arrays["label"]}

    try:
        arrays: dict[str, Any] = cached(f"labels_{_digest(file)}", read)
    except Exception as error:  # a broken file, or one of something else, can raise anything
        raise DataError(
            f"{file}: cannot be read as tf.train.Example records with {PICTURE[1]} and {LABEL[0]}: write it anew."
        ) from error
    if NOISY not in arrays:
        return _Shard(file, file, checked_labels(f"{file}: 'label'", arrays["label"]), None)
    noisy = checked_labels(f"{file}: {NOISY!r}", arrays[NOISY])
    return _Shard(file, file, noisy, partly_known(f"{file}: 'label'", arrays["label"]))
