"""Arrays that are generated once and kept on disk; a cache that fails costs time and nothing else."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np


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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        pass
    generated = generate()
    with contextlib.suppress(OSError):
        _write(path, generated)
    return generated


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside the file and rename, so that another process never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
