"""Which examples of one class stand for it: cosine density, and distance from denser examples."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import array, at_least, floating, mask
from nlx.prototypes.similarity import cosine_similarity, quantile


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
    if jnp.ndim(threshold):
        raise ValueError(f"threshold must be a scalar, got shape {jnp.shape(threshold)}")
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
    rho = array(density, "density")
    if rho.ndim != 1:
        raise ValueError(f"density must be [m], got {rho.shape}")
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
    at_least(1, count=count)
    lowest = -jnp.inf if jnp.issubdtype(score.dtype, jnp.floating) else jnp.iinfo(score.dtype).min
    given = min(count, score.shape[0])
    _, index = jax.lax.top_k(jnp.where(members, score, lowest), given)
    index = jnp.pad(index, (0, count - given)).astype(jnp.int32)
    valid = jnp.arange(count, dtype=jnp.int32) < jnp.sum(members, dtype=jnp.int32)
    return Selection(jnp.where(valid, index, 0), valid, qualified)


def _pairs(similarity: ArrayLike, where: ArrayLike | None) -> tuple[Array, Array]:
    s = floating(similarity, "similarity")
    if s.ndim != 2 or s.shape[0] != s.shape[1]:
        raise ValueError(f"similarity must be [m, m], got {s.shape}")
    return s, _members(where, s.shape[0])


def _members(where: ArrayLike | None, size: int) -> Array:
    members = mask(where, (size,))
    return jnp.ones(size, bool) if members is None else members


def _vector(x: ArrayLike, name: str, size: int) -> Array:
    x = array(x, name)
    if x.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {x.shape}")
    return x
