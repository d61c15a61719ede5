"""Options of a table's rows that its command line changes: NAME=VALUE, read as the recipe's own types have it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from benchmarks.protocols.runner import Entry
from nlx.arguments import ArgumentError

_OF_THE_TABLE = {"run_dir": "--runs", "resume": "the same command", "data_dir": "--data_dir", "plan": "--dry_run"}


def read_changes(options: Iterable[str], rows: Iterable[Entry]) -> dict[str, str]:
    """Values as text, by the names of options that at least one of the rows has.

    Raises:
      ArgumentError: there is no such option, or no value.
    """
    known = {field.name for entry in rows for field in fields(entry.options)}
    changes = {}
    for option in options:
        name, given, changes[name] = option.partition("=")
        if name in _OF_THE_TABLE:
            raise ArgumentError(f"--options {option}: the table sees to {name}: take {_OF_THE_TABLE[name]}")
        if name not in known:
            near = get_close_matches(name, sorted(known), 1) or ["another, which --help of the recipes lists"]
            raise ArgumentError(f"--options {option}: no row has an option {name}: take {near[0]}")
        if not given:
            raise ArgumentError(f"--options {option} has no value: write {name}=VALUE")
    return changes


def changed(entry: Entry, changes: dict[str, str]) -> dict[str, Any]:
    """The changes that a row's recipe knows, as values.

    Raises:
      ArgumentError: a value that its option cannot have.
    """
    hints = get_type_hints(type(entry.options))
    own = {field.name for field in fields(entry.options)} & set(changes)
    return {name: _value(name, changes[name], hints[name]) for name in sorted(own)}


def _value(name: str, text: str, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in kinds and text.lower() == "none":
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    for kind in kinds:
        with contextlib.suppress(KeyError, ValueError):
            return _read(text, kind)
    raise ArgumentError(f"--options {name}={text}: {name} must be {' or '.join(map(_said, kinds))}")


def _read(text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return {str(word): word for word in get_args(kind)}[text]
    if get_origin(kind) is tuple:
        return tuple(int(part) for part in text.split(","))
    return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return words.get(kind, "whole numbers with commas between")
