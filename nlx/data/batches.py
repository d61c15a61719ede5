"""Batches of a split, to train on and to evaluate on; pictures on disk are decoded by grain's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grain
import numpy as np

from nlx.data.dataset import ImageFiles, Split
from nlx.data.decode import decode

HostBatch = dict[str, np.ndarray]
THREADS = 8
ENDLESS = 2**62  # steps


def train_batches(
    split: Split, rows_of_step: Callable[[int], np.ndarray], start_step: int = 0, *, threads: int = THREADS
) -> Iterator[HostBatch]:
    """Training batches without end.

    The batch of a step depends on the number of the step alone, so that a training which starts at step s sees exactly
    what one that came there from step 0 would see.

    Args:
      split: training split; its true labels stay behind, but for the trusted ones.
      rows_of_step: number of a step -> rows of the split that it visits, int ``[B]``; called by threads.
      start_step: number of the first batch.
      threads: that decode, each a batch at a time.

    Returns:
      Iterator over dicts: ``inputs`` as the split stores them, ``noisy_label`` (int32 ``[B]`` or uint8 ``[B, K]``),
      ``index`` (int32 ``[B]``, rows of the split), and ``trusted_label`` (int32 ``[B]`` or ``[B, C]``, as
      :attr:`nlx.data.Split.trusted_label` has it) where some labels are trusted.

    Raises:
      ValueError: start_step < 0.
      DataError: while iterating, a picture that cannot be read.
    """
    if start_step < 0:
        raise ValueError(f"start_step must not be negative, got {start_step}")
    # An element is a whole batch: grain then spends its time on threads and prefetching, not on single rows.
    batches = grain.MapDataset.range(start_step, ENDLESS).map(lambda step: gather(split, rows_of_step(int(step))))
    return iter(batches.to_iter_dataset(_read_options(split, threads)))


def eval_batches(
    split: Split,
    batch_size: int,
    places: np.ndarray | None = None,
    *,
    rows: np.ndarray | None = None,
    threads: int = THREADS,
) -> Iterator[tuple[HostBatch, int]]:
    """A split from front to back, or some rows of it, in batches of one size.

    Args:
      split: training or test split.
      batch_size: B.
      places: positions in a batch of the rows that are read, int ``[m]``; None for all.
      rows: of the split, int; None for all.
      threads: that decode, each a batch at a time.

    Returns:
      Iterator over pairs of a batch, as :func:`train_batches` gives it (without ``noisy_label`` where the split has
      none), and how many of its B rows count: all but in the last batch, whose end repeats the last row.

    Raises:
      ValueError: batch_size < 1.
      DataError: while iterating, a picture that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    n, places = len(split) if rows is None else len(rows), np.arange(batch_size) if places is None else places

    def batch(start: int) -> HostBatch:
        at = np.minimum(start + places, n - 1)
        return gather(split, at if rows is None else rows[at])

    starts = range(0, n, batch_size)
    batches = grain.MapDataset.source(starts).map(batch)
    counts = (min(batch_size, n - start) for start in starts)
    return zip(batches.to_iter_dataset(_read_options(split, threads)), counts, strict=True)


def gather(split: Split, rows: np.ndarray) -> HostBatch:
    """The given rows, int ``[B]``, as a batch; true labels stay behind, but for the trusted ones."""
    if isinstance(split.inputs, ImageFiles):
        files = split.inputs
        inputs = np.empty((len(rows), *files.shape[1:]), files.dtype)
        place_of: dict[int, int] = {}  # of rows that are decoded
        for place, row in enumerate(rows.tolist()):
            first = place_of.setdefault(row, place)
            inputs[place] = inputs[first] if first < place else decode(files.paths[row], files.size, files.top)
    else:
        inputs = split.inputs[rows]
    batch = {"inputs": inputs, "index": np.asarray(rows, np.int32)}
    if split.noisy_label is not None:
        batch["noisy_label"] = split.noisy_label[rows]
    if split.trusted_label is not None:
        batch["trusted_label"] = split.trusted_label[rows]
    return batch


def _read_options(split: Split, threads: int) -> grain.ReadOptions:
    if not isinstance(split.inputs, ImageFiles):
        threads = 0  # rows of an array are gathered faster than threads can hand them over
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
