"""Labels by resemblance: the class whose prototypes an example is nearest to."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, at_least, floating, mask, varying, working
from nlx.prototypes.similarity import lengths

_MOST_STRETCHES = 256
_MOST_BYTES = 2**28  # of scores that are held at a time


class Correction(NamedTuple):
    """Corrected labels.

    Attributes:
      label: the class of highest score, int32 ``[n]``; of equal ones the lower, and -1 where no class has a prototype.
      margin: by how much its score exceeds the next, float ``[n]`` in [0, 2]. Where there is no next, it is
        compared with -1, the lowest cosine.
    """

    label: Array
    margin: Array


def class_scores(features: ArrayLike, mean: ArrayLike, present: ArrayLike) -> Array:
    r"""Mean cosine of each example with the prototypes of each class.

    .. math:: \sigma_c = \frac1p \sum_l \cos(x, x_{cl}) = \frac{x^\top}{\|x\|} \, \frac1p \sum_l
       \frac{x_{cl}}{\|x_{cl}\|}

    so that one matrix product with the means of the unit prototypes serves, instead of one with all of them.

    Args:
      features: float ``[n, d]``; a zero vector has cosine 0 with everything.
      mean: mean unit prototype of each class, float ``[K, d]``.
      present: which classes have a prototype, bool ``[K]``; the others score minus infinity.

    Returns:
      sigma, features' dtype ``[n, K]``: a score in [-1, 1], not a probability.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> class_scores(jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 0.0], [0.6, 0.8]]), jnp.array([True, True]))
      Array([[0. , 0.8]], dtype=float32)

    References:
      Han et al., 2019, Eq. 8.
    """
    x, mean, present = floating(features, "features"), floating(mean, "mean"), jnp.asarray(present)
    if x.ndim != 2 or mean.ndim != 2 or x.shape[1] != mean.shape[1] or present.shape != mean.shape[:1]:
        raise ValueError(
            f"features must be [n, d], mean [K, d] and present [K], got {x.shape}, {mean.shape} and {present.shape}"
        )
    dtype = working(x)
    # The product is divided by the length, not the features: they are read, never copied.
    inner = jnp.matmul(x, mean.astype(x.dtype).T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=dtype)
    largest, length = lengths(x.astype(dtype))
    cosine = as_type(inner / largest / length, x.dtype)
    return jnp.where(mask(present, mean.shape[:1], "present")[None, :], cosine, -jnp.inf)


def decide(scores: ArrayLike) -> Correction:
    """The label of highest score, and how clear the decision is.

    Args:
      scores: sigma, float ``[n, K]``; minus infinity for classes that cannot be chosen.

    Returns:
      The correction.

    Examples:
      >>> correction = decide(jnp.array([[0.5, 0.75], [0.0, -jnp.inf]]))
      >>> correction.label, correction.margin
      (Array([1, 0], dtype=int32), Array([0.25, 1.  ], dtype=float32))

    References:
      Han et al., 2019, Eq. 9.
    """
    scores = floating(scores, "scores")
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"scores must be [n, K] with at least 1 class, got {scores.shape}")
    label = jnp.argmax(scores, axis=1).astype(jnp.int32)
    best = jnp.max(scores, axis=1)
    chosen = jnp.arange(scores.shape[1], dtype=jnp.int32)[None, :] == label[:, None]
    next_best = jnp.maximum(jnp.max(jnp.where(chosen, -jnp.inf, scores), axis=1), -1.0)
    decided = best > -jnp.inf
    # A cosine of -1 may come out a rounding below it.
    return Correction(jnp.where(decided, label, -1), jnp.where(decided, jnp.maximum(best - next_best, 0.0), 0.0))


def correct(features: ArrayLike, mean: ArrayLike, present: ArrayLike, *, parts: int | None = None) -> Correction:
    """Label every example by its resemblance to the classes' prototypes.

    Args:
      features: float ``[n, d]``.
      mean: mean unit prototype of each class, float ``[K, d]``.
      present: which classes have a prototype, bool ``[K]``.
      parts: in how many parts the examples are taken, a divisor of n: the scores of only one part, ``[n / parts, K]``,
        are held at a time. On CPUs, parts whose features fit in the cache (2 MB) are the fastest as well. A part is
        as many examples of each of up to 256 stretches, so that where examples are sharded over devices, all of them
        work on each part. None for as few, a power of 2, as hold scores of 256 MiB at most, where n divides by it.

    Returns:
      The correction.

    Raises:
      ValueError: shapes disagree, or parts does not divide n.

    Examples:
      >>> x = jnp.array([[1.0, 0.1], [0.0, 3.0]])
      >>> correct(x, jnp.eye(2), jnp.array([True, True]), parts=2).label
      Array([0, 1], dtype=int32)

    References:
      Han et al., 2019, Eq. 8 and 9.
    """
    x = floating(features, "features")
    parts = _checked_parts(x, jnp.size(present), parts)
    if parts == 1:
        return decide(class_scores(x, mean, present))
    return _correct(x, floating(mean, "mean"), jnp.asarray(present), parts)


def stored_scores(features: ArrayLike, mean: ArrayLike, present: ArrayLike, *, parts: int | None = None) -> Array:
    """The scores of :func:`class_scores` in half precision, to be kept. In parts, nothing as large is held beside.

    Args:
      features: see :func:`correct`.
      mean: likewise.
      present: likewise.
      parts: likewise.

    Returns:
      sigma, float16 ``[n, K]``, within 0.0005.

    Raises:
      ValueError: shapes disagree, or parts does not divide n.

    Examples:
      >>> stored_scores(jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 0.0], [0.6, 0.8]]), jnp.array([True, False]))
      Array([[  0., -inf]], dtype=float16)
    """
    x = floating(features, "features")
    parts = _checked_parts(x, jnp.size(present), parts)
    return _stored_scores(x, floating(mean, "mean"), jnp.asarray(present), parts)


def _checked_parts(x: Array, num_classes: int, parts: int | None) -> int:
    parts = _parts(len(x), num_classes) if parts is None else parts
    at_least(1, parts=parts)
    if parts > 1 and (x.ndim != 2 or x.shape[0] % parts):
        raise ValueError(f"features must be [n, d] with n a multiple of parts = {parts}, got {x.shape}")
    return parts


def _parts(size: int, num_classes: int) -> int:
    parts, most = 1, math.gcd(size, 2**16) or 1
    while parts < most and 4 * size * num_classes > parts * _MOST_BYTES:
        parts *= 2
    return parts


def _in_stretches(x: Array, parts: int) -> tuple[Array, int]:
    """Examples as ``[stretches, n / stretches, d]``, and how many of each stretch are in a part."""
    size, width = x.shape
    # Of 8 rows or a multiple of that, as a TPU lays them: otherwise it would lay them out anew.
    stretches = math.gcd(size // parts, size // 8 or 1, _MOST_STRETCHES)
    return x.reshape(stretches, -1, width), size // stretches // parts


def _part(rows: Array, i: Array, length: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(rows, i * length, length, axis=1).reshape(-1, rows.shape[2])


@partial(jax.jit, static_argnames="parts")
def _correct(x: Array, mean: Array, present: Array, parts: int) -> Correction:
    rows, length = _in_stretches(x, parts)
    corrections = jax.lax.map(
        lambda i: decide(class_scores(_part(rows, i, length), mean, present)), jnp.arange(parts, dtype=jnp.int32)
    )
    return jax.tree.map(lambda leaf: leaf.reshape(parts, len(rows), -1).swapaxes(0, 1).reshape(-1), corrections)


@partial(jax.jit, static_argnames="parts")
def _stored_scores(x: Array, mean: Array, present: Array, parts: int) -> Array:
    if parts == 1:
        return class_scores(x, mean, present).astype(jnp.float16)
    rows, length = _in_stretches(x, parts)

    def write(i: Array, kept: Array) -> Array:
        scores = class_scores(_part(rows, i, length), mean, present).astype(kept.dtype)
        part = scores.reshape(len(rows), length, len(mean))
        return jax.lax.dynamic_update_slice_in_dim(kept, part, i * length, axis=1)

    kept = varying(jnp.zeros((*rows.shape[:2], len(mean)), jnp.float16), x, mean, present)
    return jax.lax.fori_loop(0, parts, write, kept).reshape(len(x), len(mean))
