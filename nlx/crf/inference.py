"""Marginals of the field: approximate ones by mean-field equations, exact ones in the limit by Gibbs sampling."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nlx.arguments import at_least, typed_key, varying
from nlx.crf.field import floats, y_logits, z_logits
from nlx.samplers import gibbs
from nlx.samplers.bits import Generator

Start = Literal["mean_field", "random"]


def mean_field(coupling: ArrayLike, y_bias: ArrayLike, z_bias: ArrayLike, iterations: int = 20) -> tuple[Array, Array]:
    """Approximate marginals by the mean-field equations, started from y's biases alone.

    Args:
      coupling: U, float ``[M, N]``.
      y_bias: b, float ``[B, N]`` or ``[N]``.
      z_bias: a, float ``[B, M]`` or ``[M]``.
      iterations: updates of z and y in turn.

    Returns:
      Probabilities that y = 1 and that z = 1, float32 (float64 where given) ``[..., N]`` and ``[..., M]``.

    Raises:
      TypeError: coupling or biases not floating.
      ValueError: shapes disagree.

    Examples:
      >>> y, z = mean_field(jnp.zeros((1, 1)), jnp.zeros(1), jnp.zeros(1))
      >>> print(y, z)
      [0.5] [0.5]
    """
    u, b, a = floats(coupling=coupling, y_bias=y_bias, z_bias=z_bias)
    at_least(0, iterations=iterations)
    leads = [x.shape[:-1] for x in (b, a) if x.ndim > 1] or [()]
    if u.ndim != 2 or min(b.ndim, a.ndim) < 1 or (a.shape[-1], b.shape[-1]) != u.shape or leads[0] != leads[-1]:
        raise ValueError(f"coupling must be [M, N] for y_bias {b.shape} and z_bias {a.shape}, got {u.shape}")
    return _mean_field(u, b, a, iterations)


@partial(jax.jit, static_argnames="iterations")
def _mean_field(u: Array, b: Array, a: Array, iterations: int) -> tuple[Array, Array]:
    lead = max(b.shape[:-1], a.shape[:-1], key=len)
    b, a = jnp.broadcast_to(b, (*lead, b.shape[-1])), jnp.broadcast_to(a, (*lead, a.shape[-1]))

    def update(_: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        z = jax.nn.sigmoid(z_logits(both[0], u, a))
        return jax.nn.sigmoid(y_logits(z, u, b)), z

    y, z = (varying(jax.nn.sigmoid(x), u, b, a) for x in (b, a))
    return jax.lax.fori_loop(0, iterations, update, (y, z))


def marginal_logits(
    key: Array,
    coupling: ArrayLike,
    y_bias: ArrayLike,
    z_bias: ArrayLike,
    *,
    sweeps: int = 100,
    burn_in: int = 20,
    chains: int = 50,
    start: Start = "mean_field",
    generator: Generator = "threefry",
    dtype: DTypeLike = jnp.bfloat16,
) -> Array:
    r"""Log-odds of p(z = 1 given x) by Gibbs sampling, from averaged conditionals :math:`\sigma(a + U y)`.

    Averaging probabilities instead of draws (Rao-Blackwell) gives the same mean with less variance. Those of 0 are
    averaged as well as those of 1, so that scores keep their order where a probability would be rounded to 1.

    Args:
      key: typed PRNG key.
      coupling: U, float ``[M, N]``.
      y_bias: b, float ``[B, N]`` or ``[N]``.
      z_bias: a, float ``[B, M]``.
      sweeps: sweeps to average over.
      burn_in: sweeps before, at least 1.
      chains: chains per example.
      start: ``mean_field``: chains start at draws from the mean-field marginals, which shortens the burn-in;
        ``random``: at fair coins.
      generator: where the random bits come from.
      dtype: operands of the matrix products.

    Returns:
      Log-odds, float32 ``[B, M]``, within 88 of 0; the first C are the clean labels'.

    Raises:
      ValueError: unknown start, or as :func:`nlx.samplers.gibbs.step`.

    Examples:
      >>> print(marginal_logits(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(2), jnp.array([[17.0]])).round(2))
      [[17.]]

    References:
      Vahdat, 2017, section 3.2 (test time).
    """
    u, b, a = floats(coupling=coupling, y_bias=y_bias, z_bias=z_bias)
    if start not in get_args(Start):
        raise ValueError(f"unknown start {start!r}; known: {', '.join(get_args(Start))}")
    at_least(1, sweeps=sweeps, burn_in=burn_in, chains=chains)
    if u.ndim != 2 or a.ndim != 2:
        raise ValueError(f"coupling must be [M, N] and z_bias [B, M], got {u.shape} and {a.shape}")
    num_z, num_y = u.shape
    if not len(a):
        return jnp.zeros((0, num_z), jnp.float32)
    mean = None
    if start == "mean_field":
        mean = mean_field(u, b, a)[0 if gibbs.carries_y(num_y, num_z) else 1]
    init_key, burn_key, key = jax.random.split(typed_key(key), 3)
    state = gibbs.init(init_key, a.shape[0], chains, num_y, num_z, mean=mean)
    state, _ = gibbs.step(burn_key, state, u, b, a, burn_in, generator=generator, dtype=dtype)
    info = gibbs.step(key, state, u, b, a, sweeps, generator=generator, dtype=dtype, average=True)[1]
    least = jnp.finfo(jnp.float32).tiny
    return jnp.log(jnp.maximum(info.z_mean, least)) - jnp.log(jnp.maximum(info.z_off, least))
