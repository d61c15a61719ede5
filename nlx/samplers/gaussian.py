"""Diagonal Gaussians by reparameterization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def sample(key: Array, mean: ArrayLike, log_variance: ArrayLike) -> Array:
    r"""Draw :math:`s = \mu + \sigma \odot \zeta` with :math:`\zeta \sim N(0, I)`.

    The paper prints :math:`\sigma^2 \odot \zeta`; that is a misprint, since its closed-form divergence belongs to a
    sampler with standard deviation sigma.

    Args:
      key: typed PRNG key.
      mean: mu, float ``[...]``.
      log_variance: log sigma^2, float ``[...]``.

    Returns:
      Draws, mean's dtype ``[...]``, differentiable in both parameters.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> sample(jax.random.key(0), jnp.array([1.0, 2.0]), jnp.array([-200.0, -200.0]))
      Array([1., 2.], dtype=float32)

    References:
      Kingma and Welling, 2014. Yao et al., section III-D 1.
    """
    mean, log_variance = jnp.asarray(mean), jnp.asarray(log_variance)
    if mean.shape != log_variance.shape:
        raise ValueError(f"mean {mean.shape} and log_variance {log_variance.shape} must have the same shape")
    return mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)
