"""Training with one loss on the noisy labels and nothing else: the baselines of every comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx import losses
from nlx.methods.method import (
    Batch,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    single_posterior,
    to_probs,
)
from nlx.metrics import as_vectors

_PAPERS_Q = 0.7

Loss = Callable[[Array, Array], Array]
"""(logits ``[B, K]``, noisy labels ``[B]`` or ``[B, K]``) -> one value per example, ``[B]``."""


def plain(loss: Loss, name: str | None = None) -> Method:
    """Train on the labels as they are; the classifier's own prediction stands for the posterior.

    Args:
      loss: any loss of one value per example, such as those of ``nlx.losses`` or optax. Labels are classes, int32
        ``[B]``, or {0, 1} vectors, float32 ``[B, K]``, as the data have them.
      name: what outputs call the method; the loss's own name by default, ``plain`` where it has none.

    Returns:
      The method, with the one candidate ``classifier``; on single-label data the column ``outlier_score`` is the
      prediction's entropy.
    """

    def objective(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        return loss(outputs["logits"], batch["noisy_label"]), memory, {}

    return Method(name or _name_of(loss), objective, _prediction)


def generalized_q(num_classes: int) -> float:
    r"""q of generalized cross-entropy for K classes: the paper's 0.7, of more than 27 classes :math:`\ln 10 / \ln K`.

    The gradient of a label with probability p is that of cross-entropy times :math:`p^q`. Of a network that knows
    nothing yet, where p is 1 / K, that is a tenth or more then; with q = 0.7 and a thousand classes it is 1 / 126, and
    next to nothing is learnt.
    """
    return min(_PAPERS_Q, math.log(10) / math.log(max(num_classes, 2)))


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Plain training's loss: a softmax for one class per example, one sigmoid per class for {0, 1} vectors."""
    return (losses.cross_entropy if labels.ndim == 1 else losses.binary_cross_entropy)(logits, labels)


def per_class(logits: Array, labels: Array) -> Array:
    """Binary cross-entropy, also where labels are classes: every class is a yes-or-no question of its own."""
    return losses.binary_cross_entropy(logits, as_vectors(labels, logits.shape[-1]))


def with_vectors(loss: Loss) -> Loss:
    """A loss of classes that also takes {0, 1} vectors: each class is a choice between two, of logits 0 and l."""

    def either(logits: Array, labels: Array) -> Array:
        if labels.ndim == 1:
            return loss(logits, labels)
        pair = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
        return jnp.sum(loss(pair, labels.astype(jnp.int32)), axis=-1)

    either.__name__ = _name_of(loss)
    return either


def trusted_cross_entropy() -> Method:
    """Cross-entropy on the true label where it is trusted and on the noisy one elsewhere.

    With all labels trusted this is the upper bound of every comparison.
    """

    def objective(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        labels = batch["noisy_label"]
        if "trusted_label" in batch:
            trusted = batch["trusted_label"]
            labels = jnp.where(trusted >= 0, trusted.astype(labels.dtype), labels)
        return cross_entropy(outputs["logits"], labels), memory, {}

    return Method("trusted_cross_entropy", objective, _prediction)


def backward(inverse: ArrayLike) -> Method:
    """Train on Patrini's unbiased estimate of the clean loss.

    Args:
      inverse: of the transition matrix, see ``nlx.transitions.invert``, float ``[K, K]``.
    """
    matrix = jnp.asarray(inverse, jnp.float32)
    return plain(partial(losses.backward_corrected, inverse=matrix), "backward")


def _prediction(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
    del params, memory
    logits, labels = outputs["logits"], batch["noisy_label"]
    if labels.ndim == 2:
        return single_posterior("classifier", to_probs(logits, labels))
    log_probs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return single_posterior("classifier", jnp.exp(log_probs), {"outlier_score": Column(entropy, "outlier_score")})


def _name_of(loss: Loss) -> str:
    while isinstance(loss, partial):
        loss = loss.func
    name = getattr(loss, "__name__", "")
    return name if name.isidentifier() else "plain"  # a lambda has no name to go by
