"""Pieces of an HTML page: escaped text, tables, embedded pictures, and the one stylesheet."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

# Control characters and marks of direction, which would hide or reorder what stands around them.
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

STYLE = """
:root { --paper: #fff; --ink: #1c2024; --soft: #5d666f; --line: #dde2e6; --raised: #f5f7f8; --good: #00664a;
  --bad: #a33b00; --edge: #8a949d; --focus: #0a5fd0; --heat-ink: #e07b39; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ec; --soft: #9aa4ad; --line: #30363c; --raised: #1d2226; --good: #4fd1a5;
    --bad: #ff9a5c; --edge: #6b757e; --focus: #7db4ff; --heat-ink: #b3561c; }
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
caption { text-align: left; padding: .2rem 0; font-size: .85rem; }
dl.answer { grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); margin: 1.2rem 0; }
dl.answer > div { background: var(--raised); border-radius: 8px; padding: .8rem 1rem; }
dl.answer dd { font-size: 1.25rem; line-height: 1.3; }
.warning { border-left: 4px solid var(--bad); background: var(--raised); border-radius: 4px; padding: .1rem 1rem;
  margin: 1.2rem 0; }
.warning h2 { border: 0; margin: .8rem 0 0; padding: 0; font-size: 1rem; color: var(--bad); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
select, input, button { font: inherit; font-size: .95rem; color: var(--ink); background: var(--paper);
  border: 1px solid var(--edge); border-radius: 6px; padding: .35rem .5rem; max-width: 100%; }
input[type=checkbox] { width: 1.2rem; height: 1.2rem; accent-color: var(--good); vertical-align: middle; }
button { cursor: pointer; background: var(--raised); }
button:disabled { opacity: .5; cursor: default; }
#controls { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .7rem 1rem;
  align-items: end; margin: 1rem 0; }
#controls[hidden], #pager[hidden] { display: none; }
#controls label { display: grid; gap: .2rem; font-size: .85rem; color: var(--soft); min-width: 0; }
#controls select, #controls input[type=search] { width: 100%; min-width: 0; }
#controls label.check { display: flex; gap: .5rem; align-items: center; padding-bottom: .4rem; }
.buttons, #pager { display: flex; flex-wrap: wrap; gap: .5rem; }
.buttons { grid-column: 1 / -1; }
#pager { margin: .8rem 0; }
#status { color: var(--soft); font-size: .9rem; margin: .5rem 0; }
table.heat { width: auto; }
table.heat th[scope=col] { vertical-align: bottom; padding: 0 .2rem .3rem; }
table.heat th[scope=col] span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem;
  overflow: hidden; }
table.heat th { font-weight: 400; }
table.heat td { padding: 1px; border: 0; text-align: center; min-width: 2.6rem; }
table.heat td[style] { background: color-mix(in srgb, var(--heat-ink) var(--heat), var(--paper)); }
table.heat button { width: 100%; background: var(--paper); border: 0; border-radius: 3px; padding: .15rem .3rem;
  font-size: .85rem; margin: 3px 0; max-width: 2.4rem; }
@media (max-width: 40rem) {
  th, td { padding-right: .8rem; }
  dl.answer dd { font-size: 1.1rem; }
}
@media print { #controls, #pager, #status { display: none; } }
"""


@cache
def script() -> str:
    """What filters and sorts the page's list."""
    return files("nlx.report").joinpath("browse.js").read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """A whole page with a title, as text; everything it shows is in it, and no other script than ours may run."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{script()}</script>\n</body>\n</html>\n"
    )


def escape(text: Any) -> str:
    """Text as HTML, with nothing in it that a browser would read as markup, or that turns the writing round."""
    return html.escape(visible(text))


def visible(text: Any) -> str:
    """Text in which marks that would hide or turn round what stands around them are written out."""
    return _INVISIBLE.sub(lambda mark: f"\\u{ord(mark[0]):04x}", str(text))


def embedded(png: bytes, description: str, *, style: str = "") -> str:
    """A picture whose bytes are in the page; the description is what a screen reader says."""
    data = base64.b64encode(png).decode()
    attribute = f' class="{style}"' if style else ""
    return f'<img{attribute} alt="{escape(description)}" src="data:image/png;base64,{data}">'


def definitions(pairs: Iterable[tuple[str, str]], *, style: str = "") -> str:
    """A grid of names and values; the names are escaped here, the values are HTML."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>\n" for name, value in pairs)
    return f'<dl class="{style}">\n{cells}</dl>'


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    style: str = "",
    caption: str,
) -> str:
    """A table that scrolls sideways on narrow screens; cells are HTML, columns in ``numbers`` are aligned right.

    The caption says what it is, also to who scrolls in it by keyboard.
    """
    marks = [' class="number"' if name in numbers else "" for name in header]
    head = "".join(f'<th scope="col"{mark}>{escape(name)}</th>' for name, mark in zip(header, marks, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{style}">\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n"
        "</table></div>"
    )
