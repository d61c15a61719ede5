r"""The three terms of CAN's objective, Eq. 4 with the closed forms of Eq. 8, one value per example.

With latent true labels z (K Bernoullis, q against the classifier's P) and annotation quality s (a diagonal Gaussian
against N(0, I)), the objective minimized is ``reconstruction + label_divergence + quality_divergence``. At
``regularizer=0`` it is the negative evidence lower bound of ln P(noisy labels given x).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.losses import binary_cross_entropy


def reconstruction(logits: ArrayLike, noisy_labels: ArrayLike) -> Array:
    r"""How badly the decoder explains the noisy labels, averaged over samples of (z, s).

    .. math:: -\frac{1}{N} \sum_n \ln P(\tilde y \mid z^{(n)}, s^{(n)})

    Args:
      logits: the decoder's log-odds for each of N samples, float ``[N, ..., K]``.
      noisy_labels: {0, 1}, float ``[..., K]``.

    Returns:
      Nats, float ``[...]``, one per example.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> print(f"{reconstruction(jnp.zeros((4, 2)), jnp.array([0.0, 1.0])):.3f}")
      1.386

    References:
      Yao et al., Eq. 5.
    """
    logits = jnp.asarray(logits)
    targets = jnp.broadcast_to(jnp.asarray(noisy_labels)[None], logits.shape)
    return jnp.mean(binary_cross_entropy(logits, targets), axis=0)


def label_divergence(posterior_logits: ArrayLike, prior_logits: ArrayLike, regularizer: ArrayLike = 0.0) -> Array:
    r"""Divergence of the label posterior q from the classifier's P, with the mutual-information regularizer.

    .. math:: \sum_k \sum_{v \in \{0, 1\}} q_{kv} \ln \frac{q_{kv}^{1 - \lambda}}{P_{kv}}

    At lambda = 0 this is KL(q || P); lambda > 0 rewards a q of low entropy.

    Args:
      posterior_logits: log-odds of q(z_k = 1), float ``[..., K]``.
      prior_logits: log-odds of P(z_k = 1), float ``[..., K]``.
      regularizer: lambda >= 0, scalar.

    Returns:
      Nats, float ``[...]``, one per example.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> label_divergence(jnp.array([0.0, 2.0]), jnp.array([0.0, 2.0]))
      Array(0., dtype=float32)

    References:
      Yao et al., Eq. 8, first line.
    """
    q, p = jnp.asarray(posterior_logits), jnp.asarray(prior_logits)
    if q.shape != p.shape:
        raise ValueError(f"posterior_logits {q.shape} and prior_logits {p.shape} must have the same shape")
    sharpness = 1 - jnp.asarray(regularizer, q.dtype)
    # log sigma(-l) stands for log(1 - sigma(l)), which loses all digits where sigma(l) rounds to 1.
    on = jax.nn.sigmoid(q) * (sharpness * jax.nn.log_sigmoid(q) - jax.nn.log_sigmoid(p))
    off = jax.nn.sigmoid(-q) * (sharpness * jax.nn.log_sigmoid(-q) - jax.nn.log_sigmoid(-p))
    return jnp.sum(on + off, axis=-1)


def quality_divergence(mean: ArrayLike, log_variance: ArrayLike, regularizer: ArrayLike = 0.0) -> Array:
    r"""Divergence of the quality posterior N(mu, diag sigma^2) from N(0, I), with the regularizer.

    .. math:: \tfrac12 \sum_d \left(\sigma_d^2 - (1 - \lambda) \ln \sigma_d^2 + \mu_d^2\right) - \tfrac12 D

    For lambda > 1 this has no lower bound as sigma falls: keep log sigma^2 above a floor.

    Args:
      mean: mu, float ``[..., D]``.
      log_variance: log sigma^2, float ``[..., D]``.
      regularizer: lambda >= 0, scalar.

    Returns:
      Nats, float ``[...]``, one per example.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> quality_divergence(jnp.array([1.0, 0.0]), jnp.zeros(2))
      Array(0.5, dtype=float32)

    References:
      Yao et al., Eq. 8, second line.
    """
    mean, log_variance = jnp.asarray(mean), jnp.asarray(log_variance)
    if mean.shape != log_variance.shape:
        raise ValueError(f"mean {mean.shape} and log_variance {log_variance.shape} must have the same shape")
    sharpness = 1 - jnp.asarray(regularizer, mean.dtype)
    per_dimension = jnp.exp(log_variance) - sharpness * log_variance + jnp.square(mean) - 1
    return jnp.sum(per_dimension, axis=-1) / 2
