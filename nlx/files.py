"""Files that appear whole or not at all, folders that one process has to itself, JSON that every reader takes."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends without an error.

    The bytes go to a temporary file in the same folder, which is renamed at the end: a killed process or a full disk
    leaves what was there before, never half a file. Links are not followed: one at ``path`` is replaced.

    Args:
      path: where the file is to be; its folder is created if need be.

    Yields:
      A binary file to write to.

    Raises:
      OSError: the folder cannot be written or the disk is full; the temporary file is gone then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with open(temporary, "xb") as file:  # x: never a file, or the target of a link, that is there already
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder; no other may be writing there."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have a folder to oneself; the lock leaves no file, and ends with the process at the latest.

    Raises:
      BlockingIOError: another process, or another run of this one, has it.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # a network file system may know no locks on folders
            if error.errno == errno.EWOULDBLOCK:
                raise
        yield
    finally:
        os.close(opened)


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON as the standard has it: what is not finite becomes null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
