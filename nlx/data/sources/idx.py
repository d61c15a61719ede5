"""``mnist`` and ``fashion_mnist``: from their four IDX files, MNIST's one Keras file, or TensorFlow Datasets."""

from __future__ import annotations

import gzip
import importlib.util
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlx.data.checks import check_class_range, check_length, checked_labels
from nlx.data.dataset import DataError, Dataset, Split

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
KERAS = "mnist.npz"
PARTS = ("train", "t10k")
SIZE = 28  # height and width, pixels
_MOST = 2**30  # bytes that are unpacked at most; the sets have a twentieth of that
UNSIGNED_BYTE = 8  # IDX's code for the type of the entries


class _Source(NamedTuple):
    """What tells one of the two sets from the other, whose files have the same names.

    Attributes:
      class_names: one name per class.
      first: the first training labels.
      fix: how to get the files, to end a sentence with.
    """

    class_names: tuple[str, ...]
    first: tuple[int, ...]
    fix: str


_IDX_FIX = "put its four IDX files, train-images-idx3-ubyte to t10k-labels-idx1-ubyte, plain or .gz, there"
_TFDS_FIX = "prepare it there with TensorFlow Datasets, tfds build {} --file_format=array_record"
_SOURCES = {
    "mnist": _Source(
        tuple("0123456789"),
        (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
        f"{_IDX_FIX}, or {KERAS} in the layout of Keras, or {_TFDS_FIX.format('mnist')}",
    ),
    "fashion_mnist": _Source(
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
        f"{_IDX_FIX}, or run apt-get install dataset-fashion-mnist, or {_TFDS_FIX.format('fashion_mnist')}",
    ),
}


def mnist(data_dir: str | Path | None) -> Dataset:
    """MNIST's handwritten digits (LeCun et al., 1998), with their clean labels instead of noisy ones.

    Args:
      data_dir: folder with the four IDX files or with ``mnist.npz`` (``x_train``, ``y_train``, ``x_test``, ``y_test``),
        themselves or under ``mnist/``, or where TensorFlow Datasets has prepared the set.

    Returns:
      The data set ``mnist``: images uint8 ``[n, 28, 28, 1]``, 60,000 to train on and 10,000 to test.

    Raises:
      DataError: no files, or some that are broken or another data set's.
    """
    return _load("mnist", data_dir)


def fashion_mnist(data_dir: str | Path | None) -> Dataset:
    """Fashion-MNIST's pictures of clothes (Xiao et al., 2017), with their clean labels instead of noisy ones.

    Args:
      data_dir: folder with the four IDX files, themselves or under ``fashion_mnist/``, or where TensorFlow Datasets has
        prepared the set. Without any of these, the Debian package dataset-fashion-mnist is used where it is installed.

    Returns:
      The data set ``fashion_mnist``: images uint8 ``[n, 28, 28, 1]``, 60,000 to train on and 10,000 to test.

    Raises:
      DataError: no files, or some that are broken or another data set's.
    """
    return _load("fashion_mnist", data_dir)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """An array of bytes from an IDX file, gzipped if it ends in ``.gz``.

    Args:
      path: the file.
      ndim: how many dimensions it must have.

    Returns:
      uint8 array, read-only.

    Raises:
      DataError: the file cannot be unpacked, is no such IDX file, or is too short or too long.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_MOST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({str(error).rstrip('.')}): get the file again.") from error
    magic = bytes((0, 0, UNSIGNED_BYTE, ndim))
    if content[:4] != magic:
        raise DataError(
            f"{path}: begins with {content[:4].hex() or 'nothing'}, not with {magic.hex()} as an IDX file of bytes in "
            f"{ndim} dimensions does: get the file again, and unpack it if it has no .gz in its name."
        )
    start = 4 + 4 * ndim
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) < start or len(content) - start != math.prod(shape):
        raise DataError(
            f"{path}: holds {max(0, len(content) - start)} entries, but its header says {'x'.join(map(str, shape))}: "
            f"get the file again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _load(name: str, data_dir: str | Path | None) -> Dataset:
    root = None if data_dir is None else Path(data_dir).expanduser()
    arrays = None
    for folder in [] if root is None else [root / name, root]:
        # By its name, Keras's file is MNIST; IDX files beside it may be the other set's.
        if name == "mnist":
            arrays = arrays or _from_keras(folder / KERAS)
        arrays = arrays or _from_idx(folder)
    if name == "fashion_mnist":
        arrays = arrays or _from_idx(DEBIAN)
    if root is not None:
        arrays = arrays or _from_tfds(name, root)
    source = _SOURCES[name]
    if arrays is None:
        where = "without a `data_dir`" if root is None else f"in {root} or {root / name}"
        raise DataError(f"{name} cannot be found {where}: {source.fix}.")
    (images, label), (test_images, test_label) = arrays
    for other, (_, first, _) in _SOURCES.items():
        if other != name and tuple(label[: len(first)].tolist()) == first:
            raise DataError(f"the files in {root} are {other}'s, not {name}'s: keep each set in a folder of its own.")
    train = Split(images, label.copy(), label)
    return Dataset(name, source.class_names, train, Split(test_images, None, test_label))


Part = tuple[np.ndarray, np.ndarray]


def _from_idx(folder: Path) -> list[Part] | None:
    """Both parts, None where the folder has not a single one of the files."""
    wanted = [(part, kind) for part in PARTS for kind in ("images-idx3", "labels-idx1")]
    path_of: dict[str, Path] = {}
    for part, kind in wanted:
        # The second spelling is what some archives unpack to.
        for stem in (f"{part}-{kind}-ubyte", f"{part}-{kind.replace('-', '.')}-ubyte"):
            for path in (folder / stem, folder / f"{stem}.gz"):
                if path.is_file():
                    path_of.setdefault(f"{part}-{kind}-ubyte", path)
    if not path_of:
        return None
    for part, kind in wanted:
        if f"{part}-{kind}-ubyte" not in path_of:
            raise DataError(f"{folder / f'{part}-{kind}-ubyte'}: no such file, nor with .gz: put it beside the others.")
    parts = []
    for part in PARTS:
        image_path, label_path = (path_of[f"{part}-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))
        parts.append(_checked(str(image_path), read_idx(image_path, 3), str(label_path), read_idx(label_path, 1)))
    return parts


def _from_keras(path: Path) -> list[Part] | None:
    """Both parts from Keras's file, None where there is none."""
    if not path.is_file():
        return None
    keys = ("x_train", "y_train", "x_test", "y_test")
    # Opened here, as np.load leaves a file that it opened itself dangling if its end is missing.
    with path.open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                x, y, test_x, test_y = (file[key] for key in keys)
        except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path}: cannot be read ({str(error).strip(chr(39)).rstrip('.')}): it must be an .npz file with the "
                f"arrays {', '.join(keys)}."
            ) from error
    named = ((keys[0], x, keys[1], y), (keys[2], test_x, keys[3], test_y))
    return [_checked(f"{path}: '{a}'", images, f"{path}: '{b}'", labels) for a, images, b, labels in named]


