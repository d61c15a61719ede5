"""Which examples of one class stand for it: cosine density, and distance from denser examples."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import floating

_FINEST_SHARE = 10_000  # largest denominator of a quantile: its products with a remainder must fit in 31 bits
_FEWEST_HALVED = 256  # rows of a matrix product: smaller ones gain nothing
_LONGEST_ROW = 2**24  # elements: more could not be counted in float32


class Selection(NamedTuple):
    """The prototypes of one class.

    Attributes:
      rows: of the features that the class was selected from, int32 ``[p]``; 0 where there is none.
      valid: which of them are prototypes, bool ``[p]``: all, unless the class has fewer members than p.
      qualified: how many members met the criterion, int32 scalar. Where it is below p, the others are fill-up.
    """

    rows: Array
    valid: Array
    qualified: Array


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
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.where(length > 0, length, jnp.ones_like(length))


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
    values = jnp.asarray(values)
    if values.dtype != jnp.float32:
        raise TypeError(f"values must be float32, whose bits are bisected, got {values.dtype}")
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    values = jnp.atleast_1d(values)
    if values.shape[-1] > _LONGEST_ROW:
        raise ValueError(f"the last axis of values must have at most 2^24 elements, got {values.shape}")
    count = jnp.int32(values.size)
    high = values
    if where is not None:
        where = _mask(where, values.shape)
        count = jnp.sum(where, dtype=jnp.int32)
        # Elements that do not count are larger than any other, so that counts of smaller ones pass over them.
        high = jnp.where(where, values, -jnp.inf)
        values = jnp.where(where, values, jnp.inf)
    # share N in integers: 0.4 times 1280 squared must not depend on rounding, nor overflow.
    fraction = Fraction(share).limit_denominator(_FINEST_SHARE)
    whole, rest = jnp.divmod(count, fraction.denominator)
    k = whole * fraction.numerator - (-rest * fraction.numerator // fraction.denominator)
    k = jnp.maximum(k, 1)

    # Each pass counts a row in float32, which is exact up to 2^24 and twice as fast as in int32 on CPUs.
    def narrower(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, rounded down, without overflow
        below = jnp.sum((values <= _float_of(middle)).astype(jnp.float32), axis=-1)
        enough = jnp.sum(below.astype(jnp.int32)) >= k
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # From the least element to the largest: cosines lie close together, which saves a third of the bits.
    bounds = _key_of(jnp.min(values)), _key_of(jnp.max(high))
    found = jax.lax.while_loop(lambda bounds: bounds[0] < bounds[1], narrower, bounds)[1]
    return jnp.where(count > 0, _float_of(found), jnp.nan)


def density(similarity: ArrayLike, threshold: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""How many more members resemble each member closely than do not.

    .. math:: \rho_i = \sum_j \mathrm{sign}(S_{ij} - S_c)

    The diagonal counts. S_c is an element of S, so that rounding of S may flip a sign(0) and move :math:`\rho` by one
    or two: compare on the same S.

    Args:
      similarity: S, float ``[m, m]``.
      threshold: S_c, float scalar.
      where: members, bool ``[m]``; the others are not counted.

    Returns:
      int32 ``[m]``; 0 for those that are no members.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> density(jnp.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.5], [0.2, 0.5, 1.0]]), 0.5)
      Array([1, 2, 0], dtype=int32)

    References:
      Han et al., 2019, Eq. 6.
    """
    s, members = _pairs(similarity, where)
    sign = (s > threshold).astype(jnp.int32) - (s < threshold).astype(jnp.int32)
    return jnp.sum(jnp.where(members[:, None] & members[None, :], sign, 0), axis=1, dtype=jnp.int32)


