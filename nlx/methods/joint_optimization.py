"""Joint optimization: labels are trained as well, and become what the network has said of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.methods.method import (
    Batch,
    Candidate,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    as_rows,
    from_rows,
)

_LEAST = 1e-4  # probability


class Said(NamedTuple):
    """What is kept of every example: a running mean of its predictions, float32 ``[n, K]`` :func:`as_rows`."""

    mean: Array


def joint_optimization(
    *,
    start: int,
    prior: ArrayLike | None = None,
    alpha: float = 1.2,
    beta: float = 0.8,
    momentum: float = 0.9,
) -> Method:
    r"""Divergence from labels that are the network's own past predictions from some step on.

    .. math:: \ell = \mathrm{KL}(y \,\|\, s) + \alpha \, \mathrm{KL}(\pi \,\|\, \bar s) + \beta \, H(s)

    with s the prediction, its mean over the batch :math:`\bar s`, the prior of the classes :math:`\pi`, which keeps
    them from becoming one, and the entropy H, which keeps labels that are uncertain from staying so. The label y is
    the given one before ``start``, and the running mean of predictions afterwards. Memory: 4 K bytes an example.

    Args:
      start: step from which labels are predictions, after epochs at a high learning rate (paper: 70 of 200).
      prior: pi, shares of the classes, float ``[K]``; None for equal ones (paper).
      alpha: weight of the prior, at least 0 (paper 1.2 with symmetric noise on CIFAR-10, 0.4 with asymmetric).
      beta: weight of the entropy, at least 0 (paper 0.8 and 0.1).
      momentum: of the mean, in [0, 1); 0.9 looks back over some 10 epochs, as the paper does.

    Returns:
      A method for one label per example. Its posterior is the running mean, or the classifier where there is none yet
      or that gets more labels right.

    Raises:
      ArgumentError: a weight or a momentum out of range; at ``init``, a prior of other classes.

    References:
      Tanaka et al., Joint Optimization Framework for Learning with Noisy Labels, 2018, equations 4 to 9.
    """
    if not (start >= 0 and alpha >= 0 and beta >= 0 and 0 <= momentum < 1):
        raise ArgumentError(
            "`start`, `alpha` and `beta` must be at least 0 and `momentum` in [0, 1), got "
            f"{start}, {alpha}, {beta} and {momentum}"
        )
    shares = None if prior is None else np.asarray(prior, np.float32)
    if shares is not None and not (shares.ndim == 1 and (shares >= 0).all() and abs(shares.sum() - 1) < 1e-3):
        raise ArgumentError(f"`prior` must be shares of the classes that sum to 1, got {shares}")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs
        if shares is not None and shares.shape != (num_classes,):
            raise ArgumentError(f"`prior` has {len(shares)} classes, the data {num_classes}")
        return {}, Said(as_rows(jnp.zeros((size, num_classes))))

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params
        log_s = jax.nn.log_softmax(logits := outputs["logits"])
        s = jnp.exp(log_s)
        before = from_rows(memory.mean, logits.shape[1:])
        given = jax.nn.one_hot(batch["noisy_label"], logits.shape[1])
        label = jnp.where((step >= start) & _known(before), _normalized(before), given)
        divergence = jnp.sum(jax.scipy.special.xlogy(label, label) - label * log_s, axis=1)
        pi = jnp.full(logits.shape[1], 1 / logits.shape[1]) if shares is None else jnp.asarray(shares)
        mean = jnp.maximum(jnp.mean(s, axis=0), _LEAST)
        spread = jnp.sum(jax.scipy.special.xlogy(pi, pi) - pi * jnp.log(mean))
        entropy = -jnp.sum(s * jnp.maximum(log_s, jnp.log(_LEAST)), axis=1)
        after = momentum * before + (1 - momentum) * jax.lax.stop_gradient(s)
        metrics = {"prior_divergence": spread, "entropy": jnp.mean(entropy)}
        return divergence + alpha * spread + beta * entropy, Said(as_rows(after)), metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, batch
        classifier = jax.nn.softmax(logits := outputs["logits"])
        mean = from_rows(memory.mean, logits.shape[1:])
        said = jnp.where(_known(mean), _normalized(mean), classifier)
        even = jnp.zeros(len(logits))
        return Posterior({"predictions": Candidate(said, even), "classifier": Candidate(classifier, even)}, {})

    return Method("joint_optimization", loss, posterior, init)


def _known(mean: Array) -> Array:
    """Whether an example has been predicted before, bool ``[B, 1]``."""
    return jnp.sum(mean, axis=1, keepdims=True) > 0


def _normalized(mean: Array) -> Array:
    total = jnp.sum(mean, axis=1, keepdims=True)
    return mean / jnp.where(total > 0, total, 1.0)
