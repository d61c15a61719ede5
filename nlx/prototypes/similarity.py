"""Cosine similarity of features, and quantiles of it by bisection instead of a sort."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, float_order, floating, in_range, mask, working

_FINEST_SHARE = 10_000  # largest denominator of a quantile: its products with a remainder must fit in 31 bits
_FEWEST_HALVED = 256  # rows of a matrix product: smaller ones gain nothing
_LONGEST_ROW = 2**24  # elements: more could not be counted in float32


def unit(features: ArrayLike) -> Array:
    """Vectors of length 1 in the direction of the features; zero vectors remain zero.

    Args:
      features: float ``[..., d]``.

    Returns:
      Features' dtype ``[..., d]``.

    Examples:
      >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
      Array([[0.6, 0.8],
             [0. , 0. ]], dtype=float32)
    """
    features = floating(features, "features")
    if not features.ndim:
        raise ValueError("features must be [..., d], got a scalar")
    x = features.astype(working(features))
    largest, length = lengths(x)
    return as_type(x / largest / length, features.dtype)


def lengths(x: Array) -> tuple[Array, Array]:
    """Largest entry and length, in units of it, of vectors of any scale, whose squares may not be floats: ``[..., 1]``.

    Both are 1 for zero vectors.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0))
    some, one = largest > 0, jnp.ones_like(largest)
    largest = jnp.where(some, largest, one)
    return largest, jnp.sqrt(jnp.where(some, jnp.sum((x / largest) ** 2, axis=-1, keepdims=True), one))


def cosine_similarity(features: ArrayLike) -> Array:
    r"""Cosine of the angle between each two vectors.

    .. math:: S_{ij} = \frac{x_i^\top x_j}{\|x_i\| \|x_j\|}

    Args:
      features: float ``[m, d]``. The cosine of a zero vector with any vector, itself included, is 0.

    Returns:
      S, features' dtype ``[m, m]``.

    Raises:
      TypeError: features not floating.
      ValueError: features not a matrix.

    Examples:
      >>> cosine_similarity(jnp.array([[2.0, 0.0], [3.0, 4.0], [0.0, 0.0]])).round(1)
      Array([[1. , 0.6, 0. ],
             [0.6, 1. , 0. ],
             [0. , 0. , 0. ]], dtype=float32)

    References:
      Han et al., 2019, Eq. 5.
    """
    directions = unit(features)
    if directions.ndim != 2:
        raise ValueError(f"features must be [m, d], got {directions.shape}")
    return _products(directions)


def quantile(values: ArrayLike, share: float, *, where: ArrayLike | None = None) -> Array:
    """The value at a share of the elements in ascending order: an element itself, exact, without sorting.

    Of N elements it is the k-th smallest with k = max(1, ceil(share N)). The integers that order floats as their bits
    do are bisected, at one count over all elements per bit, instead of N log N steps of a sort.

    Args:
      values: float32, any shape with at most 2^24 elements in the last axis; no NaN.
      share: in [0, 1], taken as the nearest fraction with a denominator of at most 10,000.
      where: elements that count, bool in the shape of ``values``.

    Returns:
      A scalar, float32; NaN where nothing counts.

    Raises:
      TypeError: values not float32.
      ValueError: share outside [0, 1], rows too long, or shapes disagree.

    Examples:
      >>> print(quantile(jnp.array([0.3, 0.9, -0.5, 0.1, 0.7]), 0.4))
      0.1
    """
    values = floating(values, "values")
    if values.dtype != jnp.float32:
        raise TypeError(f"values must be float32, whose bits are bisected, got {values.dtype}")
    in_range(share, "share", 0, 1)
    values = jnp.atleast_1d(values)
    if values.shape[-1] > _LONGEST_ROW:
        raise ValueError(f"the last axis of values must have at most 2^24 elements, got {values.shape}")
    if not values.size:
        return jnp.full((), jnp.nan, jnp.float32)
    return _quantile(values, mask(where, values.shape), Fraction(share).limit_denominator(_FINEST_SHARE))


@partial(jax.jit, static_argnames="share")
def _quantile(values: Array, where: Array | None, share: Fraction) -> Array:
    count, high = jnp.int32(values.size), values
    if where is not None:
        count = jnp.sum(where, dtype=jnp.int32)
        # Elements that do not count are larger than any other, so that counts of smaller ones pass over them.
        high = jnp.where(where, values, -jnp.inf)
        values = jnp.where(where, values, jnp.inf)
    # share N in integers: 0.4 times 1280 squared must not depend on rounding, nor overflow.
    whole, rest = jnp.divmod(count, share.denominator)
    k = whole * share.numerator - (-rest * share.numerator // share.denominator)
    k = jnp.maximum(k, 1)

    # Each pass counts a row in float32, which is exact up to 2^24 and twice as fast as in int32 on CPUs.
    def narrower(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, rounded down, without overflow
        below = jnp.sum((values <= _float_of(middle)).astype(jnp.float32), axis=-1)
        enough = jnp.sum(below.astype(jnp.int32), dtype=jnp.int32) >= k
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # From the least element to the largest: cosines lie close together, which saves a third of the bits.
    bounds = float_order(jnp.min(values)), float_order(jnp.max(high))
    _, key = jax.lax.while_loop(lambda bounds: bounds[0] < bounds[1], narrower, bounds)
    return jnp.where(count > 0, _float_of(key), jnp.nan)


def _products(x: Array) -> Array:
    """Inner products of each two rows, ``[m, m]``."""
    if x.shape[0] <= _FEWEST_HALVED:
        return _whole(x)
    # Off the CPU, joining halves costs more than it saves.
    return jax.lax.platform_dependent(x, cpu=_by_halves, default=_whole)


def _whole(x: Array) -> Array:
    # Accelerators would round the factors to 10 bits, and cosines are compared with each other and with a limit.
    return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)


def _by_halves(x: Array) -> Array:
    """Those across halves are computed once and mirrored."""
    if x.shape[0] <= _FEWEST_HALVED:
        return _whole(x)
    upper, lower = jnp.split(x, [x.shape[0] // 2])
    across = jnp.matmul(lower, upper.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate(
        [
            jnp.concatenate([_by_halves(upper), across.T], axis=1),
            jnp.concatenate([across, _by_halves(lower)], axis=1),
        ]
    )


def _float_of(key: Array) -> Array:
    return jax.lax.bitcast_convert_type(jnp.where(key < 0, key ^ 0x7FFFFFFF, key), jnp.float32)
