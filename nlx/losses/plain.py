"""Losses, one value per example: nothing here reduces over a batch, so that callers can weight, mask and rank.

All are computed from logits with log-softmax or log-sigmoid, never from clipped probabilities, so that values and
gradients stay finite at logits of any size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


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
    logits = _float(logits, "logits")
    labels = _int(labels, "labels")
    _same_shape("logits[..., 0]", logits.shape[:-1], "labels", labels.shape)
    # Reading one entry and one log-sum-exp is cheaper than the whole log-softmax when K is large.
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return _masked(jax.nn.logsumexp(logits, axis=-1) - picked, where)


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
    logits = _float(logits, "logits")
    targets = _float(targets, "targets")
    _same_shape("logits", logits.shape, "targets", targets.shape)
    return _masked(-jnp.sum(targets.astype(logits.dtype) * jax.nn.log_softmax(logits), axis=-1), where)


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
    logits = _float(logits, "logits")
    targets = _float(targets, "targets")
    _same_shape("logits", logits.shape, "targets", targets.shape)
    # 1 - sigmoid(l) is sigmoid(-l), and log sigmoid(l) - log sigmoid(-l) is l itself: one softplus serves both cases.
    per_class = jax.nn.softplus(logits) - targets.astype(logits.dtype) * logits
    return jnp.sum(_masked(per_class, where), axis=-1)


def _masked(values: Array, where: ArrayLike | None) -> Array:
    return values if where is None else jnp.where(where, values, jnp.zeros((), values.dtype))


def _float(x: ArrayLike, name: str) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {x.dtype}")
    return x


def _int(x: ArrayLike, name: str) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    return x


def _same_shape(name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> None:
    if shape != other_shape:
        raise ValueError(f"{name} {shape} and {other} {other_shape} must have the same shape")
