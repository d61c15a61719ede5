r"""The three terms of CAN's objective, Eq. 4 with the closed forms of Eq. 8, one value per example.

With latent true labels z (K Bernoullis, q against the classifier's P) and annotation quality s (a diagonal Gaussian
against N(0, I)), the objective minimized is ``reconstruction + label_divergence + quality_divergence``. At
``regularizer=0`` it is the negative evidence lower bound of ln P(noisy labels given x).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nlx.arguments import as_type, floating, in_range, same_shape, working
from nlx.losses import binary_cross_entropy


def reconstruction(logits: ArrayLike, noisy_labels: ArrayLike) -> Array:
    r"""How badly the decoder explains the noisy labels, averaged over samples of (z, s).

    .. math:: -\frac{1}{N} \sum_n \ln P(\tilde y \mid z^{(n)}, s^{(n)})

    Args:
      logits: the decoder's log-odds for each of N samples, float ``[N, ..., K]``.
      noisy_labels: {0, 1}, float ``[..., K]``; others give NaN, and are refused where known.

    Returns:
      Nats, float ``[...]``, one per example.

    Raises:
      TypeError: not floating.
      ValueError: shapes disagree.

    Examples:
      >>> print(f"{reconstruction(jnp.zeros((4, 2)), jnp.array([0.0, 1.0])):.3f}")
      1.386

    References:
      Yao et al., Eq. 5.
    """
    logits, labels = floating(logits, "logits"), floating(noisy_labels, "noisy_labels")
    same_shape("logits[0]", logits.shape[1:], "noisy_labels", labels.shape)
    if not logits.shape[:1] or not len(logits):
        raise ValueError(f"logits must be [N, ..., K] with at least 1 sample, got {logits.shape}")
    losses = jax.vmap(binary_cross_entropy, (0, None))(logits.astype(working(logits)), noisy_labels)
    return as_type(jnp.mean(losses, axis=0), logits.dtype)


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
      TypeError: not floating.
      ValueError: shapes disagree.

    Examples:
      >>> label_divergence(jnp.array([0.0, 2.0]), jnp.array([0.0, 2.0]))
      Array(0., dtype=float32)

    References:
      Yao et al., Eq. 8, first line.
    """
    q, p, sharpness, dtype = _pair(posterior_logits, "posterior_logits", prior_logits, "prior_logits", regularizer)
    # log sigma(-l) stands for log(1 - sigma(l)), which loses all digits where sigma(l) rounds to 1.
    on = jax.nn.sigmoid(q) * (sharpness * jax.nn.log_sigmoid(q) - jax.nn.log_sigmoid(p))
    off = jax.nn.sigmoid(-q) * (sharpness * jax.nn.log_sigmoid(-q) - jax.nn.log_sigmoid(-p))
    return as_type(jnp.sum(on + off, axis=-1), dtype)


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
      TypeError: not floating.
      ValueError: shapes disagree.

    Examples:
      >>> quality_divergence(jnp.array([1.0, 0.0]), jnp.zeros(2))
      Array(0.5, dtype=float32)

    References:
      Yao et al., Eq. 8, second line.
    """
    mu, log_var, sharpness, dtype = _pair(mean, "mean", log_variance, "log_variance", regularizer)
    # exp(x) - 1 - x by expm1, which keeps its digits near sigma = 1.
    per_dimension = jnp.expm1(log_var) - sharpness * log_var + jnp.square(mu)
    return as_type(jnp.sum(per_dimension, axis=-1) / 2, dtype)


def _pair(
    a: ArrayLike, name: str, b: ArrayLike, other: str, regularizer: ArrayLike
) -> tuple[Array, Array, Array, DTypeLike]:
    """Two arrays of one shape and 1 - lambda to work with, and the type of the first."""
    x, y = floating(a, name), floating(b, other)
    same_shape(name, x.shape, other, y.shape)
    if not x.ndim:
        raise ValueError(f"{name} must have an axis to sum over, got a scalar")
    in_range(regularizer, "regularizer", 0)
    dtype = working(x, y)
    return x.astype(dtype), y.astype(dtype), 1 - jnp.asarray(regularizer, dtype), x.dtype
