"""The files that a table names: found below their folder, told apart, and none outside it."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp")
"""Of the files in a folder that are taken for pictures where no table names them."""


class Found(NamedTuple):
    """What became of one name.

    Attributes:
      path: the file, as it is to be opened; None where there is none.
      real: the same for two spellings of one file.
      outside: whether it lies outside the folder.
      near: a file in its folder whose name is nearly the same, where there is none.
    """

    path: str | None
    real: str
    outside: bool = False
    near: str | None = None


def find_files(root: Path, names: Sequence[str]) -> list[Found]:
    """Find files by their names relative to a folder.

    Each folder is listed once, which is far cheaper than asking for every file. A name with backslashes, or composed
    otherwise than on disk, is understood where no file has it as it stands.
    """
    inside = os.path.realpath(root)
    listed: dict[str, tuple[str, dict[str, bool], dict[str, str]]] = {}

    def listing(folder: str) -> tuple[str, dict[str, bool], dict[str, str]]:
        if folder not in listed:
            files: dict[str, bool] = {}
            try:
                with os.scandir(folder) as entries:
                    files = {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
            except (OSError, ValueError):  # a name with a NUL, say
                pass
            composed: dict[str, str] = {}
            for name in files:
                composed.setdefault(unicodedata.normalize("NFC", name), name)
            listed[folder] = (os.path.realpath(folder) if files else folder, files, composed)
        return listed[folder]

    def find(name: str) -> Found:
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            folder, base = os.path.split(os.path.join(root, spelling))
            real, files, composed = listing(folder)
            base = base if base in files else composed.get(unicodedata.normalize("NFC", base), base)
            if base in files:
                path = os.path.join(real, base)
                path = os.path.realpath(path) if files[base] else path
                return Found(os.path.join(folder, base), path, os.path.commonpath([inside, path]) != inside)
        matches = difflib.get_close_matches(base.lower(), {file.lower(): file for file in list(files)[:10_000]}, n=1)
        near = next((file for file in files if matches and file.lower() == matches[0]), None)
        return Found(None, name, near=near)

    return [find(name) for name in names]


def class_folders(root: Path) -> list[str]:
    """Pictures below the folders of a folder, relative to it, in order; none where there is no such folder."""
    paths = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        for parent, _, files in sorted(os.walk(folder)):
            below = os.path.relpath(parent, root)
            pictures = sorted(file for file in files if file[file.rfind(".") :].lower() in SUFFIXES)
            paths += [os.path.join(below, file) for file in pictures]
    return paths
