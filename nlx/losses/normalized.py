"""An active loss, which pulls the label up, joined to a passive one, which pushes the other classes down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import in_range
from nlx.losses.plain import highest, negative_log_likelihood, per_label


def active_passive(
    logits: ArrayLike,
    labels: ArrayLike,
    alpha: float = 1.0,
    beta: float = 1.0,
    log_zero: float = -4.0,
    *,
    where: ArrayLike | None = None,
) -> Array:
    r"""Normalized cross-entropy and reverse cross-entropy, NCE + RCE: both bounded, and robust to uniform noise.

    .. math:: \ell = \alpha \frac{\log p_{\tilde y}}{\sum_k \log p_k} - \beta A (1 - p_{\tilde y})

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      alpha: weight of the active loss, at least 0.
      beta: weight of the passive loss, at least 0.
      log_zero: A, what stands for log 0 of a one-hot label, at most 0.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or a number is out of range.

    Examples:
      >>> print(f"{active_passive(jnp.array([0.0, 0.0]), jnp.array(1)):.3f}")
      2.500

    References:
      Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, 2020, Eq. 1 and section 4.
    """
    in_range(alpha, "alpha", 0)
    in_range(beta, "beta", 0)
    in_range(log_zero, "log_zero", -jnp.inf, 0)

    def loss(x: Array, y: Array) -> Array:
        nll = negative_log_likelihood(x, y)
        return alpha * _normalized(x, nll) + beta * log_zero * jnp.expm1(-nll)

    return per_label(logits, labels, where, loss)


def joint_asymmetric(
    logits: ArrayLike,
    labels: ArrayLike,
    alpha: float = 1.0,
    beta: float = 1.0,
    a: float = 30.0,
    *,
    where: ArrayLike | None = None,
) -> Array:
    r"""Normalized cross-entropy and the asymmetric mean square error, JAL-CE.

    .. math:: \ell = \alpha \frac{\log p_{\tilde y}}{\sum_k \log p_k}
       + \frac{\beta}{K} \Bigl(\sum_k (p_k - a\,[k = \tilde y])^2 - (a - 1)^2\Bigr)

    The square that even a right prediction leaves is taken off: small losses keep their digits. With a well above 1 the
    error stays least at the label that most examples of an input have, whatever the others say.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      alpha: weight of the active loss, at least 0.
      beta: weight of the passive loss, at least 0.
      a: where the label's probability is drawn to, at least 1.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or a number is out of range.

    Examples:
      >>> print(f"{joint_asymmetric(jnp.array([0.0, 0.0]), jnp.array(1), a=2):.3f}")
      1.250

    References:
      Wang et al., Joint Asymmetric Loss for Learning with Noisy Labels, 2025.
    """
    in_range(alpha, "alpha", 0)
    in_range(beta, "beta", 0)
    in_range(a, "a", 1)

    def loss(x: Array, y: Array) -> Array:
        nll, k = negative_log_likelihood(x, y), x.shape[-1]
        log_probs = jax.nn.log_softmax(x)
        others = jnp.where(jax.nn.one_hot(y, k, dtype=bool), 0.0, jnp.exp(2 * log_probs))
        # p^2 - 1 - 2 a (p - 1), without the cancellation near p = 1.
        label = jnp.expm1(-2 * nll) - 2 * a * jnp.expm1(-nll)
        return alpha * _normalized(x, nll) + beta / k * (label + jnp.sum(others, axis=-1))

    return per_label(logits, labels, where, loss)


def _normalized(x: Array, nll: Array) -> Array:
    """The label's cross-entropy as a share of those of all classes; 0 of a single class."""
    top = highest(x)
    below = x - top
    total = x.shape[-1] * jnp.log(jnp.sum(jnp.exp(below), axis=-1)) - jnp.sum(below, axis=-1)
    return nll / jnp.where(total > 0, total, 1.0)
