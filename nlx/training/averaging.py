"""A running mean of the backbone's parameters beside them, by which it predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nlx.arguments import ArgumentError


class Average(NamedTuple):
    """State of :func:`averaged`.

    Attributes:
      updates: how many so far, int32 scalar.
      average: running mean of the backbone's parameters, a tree of their form.
    """

    updates: Array
    average: Any


def averaged(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    r"""The same optimizer, which also keeps a running mean of the backbone's parameters.

    .. math:: \bar\theta \leftarrow d_t \bar\theta + (1 - d_t) \theta, \qquad d_t = \min(d, (1 + t) / (10 + t))

    The mean is taken of the parameters that a step begins with, so that it is a step behind; batch statistics stay the
    network's own. One copy more in memory.

    Args:
      optimizer: of ``{"model": ..., "method": ...}``.
      decay: d, in (0, 1): the mean looks back over some 1 / (1 - d) steps.

    Raises:
      ArgumentError: a decay out of range.

    References:
      Polyak and Juditsky, 1992. Tarvainen and Valpola, Mean teachers are better role models, 2017, section 2.
    """
    if not 0 < decay < 1:
        raise ArgumentError(f"`decay` must lie between 0 and 1, got {decay}")

    def init(params: dict[str, Any]) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params["model"]))

    def update(updates: Any, state: Average, params: Any = None) -> tuple[Any, Average]:
        t = state.updates.astype(jnp.float32)
        d = jnp.minimum(decay, (1 + t) / (10 + t))
        mean = jax.tree.map(lambda a, p: (d * a + (1 - d) * p).astype(a.dtype), state.average, params["model"])
        return updates, Average(state.updates + 1, mean)

    return optax.chain(optimizer, optax.GradientTransformation(init, update))


def average_in(opt_state: Any) -> Any:
    """The running mean of the backbone's parameters in an optimizer's state; None where it keeps none."""
    return optax.tree.get(opt_state, "average", None)


def with_average(opt_state: Any, params: Any) -> Any:
    """An optimizer's state whose running mean, if it keeps one, begins anew at these parameters."""
    if average_in(opt_state) is None:
        return opt_state
    return optax.tree.set(opt_state, average=jax.tree.map(jnp.copy, params))  # a step consumes both
