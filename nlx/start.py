"""The command ``nlx``, which says that it begins before it loads what it needs: that takes some seconds."""

from __future__ import annotations

import sys


def main() -> int:
    """Load the commands, with a word on a terminal meanwhile, and run the one that was asked for."""
    seen = sys.stderr.isatty()
    if seen:
        print("loading nlx ...", end="", file=sys.stderr, flush=True)
    from nlx.cli import main as command

    if seen:
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
    return command()
