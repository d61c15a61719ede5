"""Cross-entropies: plain training on the labels as they are, hard or soft."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, class_labels, floating, mask, masked, probabilities, same_shape, working


def cross_entropy(logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy against one class per example: plain training on the labels as they are.

    .. math:: \ell = -\log \mathrm{softmax}(\text{logits})_{\tilde y}

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree.

    Examples:
      >>> print(cross_entropy(jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([1, 0])).round(2))
      [0.69 0.13]
    """
    return per_label(logits, labels, where, negative_log_likelihood)


def soft_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy against a distribution over classes, such as a posterior over the true label.

    .. math:: \ell = -\sum_k q_k \log \mathrm{softmax}(\text{logits})_k

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      targets: q, float ``[..., K]``; rows need not sum to 1 (a row of zeros gives 0). Below 0 they give NaN, and are
        refused where known.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or targets not floating.
      ValueError: shapes disagree, or a target known before tracing is below 0.

    Examples:
      >>> print(f"{soft_cross_entropy(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.5, 0.5, 0.0])):.3f}")
      1.051
    """
    return per_target(logits, targets, where, lambda x: -jax.nn.log_softmax(x))


def binary_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy of K independent Bernoullis, summed over classes: plain training on multi-label data.

    .. math:: \ell = -\sum_k t_k \log \sigma(l_k) + (1 - t_k) \log(1 - \sigma(l_k))

    Args:
      logits: log-odds of each class, float ``[..., K]``.
      targets: {0, 1} labels or probabilities, float ``[..., K]``; others give NaN, and are refused where known.
      where: classes that count, bool ``[..., K]`` (unknown tags can be left out); the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or targets not floating.
      ValueError: shapes disagree, or a target known before tracing is outside [0, 1].

    Examples:
      >>> print(f"{binary_cross_entropy(jnp.array([0.0, 3.0]), jnp.array([1.0, 1.0])):.3f}")
      0.742
    """
    logits = floating(logits, "logits")
    counts = mask(where, logits.shape)
    same_shape("logits", logits.shape, "targets", jnp.shape(targets))
    probs, are = probabilities(targets, "targets", counts)
    x, t = (masked(a.astype(working(logits)), counts) for a in (logits, probs))
    return as_type(jnp.sum(masked(jnp.where(are, bernoulli_loss(x, t), jnp.nan), counts), axis=-1), logits.dtype)


def per_label(
    logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None, loss: Callable[[Array, Array], Array]
) -> Array:
    """A loss ``[...]`` of logits ``[..., K]`` and classes ``[...]``; 0 where masked, NaN where a label is no class."""
    x = floating(logits, "logits")
    if x.ndim < 1:
        raise ValueError("logits must be [..., K], got a scalar")
    y = class_labels(labels, "labels", x.shape[-1])
    same_shape("logits[..., 0]", x.shape[:-1], "labels", y.shape)
    counts = mask(where, y.shape)
    values = loss(masked(x.astype(working(x)), counts), jnp.maximum(y, 0))
    return as_type(masked(jnp.where(y >= 0, values, jnp.nan), counts), x.dtype)


def per_target(
    logits: ArrayLike, targets: ArrayLike, where: ArrayLike | None, losses: Callable[[Array], Array]
) -> Array:
    """The mean ``[...]`` of losses ``[..., K]`` of logits under targets; 0 where masked, NaN where one is below 0."""
    x = floating(logits, "logits")
    same_shape("logits", x.shape, "targets", jnp.shape(targets))
    counts = mask(where, x.shape[:-1])
    q, are = probabilities(targets, "targets", counts, np.inf)
    a, b = (masked(v.astype(working(x)), counts) for v in (x, q))
    values = jnp.where(jnp.all(are, axis=-1), jnp.sum(b * losses(a), axis=-1), jnp.nan)
    return as_type(masked(values, counts), x.dtype)


def negative_log_likelihood(x: Array, y: Array) -> Array:
    """-log softmax(x)_y; both terms are measured from the largest logit first, which keeps their digits."""
    top = highest(x)
    # Reading one entry and one log-sum-exp is cheaper than the whole log-softmax when K is large.
    picked = jnp.take_along_axis(x, y[..., None], axis=-1, mode="clip") - top
    return jnp.log(jnp.sum(jnp.exp(x - top), axis=-1)) - picked[..., 0]


def highest(x: Array) -> Array:
    """The largest logit ``[..., 1]``, held constant; 0 where it is infinite."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    return jnp.where(jnp.isfinite(top), top, 0.0)


def bernoulli_loss(x: Array, target: Array) -> Array:
    """-(t log sigma(x) + (1 - t) log sigma(-x)), in the form that loses no digits on either side."""
    positive = x > 0
    return x * (positive.astype(x.dtype) - target) + jax.nn.softplus(jnp.where(positive, -x, x))
