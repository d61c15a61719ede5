"""Files of safetensors: what they say of their arrays, and the arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nlx.arguments import ArgumentError

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64}


def header_of(path: Path) -> dict[str, Any]:
    """Dtype, shape and place of each array of a file, by its name.

    Raises:
      ArgumentError: it is no safetensors file.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            header = dict(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
        except OSError:
            raise
        except Exception as error:  # a broken or foreign file can raise anything
            raise _foreign(path) from error
    header.pop("__metadata__", None)
    return header


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    Raises:
      ArgumentError: it is none, or its arrays are of a type other than floats and int64.
      OSError: it cannot be read.
    """
    header, content, arrays = header_of(path), path.read_bytes(), {}
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        for name, about in header.items():
            begin, end = about["data_offsets"]
            part = content[start + begin : start + end]
            arrays[name] = np.frombuffer(part, _DTYPES[about["dtype"]]).reshape(about["shape"])
        return arrays
    except Exception as error:  # likewise
        raise _foreign(path) from error


def _foreign(path: Path) -> ArgumentError:
    return ArgumentError(f"{path} is no safetensors file of floats: save the weights anew")
