"""Plain training on the noisy labels: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
from jax import Array

from nlx.losses import binary_cross_entropy, cross_entropy
from nlx.methods.method import Aux, Batch, Memory, Method, Outputs, Params, Posterior, only, without_state
from nlx.metrics import as_vectors

LossName = Literal["cross_entropy", "binary_cross_entropy"]


def plain(loss: LossName = "cross_entropy") -> Method:
    """Train on the labels as they are; the classifier's own prediction stands for the posterior.

    Args:
      loss: ``cross_entropy`` is softmax cross-entropy for single-label data and binary cross-entropy for multi-label
        data; ``binary_cross_entropy`` treats every class as its own yes-or-no question on both.

    Returns:
      The method, with the one candidate ``classifier``.

    Raises:
      ValueError: unknown loss.
    """
    if loss not in ("cross_entropy", "binary_cross_entropy"):
        raise ValueError(f"unknown loss {loss!r}; known: cross_entropy, binary_cross_entropy")

    def objective(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del params, memory, key, step
        logits, labels = outputs["logits"], batch["noisy_label"]
        if labels.ndim == 1 and loss == "cross_entropy":
            return cross_entropy(logits, labels), Aux({})
        return binary_cross_entropy(logits, as_vectors(labels, logits.shape[-1])), Aux({})

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, memory
        to_probs: Callable[[Array], Array] = jax.nn.softmax if batch["noisy_label"].ndim == 1 else jax.nn.sigmoid
        return only("classifier", to_probs(outputs["logits"]))

    return Method("plain" if loss == "cross_entropy" else "plain_binary", without_state, objective, posterior)
