"""The nearest other examples of each, exact, in bounded memory."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.prototypes.similarity import unit

NEIGHBOURS = 15
_BLOCK = 200  # rows whose similarities to all others are in memory at once
_GROUP = 64  # of these similarities, whose maximum is looked at first


def neighbours(features: ArrayLike, k: int = NEIGHBOURS) -> np.ndarray:
    """The nearest other examples of each by cosine, exact, nearest first.

    Args:
      features: float ``[n, F]``.
      k: how many, from 1 to n - 1.

    Returns:
      Their rows, int32 ``[n, k]``. Time goes with n² F, memory with 200 n.

    Raises:
      ArgumentError: k out of range.

    Examples:
      >>> neighbours(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), 1).tolist()
      [[1], [0], [3], [2]]
    """
    n = len(np.asarray(features))
    if not 1 <= k < n:
        raise ArgumentError(f"`k` must lie between 1 and {n - 1}, the other examples, got {k}")
    directions = unit(jnp.asarray(features, jnp.float32))
    rows, parts = min(_BLOCK, n), []
    for start in range(0, n, rows):
        begin = min(start, n - rows)  # the last block begins early enough to be whole
        parts.append(np.asarray(_nearest(directions, jnp.int32(begin), rows, k))[start - begin :])
    return np.concatenate(parts)


@partial(jax.jit, static_argnames=("rows", "k"))
def _nearest(directions: Array, begin: Array, rows: int, k: int) -> Array:
    cosines = jax.lax.dynamic_slice_in_dim(directions, begin, rows) @ directions.T
    # What is largest lies in the groups of largest maximum, so that what is sorted are few; one more than k, since an
    # example finds itself.
    whole = len(directions) // _GROUP * _GROUP
    groups = cosines[:, :whole].reshape(rows, -1, _GROUP)
    best = jax.lax.top_k(jnp.max(groups, axis=2, initial=-jnp.inf), min(k + 1, groups.shape[1]))[1]
    inside = jnp.take_along_axis(groups, best[:, :, None], axis=1).reshape(rows, -1)
    columns = (best[:, :, None] * _GROUP + jnp.arange(_GROUP)[None, None]).reshape(rows, -1)
    rest = jnp.broadcast_to(jnp.arange(whole, len(directions))[None], (rows, len(directions) - whole))
    candidates = jnp.concatenate([inside, cosines[:, whole:]], axis=1)
    columns = jnp.concatenate([columns, rest], axis=1)
    own = begin + jnp.arange(rows)[:, None]
    places = jax.lax.top_k(jnp.where(columns == own, -jnp.inf, candidates), k)[1]
    return jnp.take_along_axis(columns, places, axis=1).astype(jnp.int32)