def _from_tfds(name: str, root: Path) -> list[Part] | None:
    """Both parts from TensorFlow Datasets, None where it has not prepared them and cannot."""
    # TFDS reads what is prepared without TensorFlow, but needs it to prepare these sets from their downloads.
    can_prepare = importlib.util.find_spec("tensorflow") is not None
    if not can_prepare and not any((root / name).glob("*/dataset_info.json")):
        return None
    import tensorflow_datasets as tfds  # takes seconds to import, and the other ways do without it

    splits = ["train", "test"]
    record = {"file_format": "array_record"}
    try:
        sources = tfds.data_source(name, split=splits, data_dir=str(root), download=can_prepare, builder_kwargs=record)
        examples = [[source[i] for i in range(len(source))] for source in sources]
        arrays = [[np.stack([e[key] for e in part]) for key in ("image", "label")] for part in examples]
    except Exception as error:  # TFDS can raise anything, and the ways out are the same
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{root}: TensorFlow Datasets cannot give {name} ({reason}): {_SOURCES[name].fix}.") from error
    return [
        _checked(f"{root}: TFDS {split} 'image'", image[..., 0], f"{root}: TFDS {split} 'label'", label)
        for split, (image, label) in zip(splits, arrays, strict=True)
    ]


def _checked(image_from: str, images: np.ndarray, label_from: str, labels: np.ndarray) -> Part:
    """Images uint8 ``[n, 28, 28, 1]`` and labels int32 ``[n]``."""
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE):
        raise DataError(
            f"{image_from} has dtype {images.dtype} and shape {images.shape}: the images must be uint8 "
            f"[n, {SIZE}, {SIZE}]; get the file again."
        )
    if labels.ndim != 1:
        raise DataError(f"{label_from} has shape {labels.shape}: give class numbers [n]; get the file again.")
    label = checked_labels(label_from, labels)
    check_class_range(label_from, label, 10, "the data set")
    check_length(label_from, len(label), image_from, len(images))
    return images[..., None], label
