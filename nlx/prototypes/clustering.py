"""Prototypes by clustering, to compare with: K-means++ and density peaks by Euclidean distance."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, floating, in_range, mask, typed_key, varying
from nlx.prototypes.density import Selection, separation, top
from nlx.prototypes.similarity import quantile


def by_kmeans(key: Array, features: ArrayLike, where: ArrayLike, count: int, *, steps: int = 100) -> Selection:
    """Prototypes of one class as the members nearest to the centres of p clusters.

    Seeds are drawn one after the other in proportion to the squared distance from those before; Lloyd's steps follow
    until no member changes its cluster. The prototype of a cluster is its member nearest to the centre, not the centre
    itself, which no example has.

    Args:
      key: a PRNG key.
      features: of the members, float32 ``[m, d]``.
      where: members, bool ``[m]``; the other rows are padding.
      count: p, how many clusters.
      steps: Lloyd steps at most.

    Returns:
      The selection; ``valid`` is False for empty clusters, which happens where there are fewer than p distinct
      members, and ``qualified`` counts the others.

    Raises:
      ValueError: count < 1.

    References:
      Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007; Han et al., 2019, Table 4.
    """
    at_least(1, count=count)
    at_least(0, steps=steps)
    return _kmeans(typed_key(key), *_checked(features, where), count, steps)


@partial(jax.jit, static_argnames=("count", "steps"))
def _kmeans(key: Array, features: Array, where: Array, count: int, steps: int) -> Selection:
    lengths = jnp.sum(features**2, axis=1, keepdims=True)
    numbers = jnp.arange(count, dtype=jnp.int32)

    def seed(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, nearest = carry
        # Before the first seed all members are equally far away. Once every one is a seed or equal to one, any row may
        # come out, but no member is nearer to it than to its own seed: the cluster stays empty.
        chosen = jax.random.categorical(jax.random.fold_in(key, i), jnp.log(nearest))
        point = features[chosen]
        distance = jnp.sum((features - point[None, :]) ** 2, axis=1)
        return centres.at[i].set(point), jnp.where(where, jnp.minimum(nearest, distance), 0.0)

    start = jnp.where(where, jnp.finfo(features.dtype).max, 0.0)
    centres = varying(jnp.zeros((count, features.shape[1]), features.dtype), features, where, jax.random.key_data(key))
    start = varying(start, features, jax.random.key_data(key))
    centres, _ = jax.lax.fori_loop(0, count, seed, (centres, start))

    def distances(centres: Array) -> Array:
        """Squared, ``[m, p]``."""
        inner = jnp.matmul(features, centres.T, precision=jax.lax.Precision.HIGHEST)
        return lengths - 2 * inner + jnp.sum(centres**2, axis=1)[None, :]

    def assign(centres: Array) -> Array:
        """The cluster of each member ``[m]``; p for those that are none."""
        return jnp.where(where, jnp.argmin(distances(centres), axis=1).astype(jnp.int32), count)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        done, centres, cluster, _ = carry
        belongs = (cluster[None, :] == numbers[:, None]).astype(features.dtype)
        sizes = jnp.sum(belongs, axis=1, keepdims=True)
        sums = jnp.matmul(belongs, jnp.where(where[:, None], features, 0.0), precision=jax.lax.Precision.HIGHEST)
        centres = jnp.where(sizes > 0, sums / jnp.maximum(sizes, 1), centres)
        moved = assign(centres)
        return done + 1, centres, moved, jnp.any(moved != cluster)

    carry = jnp.int32(0), centres, assign(centres), varying(jnp.bool_(True), centres)
    _, centres, cluster, _ = jax.lax.while_loop(lambda carry: carry[3] & (carry[0] < steps), step, carry)
    own = jnp.where(cluster[:, None] == numbers[None, :], distances(centres), jnp.inf)
    index = jnp.argmin(own, axis=0).astype(jnp.int32)
    valid = jnp.any(cluster[:, None] == numbers[None, :], axis=0)
    return Selection(jnp.where(valid, index, 0), valid, jnp.sum(valid, dtype=jnp.int32))


def by_density_peaks(
    key: Array, features: ArrayLike, where: ArrayLike, count: int, *, share: float = 0.98
) -> Selection:
    r"""Prototypes of one class as the density peaks of its members by Euclidean distance.

    The members of highest :math:`\rho_i \delta_i`: the number of neighbours, times the distance from the nearest
    member with more of them (for those with most, from the farthest member). Where more than half of the members would
    have no neighbour but themselves, as in a class of fewer than 50, a neighbour is another member as near as the
    nearest one of half of the members, and of members with equally many the first counts as denser.

    Args:
      key: not used; other selectors draw.
      features: of the members, float32 ``[m, d]``.
      where: members, bool ``[m]``; the other rows are padding.
      count: p, how many.
      share: pairs nearer than all but the last 1 - share of pairs are neighbours (Rodriguez and Laio: 1 to 2 %).

    Returns:
      The selection; all members qualify.

    Raises:
      ValueError: count < 1.

    References:
      Rodriguez and Laio, Clustering by fast search and find of density peaks, 2014; Han et al., 2019, Table 4.
    """
    del key
    at_least(1, count=count)
    in_range(share, "share", 0, 1)
    return _density_peaks(*_checked(features, where), count, share)


@partial(jax.jit, static_argnames=("count", "share"))
def _density_peaks(features: Array, where: Array, count: int, share: float) -> Selection:
    lengths = jnp.sum(features**2, axis=1)
    inner = jnp.matmul(features, features.T, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.maximum(lengths[:, None] + lengths[None, :] - 2 * inner, 0.0)
    # The nearer, the more similar, so that one quantile and one separation serve both measures.
    similarity = -jnp.sqrt(squared)
    pairs = where[:, None] & where[None, :]
    nearest = jnp.max(jnp.where(pairs & ~jnp.eye(len(where), dtype=bool), similarity, -jnp.inf), axis=1)
    # Just below, for the members of that nearest pair are neighbours too.
    half = jnp.nextafter(quantile(nearest, 0.5, where=where), -jnp.inf)
    threshold = quantile(similarity, share, where=pairs)
    rho = jnp.sum(pairs & (similarity > jnp.minimum(threshold, half)), axis=1, dtype=jnp.int32)
    few = half < threshold
    rho = jnp.maximum(rho - few.astype(jnp.int32), 0)
    order = jnp.where(few, rho * len(where) - jnp.arange(len(where), dtype=jnp.int32), rho)
    delta = -separation(similarity, order, where=where)
    return top(rho.astype(delta.dtype) * delta, where, jnp.sum(where, dtype=jnp.int32), count)


def _checked(features: ArrayLike, where: ArrayLike) -> tuple[Array, Array]:
    x = floating(features, "features")
    if x.ndim != 2 or not x.shape[0] or x.dtype != jnp.float32:
        raise ValueError(f"features must be float32 [m, d] with m of at least 1, got {x.dtype} {x.shape}")
    members = mask(where, x.shape[:1])
    return x, members
