"""Pictures within larger files: a path ``FILE::ROW`` names one of an Arrow file's or of an ArrayRecord file's."""

from __future__ import annotations

import io
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

MARK = "::"
COLUMN = "bytes"  # of an Arrow file
SOURCE = b"source"  # in whose metadata stands the file that its pictures were copied from
PICTURE = ("image/encoded", "image", "img")  # features of a record, and columns of a table
_MOST_OPEN = 4096  # files; ImageNet has 1,024


def opened(path: str) -> str | io.BytesIO:
    """What Pillow opens for a path: itself, or a picture within a file.

    Raises:
      Exception: there is no such picture.
    """
    file, mark, row = path.rpartition(MARK)
    if not mark:
        return path
    if file.endswith(".arrow"):
        batches, ends = _arrow(file)
        number = bisect_right(ends, int(row))
        return io.BytesIO(batches[number][int(row) - (ends[number - 1] if number else 0)].as_buffer())
    return io.BytesIO(picture_of(features_of(array_record_reader(file).read([int(row)])[0])))


def named(path: str) -> str:
    """What to call a picture in a sentence: its path, or the file that a user gave and its row."""
    file, mark, row = path.rpartition(MARK)
    if not mark:
        return path
    if file.endswith(".arrow"):
        file = pa.ipc.open_file(pa.memory_map(file)).schema.metadata[SOURCE].decode()
    return f"{file} row {row}"


def file_of(path: str) -> str:
    """The file on disk that a picture is in."""
    return path.rpartition(MARK)[0] or path


def content_of(path: str) -> bytes:
    """The bytes of a picture as it is stored."""
    found = opened(path)
    return Path(found).read_bytes() if isinstance(found, str) else found.getvalue()


def features_of(record: bytes) -> Any:
    """The features of a serialized ``tf.train.Example``, by name."""
    from tensorflow_datasets.proto import tf_example_pb2  # takes a second to import

    return tf_example_pb2.Example.FromString(record).features.feature


def picture_of(features: Any) -> bytes:
    """The encoded picture among the features of a record.

    Raises:
      KeyError: there is none.
    """
    name = next((name for name in PICTURE if name in features), None)
    if name is None:
        raise KeyError(f"no feature {' or '.join(PICTURE)}")
    return bytes(features[name].bytes_list.value[0])


@lru_cache(_MOST_OPEN)
def _arrow(file: str) -> tuple[list[Any], list[int]]:
    reader = pa.ipc.open_file(pa.memory_map(file))
    batches = [reader.get_batch(i).column(COLUMN) for i in range(reader.num_record_batches)]
    return batches, list(accumulate(map(len, batches)))


@lru_cache(_MOST_OPEN)
def array_record_reader(file: str) -> Any:
    """An open ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader  # grain brings it where it is built

    return ArrayRecordReader(file, "readahead_buffer_size:0")  # rows are read at random
