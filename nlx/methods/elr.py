"""Early-learning regularization: predictions stay near their own running mean, which formed before memorizing began."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import cross_entropy
from nlx.methods.method import Batch, Memory, Method, Metrics, Outputs, Params, Shapes, as_rows, from_rows


class Targets(NamedTuple):
    """What is kept of every example: a running mean of its predictions, float32 ``[n, K]`` :func:`as_rows`."""

    mean: Array


def elr(*, strength: float = 3.0, momentum: float = 0.7) -> Method:
    r"""Cross-entropy, and a term that keeps predictions near their own running mean t.

    .. math:: \ell = \mathrm{CE}(p, \tilde y) + \lambda \log(1 - \langle p, t \rangle), \qquad
        t \leftarrow \beta t + (1 - \beta) p

    t is updated before it is used, and a constant to the gradient. Memory: 4 K bytes an example.

    Args:
      strength: lambda, at least 0 (paper 3 on CIFAR-10, 7 on CIFAR-100).
      momentum: beta, in [0, 1) (paper 0.7 and 0.9).

    Returns:
      A method for one label per example.

    Raises:
      ArgumentError: a strength or a momentum out of range.

    References:
      Liu et al., 2020, equations 6 and 9.
    """
    if not (strength >= 0 and 0 <= momentum < 1):
        raise ArgumentError(f"`strength` must be at least 0 and `momentum` in [0, 1), got {strength} and {momentum}")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs
        return {}, Targets(as_rows(jnp.zeros((size, num_classes))))

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        p = jnp.clip(jax.nn.softmax(logits := outputs["logits"]), 1e-4, 1 - 1e-4)
        before = from_rows(memory.mean, logits.shape[1:])
        mean = momentum * before + (1 - momentum) * jax.lax.stop_gradient(p / jnp.sum(p, axis=1, keepdims=True))
        losses = cross_entropy(logits, batch["noisy_label"]) + strength * jnp.log(1 - jnp.sum(p * mean, axis=1))
        return losses, Targets(as_rows(mean)), {}

    return Method("elr", loss, init=init)
