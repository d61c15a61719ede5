"""Pieces of an HTML page: escaped text, tables, embedded pictures, and the one stylesheet."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Control characters and marks of direction, which would hide or reorder what stands around them.
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

STYLE = """
:root { --paper: #fff; --ink: #1c2024; --soft: #5d666f; --line: #dde2e6; --raised: #f5f7f8; --good: #00664a;
  --bad: #a33b00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ec; --soft: #9aa4ad; --line: #30363c; --raised: #1d2226; --good: #4fd1a5;
    --bad: #ff9a5c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; }
.soft, caption { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .6rem 1.5rem; margin: 1rem 0; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-weight: 600; }
dl.plain dd { font-weight: 400; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
table.narrow { width: auto; }
th, td { text-align: left; padding: .4rem 1.4rem .4rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td img { display: block; width: 72px; height: 72px; object-fit: contain; background: var(--raised);
  border-radius: 4px; image-rendering: pixelated; }
td img.large { image-rendering: auto; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
.added { color: var(--good); font-weight: 600; }
.removed { color: var(--bad); font-weight: 600; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--soft); }
"""


def document(title: str, body: str) -> str:
    """A whole page with a title, as text; everything it shows is in it."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def escape(text: Any) -> str:
    """Text as HTML, with nothing in it that a browser would read as markup, or that turns the writing round."""
    return html.escape(_INVISIBLE.sub(lambda mark: f"\\u{ord(mark[0]):04x}", str(text)))


def embedded(png: bytes, description: str, *, style: str = "") -> str:
    """A picture whose bytes are in the page; the description is what a screen reader says."""
    data = base64.b64encode(png).decode()
    attribute = f' class="{style}"' if style else ""
    return f'<img{attribute} alt="{escape(description)}" src="data:image/png;base64,{data}">'


def definitions(pairs: Iterable[tuple[str, str]], *, style: str = "") -> str:
    """A grid of names and values; the names are escaped here, the values are HTML."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>\n" for name, value in pairs)
    return f'<dl class="{style}">\n{cells}</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = (), style: str = "") -> str:
    """A table that scrolls sideways on narrow screens; cells are HTML, columns in ``numbers`` are aligned right."""
    marks = [' class="number"' if name in numbers else "" for name in header]
    head = "".join(f"<th{mark}>{escape(name)}</th>" for name, mark in zip(header, marks, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{style}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n'
        "</table></div>"
    )
