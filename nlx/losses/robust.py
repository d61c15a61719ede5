"""Losses that trust a label less the less the classifier believes it, and know nothing of how labels went wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import in_range, known
from nlx.losses.plain import negative_log_likelihood, per_label


def bootstrap_soft(
    logits: ArrayLike, labels: ArrayLike, beta: float = 0.95, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropy against a mixture of the label and the prediction itself.

    .. math:: \ell = -\sum_k \bigl(\beta\,[k = \tilde y] + (1 - \beta)\,p_k\bigr) \log p_k

    The target is held constant.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      beta: trust in the label, in [0, 1] (paper 0.95).
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or beta lies outside [0, 1].

    Examples:
      >>> print(f"{bootstrap_soft(jnp.array([2.0, 0.0]), jnp.array(1), beta=0.5):.3f}")
      1.246

    References:
      Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, 2014, Eq. 6.
    """
    in_range(beta, "beta", 0, 1)

    def loss(x: Array, y: Array) -> Array:
        log_probs = jax.nn.log_softmax(x)
        # A probability of 0 may meet a log-probability of any size; their product is 0 and finite.
        entropy = -jnp.sum(jax.lax.stop_gradient(jnp.exp(log_probs)) * log_probs, axis=-1)
        return beta * negative_log_likelihood(x, y) + (1 - beta) * entropy

    return per_label(logits, labels, where, loss)


def bootstrap_hard(logits: ArrayLike, labels: ArrayLike, beta: float = 0.8, *, where: ArrayLike | None = None) -> Array:
    r"""Cross-entropy against a mixture of the label and the most probable class.

    .. math:: \ell = -\beta \log p_{\tilde y} - (1 - \beta) \log \max_k p_k

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      beta: trust in the label, in [0, 1] (paper 0.8).
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or beta lies outside [0, 1].

    Examples:
      >>> print(f"{bootstrap_hard(jnp.array([2.0, 0.0]), jnp.array(1), beta=0.5):.3f}")
      1.127

    References:
      Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, 2014, Eq. 7.
    """
    in_range(beta, "beta", 0, 1)

    def loss(x: Array, y: Array) -> Array:
        likeliest = negative_log_likelihood(x, jnp.argmax(x, axis=-1))
        return beta * negative_log_likelihood(x, y) + (1 - beta) * likeliest

    return per_label(logits, labels, where, loss)


def generalized_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, q: float = 0.7, *, where: ArrayLike | None = None
) -> Array:
    r"""Between cross-entropy (q to 0) and mean absolute error (q = 1): wrong labels lose weight as p leaves them.

    .. math:: \ell = \frac{1 - p_{\tilde y}^q}{q}

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      q: in (0, 1] (paper 0.7).
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss, logits' dtype ``[...]``, one per example, in [0, 1/q].

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or q lies outside (0, 1].

    Examples:
      >>> print(f"{generalized_cross_entropy(jnp.array([0.0, 0.0]), jnp.array(1), q=0.5):.3f}")
      0.586

    References:
      Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, 2018.
    """
    in_range(q, "q", 0, 1, above=True)
    # 1 - exp(-q CE) without the cancellation at small losses.
    return per_label(logits, labels, where, lambda x, y: -jnp.expm1(-q * negative_log_likelihood(x, y)) / q)


def mean_absolute_error(logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""L1 distance of the prediction from the one-hot label; symmetric, so robust to uniform noise, and slow to learn.

    .. math:: \ell = \sum_k |p_k - [k = \tilde y]| = 2 (1 - p_{\tilde y})

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss, logits' dtype ``[...]``, one per example, in [0, 2].

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree.

    Examples:
      >>> print(mean_absolute_error(jnp.array([0.0, 0.0]), jnp.array(1)))
      1.0

    References:
      Ghosh et al., Robust Loss Functions under Label Noise for Deep Neural Networks, 2017.
    """
    return per_label(logits, labels, where, lambda x, y: -2 * jnp.expm1(-negative_log_likelihood(x, y)))


def symmetric_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    *,
    where: ArrayLike | None = None,
) -> Array:
    r"""Cross-entropy and its reverse, in which label and prediction change places.

    .. math:: \ell = -\alpha \log p_{\tilde y} - \beta A (1 - p_{\tilde y})

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      alpha: weight of the cross-entropy, at least 0 (paper, CIFAR-10: 0.1).
      beta: weight of the reverse cross-entropy, at least 0 (paper 1).
      log_zero: A, what stands for log 0 of a one-hot label, below 0 (paper, CIFAR-10: -4 in its figures).
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, a weight is negative, or log_zero is not below 0.

    Examples:
      >>> print(f"{symmetric_cross_entropy(jnp.array([0.0, 0.0]), jnp.array(1)):.3f}")
      2.069

    References:
      Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, 2019, Eq. 5 to 7.
    """
    numbers = [known(x) for x in (alpha, beta, log_zero)]
    if not all(x is None or (x < 0 if i == 2 else x >= 0) for i, x in enumerate(numbers)):
        raise ValueError(f"alpha {alpha} and beta {beta} must be at least 0 and log_zero {log_zero} below 0")

    def loss(x: Array, y: Array) -> Array:
        forward = negative_log_likelihood(x, y)
        return alpha * forward + beta * log_zero * jnp.expm1(-forward)

    return per_label(logits, labels, where, loss)
