"""The bi-tempered logistic loss: bounded where labels are far off, and with tails that decay as a power."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import in_range
from nlx.losses.plain import highest, per_label

_NEWTON_STEPS = 6
"""Found by trial to be more than enough, up to 1,000 classes and temperatures of 4."""


def bi_tempered(
    logits: ArrayLike, labels: ArrayLike, t1: float = 0.8, t2: float = 1.2, *, where: ArrayLike | None = None
) -> Array:
    r"""Logistic loss with two temperatures: t1 < 1 bounds it, and t2 > 1 gives the softmax a heavy tail.

    .. math:: \ell = -\log_{t_1} p_{\tilde y} - \frac{1 - \sum_k p_k^{2 - t_1}}{2 - t_1}, \quad
       p_k = \exp_{t_2}(x_k - \lambda), \quad
       \log_t u = \frac{u^{1 - t} - 1}{1 - t}, \quad \exp_t u = [1 + (1 - t) u]_+^{1 / (1 - t)}

    with :math:`\lambda` such that p sums to 1. At t1 = t2 = 1 it is cross-entropy. Predictions of a model trained on it
    are these p, whose order is that of the logits.

    Args:
      logits: activations x, float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      t1: temperature of the logarithm, in [0, 1].
      t2: temperature of the exponential, at least 1.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss, logits' dtype ``[...]``, one per example, at most 1/(1 - t1).

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or a temperature is out of range.

    Examples:
      >>> print(f"{bi_tempered(jnp.array([0.0, 0.0]), jnp.array(1)):.2f}")
      0.54

    References:
      Amid et al., Robust Bi-Tempered Logistic Loss Based on Bregman Divergences, 2019, Eq. 6 and Algorithm 1.
    """
    in_range(t1, "t1", 0, 1)
    in_range(t2, "t2", 1)

    def loss(x: Array, y: Array) -> Array:
        log_probs = _tempered_log_probs(x, jnp.asarray(t2 - 1, x.dtype))
        log_prob = jnp.take_along_axis(log_probs, y[..., None], axis=-1, mode="clip")[..., 0]
        others = jnp.where(jax.nn.one_hot(y, x.shape[-1], dtype=bool), 0.0, jnp.exp((2 - t1) * log_probs))
        rest = -jnp.expm1((2 - t1) * log_prob) - jnp.sum(others, axis=-1)
        return -_expm1_over(jnp.asarray(1 - t1, x.dtype), log_prob) - rest / (2 - t1)

    return per_label(logits, labels, where, loss)


def _tempered_log_probs(x: Array, s: Array) -> Array:
    """log exp_{1 + s}(x - lambda), -log(1 + s (lambda - x)) / s, with lambda found by Newton's method."""
    x = x - highest(x)

    def newton(shift: Array, x: Array) -> Array:
        """A step towards a sum of 1. In (sum)^-s, concave in the shift, steps never go too far, and few are needed."""
        log_probs = _log_probs(x, shift, s)
        log_sum = jax.nn.logsumexp(log_probs, axis=-1, keepdims=True)
        slope = jnp.sum(jnp.exp(log_probs - log_sum) / (1 + s * (shift - x)), axis=-1, keepdims=True)
        return shift + _expm1_over(s, log_sum) / slope

    fixed = jax.lax.stop_gradient(x)
    shift = jnp.zeros_like(fixed[..., :1])
    for _ in range(_NEWTON_STEPS):
        shift = newton(shift, fixed)
    # Taken twice more with x in hand: that gives lambda its first and second derivatives, at no loss of digits.
    return _log_probs(x, newton(newton(jax.lax.stop_gradient(shift), x), x), s)


def _log_probs(x: Array, shift: Array, s: Array) -> Array:
    """-log(1 + s (shift - x)) / s; x - shift where s is 0."""
    inside = jnp.where(s > 0, s, 1.0)
    return jnp.where(s > 0, -jnp.log1p(inside * (shift - x)) / inside, x - shift)


def _expm1_over(s: Array, x: Array) -> Array:
    """(exp(s x) - 1) / s; x where s is 0."""
    inside = jnp.where(s > 0, s, 1.0)
    return jnp.where(s > 0, jnp.expm1(inside * x) / inside, x)
