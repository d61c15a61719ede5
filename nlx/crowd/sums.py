"""How answers add up: by item, and by annotator and given label.

An answer belongs to an item and to a cell, which is its annotator and the label that it gives. EM needs two sums of
rows over answers, and nothing else: of the cells' rows by item, and of the items' rows by cell.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.sparse import coo_array

from nlx.arguments import at_least, class_vector, same_shape

_MANY = 2**15  # answers from which on a plan pays for the time that it takes to make one
_CACHED, _FULL = 2**20, 8  # numbers that stay in a processor's cache; answers of a cell and a block that are enough
_WIDTHS = (4, 8, 16)
_WIDEST = 32  # rows that are added at once


class Sizes(NamedTuple):
    """Numbers of items, annotators and classes."""

    items: int
    annotators: int
    classes: int


class Sums(NamedTuple):
    """Answers in the form that their sums are made from.

    Attributes:
      item: int32 ``[M]``, the number of items for an answer that does not count.
      cell: annotator times K plus label, int32 ``[M]``, the number of cells likewise.
      by_item: a plan for sums by item, see :func:`_plan`; empty where scatters do it.
      by_cell: likewise.
    """

    item: Array
    cell: Array
    by_item: tuple[Array, ...] = ()
    by_cell: tuple[Array, ...] = ()

    def of_items(self, table: Array, sizes: Sizes) -> Array:
        """Sums by item ``[N, J]`` of a table over cells ``[A K, J]``."""
        if self.by_item:
            return _follow(table, self.by_item)
        rows = jnp.take(table, self.cell, axis=0, mode="clip")
        return jax.ops.segment_sum(rows, self.item, sizes.items, mode="drop")

    def of_cells(self, table: Array, sizes: Sizes) -> Array:
        """Sums by cell ``[A K, J]`` of a table over items ``[N, J]``."""
        if self.by_cell:
            return _follow(table, self.by_cell)
        rows = jnp.take(table, self.item, axis=0, mode="clip")
        return jax.ops.segment_sum(rows, self.cell, sizes.annotators * sizes.classes, mode="drop")


def checked(items: ArrayLike, annotators: ArrayLike, labels: ArrayLike, sizes: Sizes) -> Sums:
    """Answers whose numbers are all in range, as :func:`scattered`, and with a plan where that is faster.

    On a CPU, many answers whose values are known get one: sums by gathers alone, some twenty times faster there than
    scatters. Under a trace, on several devices and elsewhere they are scatters, which are sharded by answer.
    """
    sums = scattered(items, annotators, labels, sizes)
    if len(sums.item) < _MANY or isinstance(sums.item, jax.core.Tracer):
        return sums
    if [device.platform for device in sums.item.devices()] != ["cpu"]:
        return sums
    item, cell, cells = np.asarray(sums.item), np.asarray(sums.cell), sizes.annotators * sizes.classes
    by_item, by_cell = _plan(cell, item, sizes.items, cells), _plan(item, cell, cells, sizes.items)
    blocks = min(sizes.items * sizes.classes // _CACHED, len(item) // (_FULL * cells))
    if blocks > 1:  # of items: a sum for each, so that beliefs about them stay in the cache while they are added
        block = np.minimum(item, sizes.items - 1) // -(-sizes.items // blocks)
        apart = np.where(cell < cells, block * cells + cell, blocks * cells)
        joined = np.arange(blocks * cells, dtype=np.int32).reshape(blocks, cells)
        by_cell = (*_plan(item, apart, blocks * cells, sizes.items), jnp.asarray(joined))
    return sums._replace(by_item=by_item, by_cell=by_cell)


def scattered(items: ArrayLike, annotators: ArrayLike, labels: ArrayLike, sizes: Sizes) -> Sums:
    """Answers whose numbers are all in range; others do not count.

    Raises:
      TypeError: not integers.
      ValueError: not vectors of one length, or a number of items, annotators or classes below 1.
    """
    at_least(1, num_items=sizes.items, num_annotators=sizes.annotators)
    item, annotator, label = (
        class_vector(x, name, size)
        for x, name, size in (
            (items, "items", sizes.items),
            (annotators, "annotators", sizes.annotators),
            (labels, "labels", sizes.classes),
        )
    )
    for name, other in (("annotators", annotator), ("labels", label)):
        same_shape(name, other.shape, "items", item.shape)
    counts = (item >= 0) & (annotator >= 0) & (label >= 0)
    cell = annotator * sizes.classes + label
    return Sums(jnp.where(counts, item, sizes.items), jnp.where(counts, cell, sizes.annotators * sizes.classes))


def _follow(table: Array, levels: tuple[Array, ...]) -> Array:
    for level in levels:
        whole = jnp.concatenate([table, jnp.zeros((1, table.shape[1]), table.dtype)])
        # Written out: XLA makes one loop of it, with neither a scatter nor an array in between.
        parts = (whole.at[level[i]].get(mode="promise_in_bounds") for i in range(len(level)))
        table = sum(parts, start=jnp.zeros((), table.dtype))
    return table


def _plan(source: np.ndarray, segment: np.ndarray, segments: int, nothing: int) -> tuple[Array, ...]:
    """Sums over segments as sums of a few rows, of which again a few are added, and so on.

    Args:
      source: the row that each answer adds, int ``[M]``.
      segment: the sum that it adds to, int ``[M]``; those from ``segments`` on do not count.
      segments: number of sums.
      nothing: number of rows, which stands for none of them.

    Returns:
      For each level the rows of the level below that are added, int32 ``[W, C]``, the last with ``segments`` columns.
    """
    within = np.flatnonzero(segment < segments)
    # What makes a sparse matrix sorts by counting, which takes a tenth of a sort's time.
    entries = (np.ones(len(within), np.int8), (segment[within], np.arange(len(within))))
    grouped = coo_array(entries, shape=(segments, len(within))).tocsr()
    rows, size, levels = source[within][grouped.indices], np.diff(grouped.indptr).astype(np.int64), []
    while True:
        width = _width(size)
        parts = np.maximum(-(-size // width), 1)
        first, begin = np.cumsum(parts) - parts, np.cumsum(size) - size
        place = np.arange(len(rows)) - np.repeat(begin, size)
        level = np.full((width, int(parts.sum())), nothing, np.int32)
        level[place % width, np.repeat(first, size) + place // width] = rows
        levels.append(jnp.asarray(level))
        if parts.max() == 1:
            return tuple(levels)
        nothing, size = level.shape[1], parts
        rows = np.arange(nothing)


def _width(size: np.ndarray) -> int:
    """How many rows to add at once, so that few places are left empty."""
    widths = {*_WIDTHS, min(int(size.max()), _WIDEST)} - {0, 1}
    parts = {width: int(np.maximum(-(-size // width), 1).sum()) for width in sorted(widths)}
    return min(parts, key=lambda width: parts[width] * (width + _WIDTHS[0])) if size.max() > 1 else 1
