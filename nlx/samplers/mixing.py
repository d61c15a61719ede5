"""How well Gibbs chains of binary units mix: effective sample size and R-hat, from the means of chains alone."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Mixing(NamedTuple):
    """How well the chains of one side's units mix, over the sweeps of one step.

    Attributes:
      ess: effective number of independent draws among chains x sweeps, float32 ``[B, units]``, from the variance
        between chain means: with c chains its own relative error is about sqrt(2 / (c - 1)). Chains started apart and
        not yet mixed show as an ESS near or below their number.
      r_hat: Gelman and Rubin's ratio, float32 ``[B, units]``; near 1 where chains agree, infinite where every chain
        stands still and they differ.
    """

    ess: Array
    r_hat: Array


def mixing_of(chain_means: Array, sweeps: Array) -> Mixing:
    """ESS and R-hat of binary units from each chain's mean, ``[B, chains, units]``."""
    chains = chain_means.shape[1]
    between = jnp.var(chain_means, axis=1, ddof=1)
    # A chain of bits with mean m has the variance m (1 - m).
    within = jnp.mean(chain_means * (1 - chain_means), axis=1) * sweeps / (sweeps - 1)
    pooled = within * (sweeps - 1) / sweeps + between
    still = pooled <= 0
    ess = jnp.where(between > 0, chains * pooled / jnp.where(between > 0, between, 1), chains * sweeps)
    r_hat = jnp.sqrt(jnp.where(still, 1, pooled) / jnp.where(still, 1, within))
    return Mixing(ess, r_hat)
