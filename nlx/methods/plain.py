"""Training with one loss on the noisy labels and nothing else: the baselines of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx import losses
from nlx.methods.method import Aux, Batch, Memory, Method, Outputs, Params, Posterior, only, without_state
from nlx.metrics import as_vectors

_SINGLE_LABEL: dict[str, Callable[..., Array]] = {
    "bootstrap_soft": losses.bootstrap_soft,
    "bootstrap_hard": losses.bootstrap_hard,
    "generalized_ce": losses.generalized_cross_entropy,
    "symmetric_ce": losses.symmetric_cross_entropy,
    "mae": losses.mean_absolute_error,
}


def plain(loss: str = "cross_entropy", **options: float) -> Method:
    """Train on the labels as they are; the classifier's own prediction stands for the posterior.

    Args:
      loss: ``cross_entropy`` is softmax cross-entropy for single-label data and binary cross-entropy for multi-label
        data; ``binary_cross_entropy`` treats every class as its own yes-or-no question on both; the others are for
        single-label data, see ``nlx.losses``. With several labels, ``bootstrap_soft`` and ``bootstrap_hard`` mix label
        and prediction class by class.
      options: of the loss: ``beta``, ``q``, ``alpha``, ``log_zero``.

    Returns:
      The method, with the one candidate ``classifier``; on single-label data ``outlier_score`` is the prediction's
      entropy.

    Raises:
      ValueError: unknown loss, or, once data are seen, a loss that several labels cannot have.
    """
    known = ("cross_entropy", "binary_cross_entropy", *_SINGLE_LABEL)
    if loss not in known:
        raise ValueError(f"unknown loss {loss!r}; known: {', '.join(known)}")
    of_classes = partial(_SINGLE_LABEL[loss], **options) if loss in _SINGLE_LABEL else losses.cross_entropy

    def objective(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del params, memory, key, step
        logits, labels = outputs["logits"], batch["noisy_label"]
        if labels.ndim == 1 and loss != "binary_cross_entropy":
            return of_classes(logits, labels), Aux({})
        vectors = as_vectors(labels, logits.shape[-1])
        if loss in ("cross_entropy", "binary_cross_entropy"):
            return losses.binary_cross_entropy(logits, vectors), Aux({})
        if not loss.startswith("bootstrap"):
            raise ValueError(f"loss {loss!r} is for one label per example; take cross_entropy or bootstrap_soft")
        # A yes-or-no question is a choice between two classes of logits 0 and l.
        pair = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
        return jnp.sum(of_classes(pair, vectors.astype(jnp.int32)), axis=-1), Aux({})

    name = {"cross_entropy": "plain", "binary_cross_entropy": "plain_binary"}.get(loss, loss)
    return Method(name, without_state, objective, _prediction)


def trusting() -> Method:
    """Cross-entropy on the true label where it is trusted and on the noisy one elsewhere.

    With all labels trusted this is the upper bound of every comparison.
    """

    def objective(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del params, memory, key, step
        labels = batch["noisy_label"]
        if "trusted_label" in batch:
            trusted = batch["trusted_label"]
            labels = jnp.where(trusted >= 0, trusted.astype(labels.dtype), labels)
        logits = outputs["logits"]
        loss = losses.cross_entropy if labels.ndim == 1 else losses.binary_cross_entropy
        return loss(logits, labels), Aux({})

    return Method("trusting", without_state, objective, _prediction)


def backward(inverse: ArrayLike) -> Method:
    """Train on Patrini's unbiased estimate of the clean loss.

    Args:
      inverse: of the transition matrix, see ``nlx.transitions.invert``, float ``[K, K]``.

    Returns:
      The method, with the one candidate ``classifier``.
    """
    matrix = jnp.asarray(inverse, jnp.float32)

    def objective(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del params, memory, key, step
        return losses.backward_corrected(outputs["logits"], batch["noisy_label"], matrix), Aux({})

    return Method("backward", without_state, objective, _prediction)


def _prediction(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
    del params, memory
    logits = outputs["logits"]
    if batch["noisy_label"].ndim == 2:
        return only("classifier", jax.nn.sigmoid(logits))
    log_probs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return only("classifier", jnp.exp(log_probs), {"outlier_score": entropy})
