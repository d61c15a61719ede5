"""Diagonal Gaussians by reparameterization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, floating, same_shape, typed_key, working


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
      TypeError: parameters not floating, or key not typed.
      ValueError: shapes disagree.

    Examples:
      >>> sample(jax.random.key(0), jnp.array([1.0, 2.0]), jnp.array([-200.0, -200.0]))
      Array([1., 2.], dtype=float32)

    References:
      Kingma and Welling, 2014. Yao et al., section III-D 1.
    """
    mean, log_variance = floating(mean, "mean"), floating(log_variance, "log_variance")
    same_shape("mean", mean.shape, "log_variance", log_variance.shape)
    dtype = working(mean)
    noise = jax.random.normal(typed_key(key), mean.shape, dtype)
    return as_type(mean.astype(dtype) + jnp.exp(log_variance.astype(dtype) / 2) * noise, mean.dtype)
