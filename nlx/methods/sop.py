"""Sparse over-parametrization: every example has a few numbers of its own that explain why its label is wrong."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nlx.arguments import ArgumentError
from nlx.methods.method import (
    Batch,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    as_rows,
    from_rows,
    prediction_posterior,
)
from nlx.samplers.bits import threefry2x32

_LEAST = 1e-4  # of a probability
_START = 1e-8 * 2.0**0.5  # times the inverse error function of a uniform variate: normal


class Excuse(NamedTuple):
    """What is kept of every example.

    Attributes:
      given: u, float32 ``[n]``; u² is taken for the share of the given label that the input does not explain.
      others: v, float32 ``[n, K]``; v² is taken from what the input says of the other classes;
        :func:`as_rows`.
    """

    given: Array
    others: Array


def sop(*, given_rate: float = 10.0, others_rate: float = 100.0) -> Method:
    r"""Cross-entropy of a prediction that each example's own numbers may mend towards its label.

    .. math:: \ell = \mathrm{CE}\big(\phi(p + u^2 e_{\tilde y} - v^2 (1 - e_{\tilde y})), e_{\tilde y}\big), \qquad
        \phi(z) = \max(z, \epsilon) / \lVert \max(z, \epsilon) \rVert_1

    The network and u follow this loss; u and v also follow the squared error of
    :math:`e_{\arg\max p} + u^2 e_{\tilde y} - v^2 (1 - e_{\tilde y})` against the label. Both begin near 0, where their
    gradient is small, so that the network learns first what is common, and they what it cannot. They descend inside the
    loss, by plain gradient steps, at rates for the mean over a batch. Memory: 4 (K + 1) bytes an example.

    Args:
      given_rate: learning rate of u, at least 0 (paper's code 10 on CIFAR-10, 1 on CIFAR-100).
      others_rate: learning rate of v, at least 0 (10; with asymmetric noise 100).

    Returns:
      A method for one label per example. The column ``unexplained`` is u², in [0, 1]: how much of the given label the
      input does not account for.

    Raises:
      ArgumentError: a negative rate.

    References:
      Liu et al., Robust Training under Label Noise by Over-parameterization, 2022, equations 4 to 7.
    """
    if not (given_rate >= 0 and others_rate >= 0):
        raise ArgumentError(f"`given_rate` and `others_rate` must be at least 0, got {given_rate} and {others_rate}")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del outputs
        given, others = (_small(key, (size, width), half) for half, width in enumerate((1, num_classes)))
        return {}, Excuse(given[:, 0], as_rows(others))

    def losses(rows: Excuse, p: Array, label: Array) -> tuple[Array, Array]:
        """Cross-entropy and squared error of mended predictions, ``[B]`` each."""
        added = jnp.clip(rows.given[:, None] ** 2, 0, 1) * label
        taken = jnp.clip(rows.others**2, 0, 1) * (1 - label)
        mended = jnp.maximum(p + added - jax.lax.stop_gradient(taken), _LEAST)
        share = jnp.sum(mended * label, axis=1) / jnp.sum(mended, axis=1)
        hard = jax.nn.one_hot(jnp.argmax(p, axis=1), p.shape[1])
        known = jnp.sum(label, axis=1) > 0
        square = jnp.sum((hard + added - taken - label) ** 2, axis=1)
        return -jnp.log(jnp.where(known, share, 1.0)), jnp.where(known, square, 0.0)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        p = jax.nn.softmax(outputs["logits"])
        label = jax.nn.one_hot(batch["noisy_label"], p.shape[1])
        rows = jax.lax.stop_gradient(Excuse(memory.given, from_rows(memory.others, p.shape[1:])))

        def objective(rows: Excuse) -> Array:
            return jnp.mean(sum(losses(rows, jax.lax.stop_gradient(p), label)))

        slope = jax.grad(objective)(rows)
        others = rows.others - others_rate * slope.others
        after = Excuse(rows.given - given_rate * slope.given, as_rows(others))
        return losses(rows, p, label)[0], after, {"unexplained": jnp.clip(rows.given**2, 0, 1)}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        unexplained = Column(jnp.clip(memory.given**2, 0, 1))
        return prediction_posterior(params, memory, outputs, batch)._replace(columns={"unexplained": unexplained})

    return Method("sop", loss, posterior, init)


def _small(key: Array, shape: tuple[int, int], half: int) -> Array:
    """Normal variates times 1e-8, float32, one half of what a key gives.

    Of row and column alone, so that one loop writes them: ``jax.random.normal`` takes five times the memory.
    """
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 1))
    words = threefry2x32(jax.random.key_data(key), row, column)[half]
    uniform = ((words >> np.uint32(9)).astype(jnp.float32) + 0.5) * 2.0**-23
    return _START * jax.lax.erf_inv(2 * uniform - 1)
