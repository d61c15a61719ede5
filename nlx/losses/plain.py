"""Cross-entropies: plain training on the labels as they are, hard or soft."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import floating, integers, masked, same_shape


def cross_entropy(logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy against one class per example: plain training on the labels as they are.

    .. math:: \ell = -\log \mathrm{softmax}(\text{logits})_{\tilde y}

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``.
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
    logits = floating(logits, "logits")
    labels = integers(labels, "labels")
    same_shape("logits[..., 0]", logits.shape[:-1], "labels", labels.shape)
    # Reading one entry and one log-sum-exp is cheaper than the whole log-softmax when K is large.
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return masked(jax.nn.logsumexp(logits, axis=-1) - picked, where)


def soft_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy against a distribution over classes, such as a posterior over the true label.

    .. math:: \ell = -\sum_k q_k \log \mathrm{softmax}(\text{logits})_k

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      targets: q, float ``[..., K]``; rows need not sum to 1 (a row of zeros gives 0).
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or targets not floating.
      ValueError: shapes disagree.

    Examples:
      >>> print(f"{soft_cross_entropy(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.5, 0.5, 0.0])):.3f}")
      1.051
    """
    logits = floating(logits, "logits")
    targets = floating(targets, "targets")
    same_shape("logits", logits.shape, "targets", targets.shape)
    return masked(-jnp.sum(targets.astype(logits.dtype) * jax.nn.log_softmax(logits), axis=-1), where)


def binary_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy of K independent Bernoullis, summed over classes: plain training on multi-label data.

    .. math:: \ell = -\sum_k t_k \log \sigma(l_k) + (1 - t_k) \log(1 - \sigma(l_k))

    Args:
      logits: log-odds of each class, float ``[..., K]``.
      targets: {0, 1} labels or probabilities, float ``[..., K]``.
      where: classes that count, bool ``[..., K]`` (unknown tags can be left out); the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or targets not floating.
      ValueError: shapes disagree.

    Examples:
      >>> print(f"{binary_cross_entropy(jnp.array([0.0, 3.0]), jnp.array([1.0, 1.0])):.3f}")
      0.742
    """
    logits = floating(logits, "logits")
    targets = floating(targets, "targets")
    same_shape("logits", logits.shape, "targets", targets.shape)
    # 1 - sigmoid(l) is sigmoid(-l), and log sigmoid(l) - log sigmoid(-l) is l itself: one softplus serves both cases.
    per_class = jax.nn.softplus(logits) - targets.astype(logits.dtype) * logits
    return jnp.sum(masked(per_class, where), axis=-1)
