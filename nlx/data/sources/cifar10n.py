"""``cifar10n``: CIFAR-10 with human label noise, from the official files of both."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nlx.data.checks import check_class_range, check_length, checked_labels
from nlx.data.dataset import DataError, Dataset, Split

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABELLINGS = {
    "worst": "worse_label",
    "aggregate": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
BATCHES = "cifar-10-batches-py"
TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
HUMAN = "CIFAR-10_human.npy"
HUMAN_TORCH = "CIFAR-10_human.pt"
CIFAR_SOURCE = "the Python version of CIFAR-10, https://www.cs.toronto.edu/~kriz/cifar.html"
HUMAN_SOURCE = "the data folder of https://github.com/UCSC-REAL/cifar-10-100n"


def cifar10n(data_dir: str | Path | None, labels: str | None = None) -> Dataset:
    """CIFAR-10's images with the human labels of CIFAR-10N (Wei et al., 2022).

    Args:
      data_dir: folder with ``cifar-10-batches-py/`` (``data_batch_1`` to ``5`` and ``test_batch``) and
        ``CIFAR-10_human.npy`` or ``CIFAR-10_human.pt``.
      labels: ``worst``, ``aggregate``, ``random1``, ``random2`` or ``random3``.

    Returns:
      The data set ``cifar10n/<labels>``: images uint8 ``[n, 32, 32, 3]``, true training labels included, CIFAR-10's own
      test set as the test part.

    Raises:
      DataError: a file that is missing, broken or in another order than the images, or labels that do not exist.
    """
    if labels not in LABELLINGS:
        wrong = "has several labellings" if labels is None else f"has no labels {labels!r}"
        raise DataError(f"cifar10n {wrong}: choose one of {', '.join(LABELLINGS)}.")
    if data_dir is None:
        raise DataError(f"cifar10n needs a `data_dir`: the folder that holds '{BATCHES}' and '{HUMAN}'.")
    root = Path(data_dir).expanduser()
    for path in (root / BATCHES / name for name in (*TRAIN_BATCHES, "test_batch")):
        if not path.is_file():
            raise DataError(f"{path}: no such file: get {CIFAR_SOURCE}, and unpack it there.")
    human_path, human = _read_human(root)

    images, label = _read_batches([root / BATCHES / name for name in TRAIN_BATCHES])
    test_images, test_label = _read_batches([root / BATCHES / "test_batch"])
    given = {}
    for key in ("clean_label", LABELLINGS[labels]):
        where = f"{human_path}: '{key}'"
        if not isinstance(human.get(key), np.ndarray):
            raise DataError(f"{where} is missing or no array: get the file again, from {HUMAN_SOURCE}.")
        given[key] = checked_labels(where, human[key])
        check_class_range(where, given[key], len(CLASS_NAMES), "CIFAR-10")
        check_length(where, len(given[key]), f"'{BATCHES}'", len(label))
    differs = np.flatnonzero(given["clean_label"] != label)
    if len(differs):
        raise DataError(
            f"{human_path}: 'clean_label' row {differs[0]} is not CIFAR-10's own label, so the rows are not in the "
            f"order of the images: take '{HUMAN_TORCH}', which has the official order, from {HUMAN_SOURCE}."
        )
    train = Split(images, given[LABELLINGS[labels]], label)
    return Dataset(f"cifar10n/{labels}", CLASS_NAMES, train, Split(test_images, None, test_label))


class _Type:
    """A NumPy type as a pickle spells it: NumPy's own way from a damaged one may crash the process."""

    def __init__(self, code: Any, *_: Any):
        self._code, self._order = _text(code), "="
        if not re.fullmatch(r"[biuf][1248]|O8?", self._code):
            raise pickle.UnpicklingError(f"arrays of {self._code!r} are not read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = _text(state[1])

    def array(self, raw: Any, shape: Any = (), fortran: bool = False) -> Any:
        """An array of bytes, or the one Python object that numpy.save has wrapped."""
        if self._code[0] == "O":
            (content,) = raw
            return content
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(raw, np.dtype(self._order + self._code)).reshape(shape, order="F" if fortran else "C")


class _Array:
    """An array that is told its content later."""

    def __init__(self, *_: Any):
        self.content: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        self.content = kind.array(raw, shape, fortran)


def _text(code: Any) -> str:
    return code.decode("ascii") if isinstance(code, bytes) else str(code)


def _encode(text: str, encoding: str) -> bytes:
    return text.encode({"latin1": encoding, "latin-1": encoding}[encoding])


# All that a pickled NumPy array or a Python 2 byte string needs; anything else in a pickle could run code.
_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): lambda kind, raw: kind.array(raw)[()],
    ("numpy._core.numeric", "_frombuffer"): lambda raw, kind, shape, order: kind.array(bytes(raw), shape, order == "F"),
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads NumPy arrays and builtin containers and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that arrays are made of; old files know NumPy's inner modules by an older name."""
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")
        return _ALLOWED[module, name]


def _unpickle(path: Path, file: Any, encoding: str, source: str) -> dict[Any, Any]:
    try:
        content = _ArrayUnpickler(file, encoding=encoding).load()
        content = content.content if isinstance(content, _Array) else content
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it does not hold a dict")
        return {key: value.content if isinstance(value, _Array) else value for key, value in content.items()}
    except Exception as error:  # a broken pickle can raise anything
        raise DataError(
            f"{path}: cannot be read ({' '.join(str(error).split()).rstrip('.')}): get the file again, from {source}."
        ) from error


def _read_human(root: Path) -> tuple[Path, dict[str, Any]]:
    path = root / HUMAN
    if path.is_file():
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[
                    version[0]
                ]
                read_header(file)
            except Exception as error:  # a broken header can raise anything
                raise DataError(f"{path}: not a NumPy file: get it again, from {HUMAN_SOURCE}.") from error
            return path, _unpickle(path, file, "latin1", HUMAN_SOURCE)
    path = root / HUMAN_TORCH
    if path.is_file():
        # Since torch 1.6 such a file is a zip archive, and what it pickles here are NumPy arrays: torch is not needed.
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
                return path, _unpickle(path, io.BytesIO(archive.read(name)), "latin1", HUMAN_SOURCE)
        except Exception as error:  # a broken or encrypted archive can raise anything
            raise DataError(
                f"{path}: cannot be read without torch: convert it where torch is installed, with "
                f"np.save('{HUMAN}', torch.load('{HUMAN_TORCH}', weights_only=False))."
            ) from error
    raise DataError(f"{root / HUMAN}: no such file, nor '{HUMAN_TORCH}': get one of them from {HUMAN_SOURCE}.")


def _read_batches(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, 32, 32, 3]`` and labels int32 ``[n]`` of all batches."""
    images, labels = [], []
    for path in paths:
        with path.open("rb") as file:
            batch = _unpickle(path, file, "bytes", CIFAR_SOURCE)
        data, label = batch.get(b"data"), batch.get(b"labels")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * 32 * 32,):
            raise DataError(f"{path}: 'data' is not uint8 [n, 3072]: get {CIFAR_SOURCE}.")
        images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(checked_labels(f"{path}: 'labels'", np.asarray(label)))
        check_class_range(f"{path}: 'labels'", labels[-1], len(CLASS_NAMES), "CIFAR-10")
        check_length(f"{path}: 'labels'", len(labels[-1]), "'data'", len(data))
    return np.concatenate(images), np.concatenate(labels)
