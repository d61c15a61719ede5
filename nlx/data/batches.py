"""Batches from disk, decoded by grain's threads: shuffled and endless to train on, in order to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import grain
import numpy as np

from nlx.data.dataset import ImageFiles, Split
from nlx.data.decode import decode
from nlx.training.stages import Course

Batch = dict[str, np.ndarray]
THREADS = 8
ENDLESS = 2**62  # steps


def stream(split: Split, course: Course, seed: int, start_step: int = 0, *, threads: int = THREADS) -> Iterator[Batch]:
    """Training batches without end, shuffled anew each epoch.

    The batch of a step depends on the split, the course, ``seed`` and the number of the step alone, so that a run which
    starts at step s sees exactly what one that came there from step 0 would see.

    Args:
      split: training split; its true labels stay behind, but for the trusted ones.
      course: which rows are visited when.
      seed: of the order.
      start_step: number of the first batch.
      threads: that decode, each a batch at a time.

    Returns:
      Iterator over dicts: ``image`` (uint8 ``[B, H, W, C]``) or ``features`` (float32 ``[B, F]``), ``noisy_label``
      (int32 ``[B]`` or uint8 ``[B, K]``), ``index`` (int32 ``[B]``, rows of the split), and ``trusted_label`` (int32
      ``[B]`` or ``[B, C]``, -1 where unknown) where some labels are trusted.

    Raises:
      ValueError: start_step < 0.
      DataError: while iterating, a picture that cannot be read.
    """
    if start_step < 0:
        raise ValueError(f"start_step must not be negative, got {start_step}")

    # Two epochs, as prefetching reaches into the next one. grain's own shuffle takes milliseconds a row on small sets.
    @lru_cache(maxsize=2)
    def order(stage: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([seed % 2**64, epoch]).permutation(course.stages[stage].rows)

    def rows(step: int) -> np.ndarray:
        place = course.at(step)
        return order(place.stage, place.epoch)[place.start * course.batch_size : (place.start + 1) * course.batch_size]

    # An element is a whole batch: grain then spends its time on threads and prefetching, not on single rows.
    batches = grain.MapDataset.range(start_step, ENDLESS).map(lambda step: gather(split, rows(int(step))))
    return iter(batches.to_iter_dataset(_read_options(split, threads)))


def read(split: Split, batch_size: int, *, threads: int = THREADS) -> Iterator[tuple[Batch, int]]:
    """A split from front to back, in batches of one size.

    Args:
      split: training or test split.
      batch_size: B.
      threads: that decode, each a batch at a time.

    Returns:
      Iterator over pairs of a batch, as ``stream`` gives it (without ``noisy_label`` where the split has none), and how
      many of its rows count: all B but in the last batch, whose end repeats the split's last row.

    Raises:
      ValueError: batch_size < 1.
      DataError: while iterating, a picture that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    n = len(split)
    starts = range(0, n, batch_size)
    batches = grain.MapDataset.source(starts).map(
        lambda start: gather(split, np.minimum(np.arange(start, start + batch_size), n - 1))
    )
    counts = (min(batch_size, n - start) for start in starts)
    return zip(batches.to_iter_dataset(_read_options(split, threads)), counts, strict=True)


def gather(split: Split, rows: np.ndarray) -> Batch:
    """The given rows, int ``[B]``, as a batch; true labels stay behind, but for the trusted ones."""
    if isinstance(split.inputs, ImageFiles):
        inputs = np.stack([decode(split.inputs.paths[row], split.inputs.size) for row in rows])
    else:
        inputs = split.inputs[rows]
    batch = {split.input_name: inputs, "index": np.asarray(rows, np.int32)}
    if split.noisy_label is not None:
        batch["noisy_label"] = split.noisy_label[rows]
    if split.trusted is not None:
        trusted_label = split.take(rows).trusted_label
        assert trusted_label is not None
        batch["trusted_label"] = trusted_label
    return batch


def _read_options(split: Split, threads: int) -> grain.ReadOptions:
    if not isinstance(split.inputs, ImageFiles):
        threads = 0  # rows of an array are gathered faster than threads can hand them over
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
