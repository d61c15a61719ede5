"""The order in which an epoch visits its rows: shuffled over all of them, or within groups of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.training.state import ORDER

_UNEVEN = 2  # times the smallest group, above which the largest is too large


@partial(jax.tree_util.register_dataclass, data_fields=("rows", "sizes"), meta_fields=("steps", "each"))
@dataclass(frozen=True)
class Groups:
    """Rows in groups that are shuffled each by itself, and of which every batch takes as many.

    Attributes:
      rows: of the training set, by group, int32 ``[groups, m]``; the end of a shorter one is padding.
      sizes: of the groups, int32 ``[groups]``.
      steps: batches of an epoch.
      each: rows of a batch from each group.
    """

    rows: ArrayLike
    sizes: ArrayLike
    steps: int
    each: int


def grouped(rows: np.ndarray, share: int, groups: int, batch_size: int) -> Groups:
    """Rows in groups of neighbours.

    Args:
      rows: that an epoch visits, int ``[m]``.
      share: neighbours, rows of the training set, of a group.
      groups: how many.
      batch_size: B, a multiple of the groups.

    Raises:
      ArgumentError: some groups have so few of the rows that an epoch would visit those more than twice as often, or a
        batch some of them twice.
    """
    group = rows // share
    sizes = np.bincount(group, minlength=groups)
    if sizes.max() > _UNEVEN * sizes.min():
        raise ArgumentError(
            f"`shuffle_groups`={groups} cuts the training set into groups of which one has {sizes.min()} of the "
            f"{len(rows)} examples to visit and another {sizes.max()}: take fewer, or shuffle the data"
        )
    if sizes.min() < batch_size // groups:
        raise ArgumentError(
            f"`batch_size`={batch_size} takes {batch_size // groups} of each of {groups} `shuffle_groups`, and one has "
            f"{sizes.min()} examples to visit: take a smaller batch, or fewer groups"
        )
    table = np.zeros((groups, sizes.max()), np.int32)
    by_group = np.argsort(group, kind="stable")
    starts = np.cumsum(sizes) - sizes
    table[group[by_group], np.arange(len(rows)) - np.repeat(starts, sizes)] = rows[by_group]
    return Groups(table, sizes.astype(np.int32), len(rows) // batch_size, batch_size // groups)


def epoch_order(key: Array, epoch: ArrayLike, rows: ArrayLike | Groups, length: int) -> Array:
    """The order in which an epoch visits its rows, int32, padded to ``[length]``.

    A permutation of the rows. Of groups, every batch takes the same number of rows from each, in the groups' order; an
    epoch leaves out some rows of groups larger than the mean, and visits some of smaller ones twice.

    Args:
      key: of the training.
      epoch: counted from the start of all stages.
      rows: of the training set, int32 ``[m]``, or in groups.
      length: at least the rows that are visited.
    """
    key = jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch)
    if isinstance(rows, Groups):
        order = _of_groups(key, rows)
    else:
        order = jax.random.permutation(key, jnp.asarray(rows))
    return jnp.pad(order, (0, length - order.shape[0]))


compiled_order = jax.jit(epoch_order, static_argnums=3)


def _of_groups(key: Array, groups: Groups) -> Array:
    rows, sizes = jnp.asarray(groups.rows), jnp.asarray(groups.sizes)[:, None]
    place = jax.lax.broadcasted_iota(jnp.int32, rows.shape, 1)
    bits = jax.random.bits(key, rows.shape)
    _, _, shuffled = jax.lax.sort((place >= sizes, bits, rows), num_keys=2)  # padding to the end
    visit = jnp.arange(groups.steps * groups.each, dtype=jnp.int32)[None] % sizes
    visited = jnp.take_along_axis(shuffled, visit, axis=1).reshape(-1, groups.steps, groups.each)
    return visited.swapaxes(0, 1).reshape(-1)
