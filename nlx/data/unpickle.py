"""Pickles of arrays read without running any code that they hold."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from nlx.data.dataset import DataError


def unpickle(path: Path, file: Any, encoding: str, source: str) -> dict[Any, Any]:
    """A pickled dict of arrays and of builtin values.

    Args:
      path: begins the sentence if it fails.
      file: to read from.
      encoding: of Python 2's strings, ``bytes`` to leave them.
      source: where to get the file anew.

    Raises:
      DataError: it is broken, no dict, or asks for anything that could run code.
    """
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
