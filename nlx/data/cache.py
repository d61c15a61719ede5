"""Arrays that are generated once and kept on disk; a cache that fails costs time and nothing else."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nlx.files import replacing


def cache_dir() -> Path:
    """The cache folder: the environment variable NLX_CACHE, or ``~/.cache/nlx``."""
    return Path(os.environ.get("NLX_CACHE") or "~/.cache/nlx").expanduser()


def cached(name: str, generate: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays from the cache, or generated and then stored there.

    A file that is absent or broken is generated anew; a folder that cannot be written to is left alone.

    Args:
      name: name of the file without its suffix; must change whenever what ``generate`` returns changes.
      generate: makes the arrays; never of Python objects.

    Returns:
      The arrays by key.
    """
    path = cache_dir() / f"{name}.npz"
    try:
        # Opened here, as np.load leaves a file that it opened itself dangling if its end is missing.
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        pass
    generated = generate()
    with contextlib.suppress(OSError), replacing(path) as file:
        save: Any = np.savez  # whose types ask for allow_pickle, which NumPy 2.0 takes for an array
        save(file, **generated)
    return generated
