"""ICNM: which classes are seen, and which of those are then reported, each from the image (Misra et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from nlx.losses import conditional_noise
from nlx.methods.method import Aux, Batch, Memory, Method, Outputs, Params, Posterior, only
from nlx.metrics import as_vectors


def icnm(num_classes: int, num_features: int, *, start: float = 2.0) -> Method:
    r"""Two heads on one backbone: visual presence, and an image-dependent transition on it for every class.

    .. math:: p(\tilde y_k \mid x) = \sum_{j \in \{0, 1\}} r_k(\tilde y_k \mid j, x)\, v_k(j \mid x)

    The backbone's logits are the presence v; r is linear in the features and starts as the same for all images, near
    the identity. Single-label data are taken as K yes-or-no questions.

    Args:
      num_classes: K.
      num_features: F, width of the backbone's ``features``.
      start: log-odds of reporting right at the start, above 0; the paper says nothing of the start.

    Returns:
      The method. The candidate ``bayes`` is p(y given x and the noisy label); predictions are the visual presence.

    Raises:
      ValueError: start is not above 0.

    References:
      Misra et al., Seeing through the Human Reporting Bias, 2016, section 3.
    """
    if not start > 0:
        raise ValueError(f"start must be above 0, got {start}")

    def init(key: Array, batch: Batch, size: int) -> tuple[Params, Memory]:
        del key, batch, size
        bias = jnp.broadcast_to(jnp.array([-start, start]), (num_classes, 2))
        return {"weights": jnp.zeros((num_features, num_classes, 2)), "bias": bias}, {}

    def reporting(params: Params, outputs: Outputs) -> Array:
        return jnp.einsum("bf,fkj->bkj", outputs["features"], params["weights"]) + params["bias"][None]

    def loss(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del memory, key, step
        labels = as_vectors(batch["noisy_label"], num_classes)
        return conditional_noise(outputs["logits"], reporting(params, outputs), labels), Aux({})

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory
        single = batch["noisy_label"].ndim == 1
        logits, odds = outputs["logits"], reporting(params, outputs)
        said = as_vectors(batch["noisy_label"], num_classes)[..., None] > 0
        log_said = jax.nn.log_sigmoid(jnp.where(said, odds, -odds))
        bayes = logits + log_said[..., 1] - log_said[..., 0]
        # Where exactly one class is true, independent Bernoullis given that are a softmax of their log-odds.
        to_probs = jax.nn.softmax if single else jax.nn.sigmoid
        return only("bayes", to_probs(bayes), {"classifier": to_probs(logits)})

    return Method("icnm", init, loss, posterior)