def separation(similarity: ArrayLike, density: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""How close each member is to the nearest denser one.

    .. math:: \eta_i = \max_{j: \rho_j > \rho_i} S_{ij}, \quad \eta_i = \min_j S_{ij} \text{ where }
       \rho_i = \rho_{\max}

    Since only strictly denser members count, no member is compared with itself. All that share the highest density
    take the minimum.

    Args:
      similarity: S, float ``[m, m]``.
      density: rho, int or float ``[m]``.
      where: members, bool ``[m]``; the others are not compared with.

    Returns:
      Similarity's dtype ``[m]``; infinite for those that are no members.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> separation(jnp.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.5], [0.2, 0.5, 1.0]]), jnp.array([1, 2, 0]))
      Array([0.9, 0.5, 0.5], dtype=float32)

    References:
      Han et al., 2019, Eq. 7.
    """
    s, members = _pairs(similarity, where)
    rho = _vector(density, "density", s.shape[0])
    denser = (rho[None, :] > rho[:, None]) & members[None, :]
    nearest = jnp.max(jnp.where(denser, s, -jnp.inf), axis=1)
    farthest = jnp.min(jnp.where(members[None, :], s, jnp.inf), axis=1)
    return jnp.where(members, jnp.where(jnp.any(denser, axis=1), nearest, farthest), jnp.inf)


def select(
    density: ArrayLike, separation: ArrayLike, count: int, *, limit: float = 0.95, where: ArrayLike | None = None
) -> Selection:
    """The densest members that are not too close to a denser one, filled up with the densest of the others.

    Args:
      density: rho, int ``[m]``, within [-m, m].
      separation: eta, float ``[m]``.
      count: p, how many.
      limit: members with eta below it qualify.
      where: members, bool ``[m]``.

    Returns:
      The selection: those that qualify first, each part from the highest density down, of equal ones the lower index
      first.

    Raises:
      ValueError: shapes disagree, or count < 1.

    Examples:
      >>> select(jnp.array([1, 3, 2]), jnp.array([0.5, 0.1, 0.99]), 3).rows
      Array([1, 0, 2], dtype=int32)

    References:
      Han et al., 2019, section 3.3.
    """
    rho = jnp.asarray(density)
    eta = _vector(separation, "separation", rho.shape[0])
    members = _members(where, rho.shape[0])
    qualifies = members & (eta < limit)
    span = 2 * rho.shape[0] + 1  # lifts those that qualify above the densest of the others
    return top(jnp.where(qualifies, rho + span, rho), members, jnp.sum(qualifies, dtype=jnp.int32), count)


def by_density(
    key: Array, features: Array, where: Array, count: int, *, share: float = 0.4, limit: float = 0.95
) -> Selection:
    """The paper's prototypes of one class: quantile, density, separation and selection in one.

    Args:
      key: not used; other selectors draw.
      features: of the members, float32 ``[m, d]``.
      where: members, bool ``[m]``; the other rows are padding.
      count: p, how many.
      share: the value at this share of S's elements in ascending order is the threshold S_c (paper 0.4).
      limit: of eta (paper 0.95).

    Returns:
      The selection.

    Raises:
      TypeError: features not float32.
      ValueError: shapes disagree.

    References:
      Han et al., 2019, section 3.3.
    """
    del key
    s = cosine_similarity(features)
    members = _members(where, s.shape[0])
    threshold = quantile(s, share, where=members[:, None] & members[None, :])
    rho = density(s, threshold, where=members)
    return select(rho, separation(s, rho, where=members), count, limit=limit, where=members)


def top(score: Array, members: Array, qualified: Array, count: int) -> Selection:
    """The members of highest score ``[m]``, of equal ones the lower index first."""
    if count < 1:
        raise ValueError(f"count (prototypes per class) must be at least 1, got {count}")
    lowest = -jnp.inf if jnp.issubdtype(score.dtype, jnp.floating) else jnp.iinfo(score.dtype).min
    given = min(count, score.shape[0])
    _, index = jax.lax.top_k(jnp.where(members, score, lowest), given)
    index = jnp.pad(index, (0, count - given)).astype(jnp.int32)
    valid = jnp.arange(count) < jnp.sum(members, dtype=jnp.int32)
    return Selection(jnp.where(valid, index, 0), valid, qualified)


def _products(x: Array) -> Array:
    """Inner products of each two rows, ``[m, m]``: those across halves are computed once and mirrored."""
    if x.shape[0] <= _FEWEST_HALVED:
        # Accelerators would round the factors to 10 bits, and cosines are compared with each other and with a limit.
        return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    upper, lower = jnp.split(x, [x.shape[0] // 2])
    across = jnp.matmul(lower, upper.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate(
        [
            jnp.concatenate([_products(upper), across.T], axis=1),
            jnp.concatenate([across, _products(lower)], axis=1),
        ]
    )


def _key_of(x: Array) -> Array:
    """Integers that sort as the floats do, int32."""
    # Adding 0 turns -0 into 0. Bits of positive floats sort as integers; those of negative ones in reverse.
    bits = jax.lax.bitcast_convert_type(x + 0.0, jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _float_of(key: Array) -> Array:
    return jax.lax.bitcast_convert_type(jnp.where(key < 0, key ^ 0x7FFFFFFF, key), jnp.float32)


def _pairs(similarity: ArrayLike, where: ArrayLike | None) -> tuple[Array, Array]:
    s = floating(similarity, "similarity")
    if s.ndim != 2 or s.shape[0] != s.shape[1]:
        raise ValueError(f"similarity must be [m, m], got {s.shape}")
    return s, _members(where, s.shape[0])


def _members(where: ArrayLike | None, size: int) -> Array:
    return jnp.ones(size, bool) if where is None else _mask(where, (size,))


def _mask(where: ArrayLike, shape: tuple[int, ...]) -> Array:
    where = jnp.asarray(where)
    if where.shape != shape or where.dtype != jnp.bool_:
        raise ValueError(f"where must be bool {shape}, got {where.dtype} {where.shape}")
    return where


def _vector(x: ArrayLike, name: str, size: int) -> Array:
    x = jnp.asarray(x)
    if x.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {x.shape}")
    return x
