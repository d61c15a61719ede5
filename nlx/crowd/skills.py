"""Models of annotators with one skill each: one-coin Dawid-Skene, and MACE."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import in_range
from nlx.crowd.em import SKILL, Consensus, Known, Model, em, prepared
from nlx.crowd.sums import Sizes, Sums


def one_coin(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_items: int,
    num_annotators: int,
    num_classes: int,
    right: float = 1.0,
    wrong: float = 0.5,
    log_prior: ArrayLike | None = None,
    trusted: ArrayLike | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Consensus:
    r"""One-coin Dawid-Skene: an annotator is right with one probability, and else gives any other class.

    .. math:: s_a = \frac{\sum_i n^a_{ii} + r}{\sum_{ij} n^a_{ij} + r + w}, \qquad
        T^a_{ij} = s_a\,[i = j] + \frac{1 - s_a}{K - 1}\,[i \ne j]

    Args:
      items: as in :func:`dawid_skene`, and so are the others that are not named here.
      annotators: likewise.
      labels: likewise.
      num_items: N.
      num_annotators: A.
      num_classes: K, at least 2.
      right: r, right answers added for everyone, of a Beta prior, at least 0.
      wrong: w, wrong ones.
      log_prior: log p(true class) of each item, float ``[N, K]``.
      trusted: true classes where they are known.
      iterations: of EM, at most.
      tolerance: EM ends where no probability changes by more.

    Returns:
      Beliefs about items and annotators, float32; skills are the diagonals.

    Raises:
      TypeError, ValueError: as there, or fewer than 2 classes.

    References:
      Zhang et al., 2016.
    """
    sizes, sums, known = prepared(
        items, annotators, labels, num_items, num_annotators, num_classes, log_prior, trusted, iterations
    )
    for name, value in (("right", right), ("wrong", wrong), ("tolerance", tolerance)):
        in_range(value, name, 0)
    prior = jnp.array([right, wrong], jnp.float32)
    return _one_coin(sums, sizes, known, prior, jnp.int32(iterations), jnp.float32(tolerance))


@partial(jax.jit, static_argnames="sizes")
def _one_coin(sums: Sums, sizes: Sizes, known: Known, prior: Array, iterations: Array, tolerance: Array) -> Consensus:
    k = sizes.classes

    def update(before: Array, counts: Array) -> Array:
        del before
        total = jnp.sum(counts, axis=(1, 2)) + prior[0] + prior[1]
        right = jnp.trace(counts, axis1=1, axis2=2) + prior[0]
        return jnp.where(total > 0, right / jnp.where(total > 0, total, 1.0), 0.5)

    def confusion(skill: Array) -> Array:
        skill = skill[:, None, None]
        return jnp.where(jnp.eye(k, dtype=bool)[None], skill, (1 - skill) / (k - 1))

    start = jnp.full(sizes.annotators, SKILL, jnp.float32)
    return em(sums, sizes, known, Model(start, update, confusion), iterations, tolerance)


def mace(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_items: int,
    num_annotators: int,
    num_classes: int,
    knowing: float = 0.5,
    guessing: float = 0.5,
    smoothing: float = 0.1,
    log_prior: ArrayLike | None = None,
    trusted: ArrayLike | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Consensus:
    r"""MACE: an annotator either knows the true class or answers by a habit that does not depend on it.

    .. math:: T^a_{ij} = \theta_a\,[i = j] + (1 - \theta_a)\,\xi^a_j

    Args:
      items: as in :func:`dawid_skene`, and so are the others that are not named here.
      annotators: likewise.
      labels: likewise.
      num_items: N.
      num_annotators: A.
      num_classes: K, at least 2.
      knowing: answers known, added for everyone, of a Beta prior on theta, at least 0.
      guessing: answers guessed, likewise.
      smoothing: answers added to every class of the habit, of a Dirichlet prior, at least 0.
      log_prior: log p(true class) of each item, float ``[N, K]``.
      trusted: true classes where they are known.
      iterations: of EM, at most.
      tolerance: EM ends where no probability changes by more.

    Returns:
      Beliefs about items and annotators, float32.

    Raises:
      TypeError, ValueError: as there, or fewer than 2 classes.

    References:
      Hovy et al., 2013 (EM with smoothing; the class prior is learnt).
    """
    sizes, sums, known = prepared(
        items, annotators, labels, num_items, num_annotators, num_classes, log_prior, trusted, iterations
    )
    named = {"knowing": knowing, "guessing": guessing, "smoothing": smoothing, "tolerance": tolerance}
    for name, value in named.items():
        in_range(value, name, 0)
    prior = jnp.array([knowing, guessing, smoothing], jnp.float32)
    return _mace(sums, sizes, known, prior, jnp.int32(iterations), jnp.float32(tolerance))


@partial(jax.jit, static_argnames="sizes")
def _mace(sums: Sums, sizes: Sizes, known: Known, prior: Array, iterations: Array, tolerance: Array) -> Consensus:
    k = sizes.classes

    def update(before: tuple[Array, Array], counts: Array) -> tuple[Array, Array]:
        theta, habit = before
        right, given = jnp.diagonal(counts, axis1=1, axis2=2), jnp.sum(counts, axis=1)
        by_habit = (1 - theta)[:, None] * habit
        known_share = theta[:, None] / jnp.maximum(theta[:, None] + by_habit, 1e-30)
        knew = right * known_share
        guessed = given - knew + prior[2]
        total = jnp.sum(given, axis=1) + prior[0] + prior[1]
        theta = jnp.where(total > 0, (jnp.sum(knew, axis=1) + prior[0]) / jnp.where(total > 0, total, 1.0), 0.5)
        mass = jnp.sum(guessed, axis=1, keepdims=True)
        return theta, jnp.where(mass > 0, guessed / jnp.where(mass > 0, mass, 1.0), 1 / k)

    def confusion(parameters: tuple[Array, Array]) -> Array:
        theta, habit = parameters[0][:, None, None], parameters[1][:, None, :]
        return theta * jnp.eye(k, dtype=jnp.float32)[None] + (1 - theta) * habit

    # With this share of answers known and the others at random, everyone is right as often as in the other models.
    knows = jnp.full(sizes.annotators, (SKILL - 1 / k) / (1 - 1 / k), jnp.float32)
    start = knows, jnp.full((sizes.annotators, k), 1 / k, jnp.float32)
    return em(sums, sizes, known, Model(start, update, confusion), iterations, tolerance)
