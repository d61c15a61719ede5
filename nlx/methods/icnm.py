"""ICNM: which classes are seen, and which of those are then reported, each from the image (Misra et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import conditional_noise
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
    single_posterior,
    to_probs,
)
from nlx.metrics import as_vectors


def icnm(*, start: float = 2.0) -> Method:
    r"""Two heads on one backbone: visual presence, and an image-dependent transition on it for every class.

    .. math:: p(\tilde y_k \mid x) = \sum_{j \in \{0, 1\}} r_k(\tilde y_k \mid j, x)\, v_k(j \mid x)

    The backbone's logits are the presence v; r is linear in the features and starts as the same for all images, near
    the identity. Single-label data are taken as K yes-or-no questions.

    Args:
      start: log-odds of reporting right at the start, above 0; the paper says nothing of the start.

    Returns:
      The method. The candidate ``bayes`` is p(y given x and the noisy label); predictions are the visual presence.

    Raises:
      ArgumentError: start is not above 0.

    References:
      Misra et al., Seeing through the Human Reporting Bias, 2016, section 3.
    """
    if not start > 0:
        raise ArgumentError(f"`start` must be above 0, got {start}")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, size
        bias = jnp.broadcast_to(jnp.array([-start, start]), (num_classes, 2))
        return {"weights": jnp.zeros((outputs["features"].shape[-1], 2, num_classes)), "bias": bias}, ()

    def reporting(params: Params, outputs: Outputs) -> Array:
        # K comes last in the weights: a TPU would lay them out anew where two do, twice at every step.
        odds = jnp.einsum("bf,fjk->bjk", outputs["features"], params["weights"])
        return odds.swapaxes(1, 2) + params["bias"][None]

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, step
        labels = as_vectors(batch["noisy_label"], outputs["logits"].shape[-1])
        return conditional_noise(outputs["logits"], reporting(params, outputs), labels), memory, {}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory
        logits, odds = outputs["logits"], reporting(params, outputs)
        said = as_vectors(batch["noisy_label"], logits.shape[-1])[..., None] > 0
        log_said = jax.nn.log_sigmoid(jnp.where(said, odds, -odds))
        bayes = logits + log_said[..., 1] - log_said[..., 0]
        classifier = Column(to_probs(logits, batch["noisy_label"]), "belief")
        return single_posterior("bayes", to_probs(bayes, batch["noisy_label"]), {"classifier": classifier})

    return Method("icnm", loss, posterior, init)
