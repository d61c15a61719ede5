"""Co-teaching: two networks, each of which learns from what the other finds easy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import cross_entropy
from nlx.methods.method import Batch, Memory, Method, Metrics, Outputs, Params


def co_teaching(forget: optax.Schedule) -> Method:
    """Each of two networks takes the examples of a batch at which the other's loss is smallest.

    Args:
      forget: step -> the share of a batch that neither learns from, in [0, 1]; it rises to the share of wrong labels
        (paper: in a straight line, over 10 epochs), for networks learn first what is right.

    Returns:
      A method for one label per example, of a model made by :func:`nlx.models.pair`. Its ``agreement`` is the share of
      the examples taken by one network that the other takes too.

    Raises:
      ArgumentError: the model is no pair.

    References:
      Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, 2018, algorithm 1.
    """

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params
        if "pair_logits" not in outputs:
            raise ArgumentError("co-teaching needs two networks: make the model by `nlx.models.pair`")
        labels = batch["noisy_label"]
        losses = jax.vmap(cross_entropy, (1, None), 1)(outputs["pair_logits"], labels)
        size = len(losses)
        kept = jnp.clip(jnp.round((1 - jnp.asarray(forget(step), jnp.float32)) * size), 1, size)
        rank = jnp.argsort(jnp.argsort(jax.lax.stop_gradient(losses), axis=0), axis=0)
        easy = rank < kept.astype(rank.dtype)
        taught = jnp.sum(jnp.where(easy[:, ::-1], losses, 0.0), axis=1) * (size / kept)
        agreement = jnp.sum(jnp.all(easy, axis=1), dtype=jnp.float32) / kept
        return taught, memory, {"agreement": agreement, "kept": kept / size}

    return Method("co_teaching", loss)
