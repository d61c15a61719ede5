"""What a training tells of every label while it goes on: the area under the margin, and Datamap's two coordinates."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nlx.methods.method import Batch, Column, Memory, Method, Metrics, Outputs, Params, Posterior, Shapes


class Dynamics(NamedTuple):
    """Running figures of every example, float32 ``[n]``, 16 bytes an example.

    Attributes:
      visits: how often it was trained on.
      margin: mean of the given label's logit less the highest other one.
      prob: mean probability of the given label.
      squares: sum of squared deviations from it.
    """

    visits: Array
    margin: Array
    prob: Array
    squares: Array


def with_dynamics(method: Method) -> Method:
    r"""The same method, which keeps beside its own memory how each given label fared while training.

    A label that the network comes to believe against its own opinion has a low margin on the way, however well it is
    memorized in the end. With a single class margins are 0. For one label per example.

    Args:
      method: for one label per example.

    Returns:
      The method; its posterior has three columns more, float32 ``[B]``, 0 for examples not trained on: ``aum``, mean
      over training of :math:`z_{\tilde y} - \max_{k \ne \tilde y} z_k`, low for labels that are probably wrong;
      ``confidence`` and ``variability``, mean and standard deviation of :math:`p_{\tilde y}`.

    References:
      Pleiss et al., 2020, equation 2 (AUM); Swayamdipta et al., 2020, section 2 (Datamaps).
    """

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        params, memory = method.init(key, outputs, num_classes, size)
        return params, (memory, Dynamics(*jnp.zeros((4, size))))

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        losses, own, metrics = method.loss(key, params, memory[0], outputs, batch, step)
        return losses, (own, _seen(memory[1], jax.lax.stop_gradient(outputs["logits"]), batch["noisy_label"])), metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        belief, kept = method.posterior(params, memory[0], outputs, batch), memory[1]
        columns = {
            "aum": kept.margin,
            "confidence": kept.prob,
            "variability": jnp.sqrt(kept.squares / jnp.maximum(kept.visits, 1)),
        }
        return belief._replace(columns={**belief.columns, **{name: Column(x) for name, x in columns.items()}})

    again, refresh = method.refresh, None
    if again is not None:
        refresh = lambda key, memory, features, labels: (again(key, memory[0], features, labels), memory[1])  # noqa: E731
    return method._replace(loss=loss, posterior=posterior, init=init, refresh=refresh)


def _seen(kept: Dynamics, logits: Array, labels: Array) -> Dynamics:
    """Running figures after one more visit."""
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    given = jnp.sum(jnp.where(own, logits, 0.0), axis=1)
    margin = given - jnp.max(jnp.where(own, -jnp.inf, logits), axis=1)
    margin = jnp.where(jnp.isposinf(margin), 0.0, margin)  # of a class that has no other
    prob = jnp.sum(jnp.where(own, jax.nn.softmax(logits), 0.0), axis=1)
    visits, off = kept.visits + 1, prob - kept.prob
    mean = kept.prob + off / visits
    return Dynamics(visits, kept.margin + (margin - kept.margin) / visits, mean, kept.squares + off * (prob - mean))
