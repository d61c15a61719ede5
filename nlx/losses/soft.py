"""Losses against distributions over noisy labels, with a transition matrix or without."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import distributions, floating, in_range, same_shape
from nlx.losses.corrected import mixture_loss, slope_limit
from nlx.losses.plain import per_label, per_target


def soft_forward_corrected(
    logits: ArrayLike, targets: ArrayLike, transition: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropy against a distribution over noisy labels, through the transition matrix that made them noisy.

    .. math:: \ell = -\sum_j q_j \log \sum_i T_{ij}\, \mathrm{softmax}(\text{logits})_i

    For votes of several annotators, or soft labels of another model. Every column of T is read, in log space, so that
    it costs K times as much as :func:`nlx.losses.forward_corrected`.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      targets: q, the distribution over noisy labels, float ``[..., K]``; rows need not sum to 1. Below 0
        they give NaN, and are refused where known.
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example; a class that T cannot give counts 1e6 times its q.

    Raises:
      TypeError: logits, targets or transition not floating.
      ValueError: shapes disagree, or of what is known before tracing a target is below 0 or a row of the matrix does
        not sum to 1.

    Examples:
      >>> T = jnp.array([[0.8, 0.2], [0.3, 0.7]])
      >>> print(f"{soft_forward_corrected(jnp.array([0.0, 0.0]), jnp.array([0.0, 1.0]), T):.3f}")
      0.799

    References:
      Patrini et al., Making Deep Neural Networks Robust to Label Noise, 2017, Theorem 2, with soft labels.
    """
    t = floating(transition, "transition")
    same_shape("transition", t.shape, "[K, K]", jnp.shape(logits)[-1:] * 2)
    distributions(transition, "transition")
    return per_target(logits, targets, where, lambda x: _of_every_label(x, t))


def label_smoothing(
    logits: ArrayLike,
    labels: ArrayLike,
    rate: float = 0.1,
    transition: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
) -> Array:
    r"""Cross-entropy against the label with a share of it spread over all classes, through T where it is given.

    .. math:: \ell = -\sum_j \Bigl((1 - r)\,[j = \tilde y] + \frac{r}{K}\Bigr)
       \log \sum_i T_{ij}\, \mathrm{softmax}(\text{logits})_i

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      rate: r, the share that is spread, in [0, 1].
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``; None for the identity.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or transition not floating, or labels not integer.
      ValueError: shapes disagree, rate outside [0, 1], or a matrix known before tracing has a row that does not sum
        to 1.

    Examples:
      >>> print(f"{label_smoothing(jnp.array([2.0, 0.0]), jnp.array(0), rate=0.5):.3f}")
      0.627

    References:
      Szegedy et al., Rethinking the Inception Architecture, 2016; Lukasik et al., Does Label Smoothing Mitigate Label
      Noise?, 2020.
    """
    in_range(rate, "rate", 0, 1)
    t = None if transition is None else floating(transition, "transition")

    def loss(x: Array, y: Array) -> Array:
        if t is None or transition is None:
            each = -jax.nn.log_softmax(x)
        else:
            same_shape("transition", t.shape, "[K, K]", (x.shape[-1],) * 2)
            distributions(transition, "transition")  # as it was given: a tracer's rows could not be checked
            each = _of_every_label(x, t)
        given = jnp.take_along_axis(each, y[..., None], axis=-1, mode="clip")[..., 0]
        return (1 - rate) * given + rate * jnp.mean(each, axis=-1)

    return per_label(logits, labels, where, loss)


def _of_every_label(x: Array, transition: Array) -> Array:
    """-log sum_i T_ij softmax(x)_i for every j, ``[..., K]``."""
    columns = transition.T.astype(x.dtype).reshape((1,) * (x.ndim - 1) + transition.shape)
    wide = jnp.broadcast_to(x[..., None, :], (*x.shape, x.shape[-1]))
    return mixture_loss(wide, jnp.broadcast_to(columns, wide.shape), slope_limit(transition, x.size))
