"""The binary concrete distribution: a Bernoulli draw relaxed so that gradients reach its probability."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, floating, in_range, typed_key, working


def sample(key: Array, logits: ArrayLike, temperature: ArrayLike) -> Array:
    r"""Draw relaxed Bernoullis, one per entry of the logits.

    .. math:: z = \sigma\!\left(\frac{\text{logit}\,q + L}{\tau}\right), \quad L \sim \mathrm{Logistic}(0, 1)

    The paper adds two Gumbel draws to log q and log(1 - q); their difference is Logistic(0, 1), so one draw gives the
    same distribution. P(z > 1/2) = q at every temperature, and z tends to a {0, 1} draw as the temperature falls.

    Args:
      key: typed PRNG key.
      logits: log-odds of q(z = 1), float ``[...]``.
      temperature: tau > 0, scalar.

    Returns:
      Values in [0, 1], logits' dtype ``[...]``, differentiable in the logits.

    Raises:
      TypeError: logits not floating, or key not typed.
      ValueError: a temperature known before tracing is not above 0; under a trace it gives NaN.

    Examples:
      >>> sample(jax.random.key(0), jnp.array([-50.0, 50.0]), 0.5)
      Array([0., 1.], dtype=float32)

    References:
      Jang et al., 2017; Maddison et al., 2017. Yao et al., section III-D 1.
    """
    logits = floating(logits, "logits")
    in_range(temperature, "temperature", 0, above=True)
    dtype = working(logits)
    # In half precision the noise itself would take no more than a few hundred values.
    noise = jax.random.logistic(typed_key(key), logits.shape, dtype)
    tau = jnp.asarray(temperature, dtype)
    tau = jnp.where(tau > 0, tau, jnp.nan)
    return as_type(jax.nn.sigmoid((logits.astype(dtype) + noise) / tau), logits.dtype)
