"""CAN, the Contrastive-Additive Noise network: a latent true label and a latent annotation quality for every example.

Yao et al., Deep Learning from Noisy Image Labels with Quality Embedding. The classifier P(z given x) learns from a
posterior q(z given x, noisy label), which learns to explain the noisy label through a decoder that also sees the
quality s of the annotation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import binary_cross_entropy
from nlx.methods.method import (
    Batch,
    Candidate,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    to_probs,
)
from nlx.metrics import as_vectors
from nlx.samplers import concrete, gaussian
from nlx.variational import label_divergence, quality_divergence, reconstruction

PAPER_STEPS = 176_105
"""Steps of the paper's run on WEB: 97,836 examples in batches of 50, 90 epochs."""

_CLASSES_AT_ONCE = 32


@dataclass(frozen=True)
class Heads:
    """Shape and start of the noise network, which the paper leaves open.

    Attributes:
      quality_dim: D, dimensions of the quality embedding.
      encoder_width: units of f_s, and of f_1 and f_2 (at least 2K for the identity start); None for 64, or 2K where
        that is more.
      decoder_width: units of the decoder's two hidden layers; likewise.
      start: ``identity``: q starts near the noisy label and the prediction added up, the decoder starts by passing z
        through. ``random``: like any other layer.
      prediction_weight: how often the prediction counts against the noisy label in the identity start.
      log_variance_floor: lowest log sigma^2.
    """

    quality_dim: int = 8
    encoder_width: int | None = None
    decoder_width: int | None = None
    start: Literal["identity", "random"] = "identity"
    prediction_weight: float = 4.0
    log_variance_floor: float = -8.0

    def widths(self, num_classes: int) -> tuple[int, int]:
        """Widths of encoder and decoder for so many classes."""
        least = max(64, 2 * num_classes)
        return self.encoder_width or least, self.decoder_width or least


class NoiseNetwork(nnx.Module):
    """Encoder and decoder of CAN: everything but the classifier. Labels in, logits out, all float ``[..., K]``."""

    def __init__(self, num_classes: int, heads: Heads, *, rngs: nnx.Rngs):
        k, d = num_classes, heads.quality_dim
        encoder, decoder = heads.widths(k)
        self.floor = heads.log_variance_floor
        self.contrast_in = nnx.Linear(k, encoder, rngs=rngs)
        self.contrast_out = nnx.Linear(encoder, 2 * d, rngs=rngs)
        self.add_noisy = nnx.Linear(k, encoder, rngs=rngs)
        self.add_prediction = nnx.Linear(k, encoder, use_bias=False, rngs=rngs)
        self.add_out = nnx.Linear(encoder, k, rngs=rngs)
        self.decode_in = nnx.Linear(k + d, decoder, rngs=rngs)
        self.decode_mid = nnx.Linear(decoder, decoder, rngs=rngs)
        self.decode_out = nnx.Linear(decoder, k, rngs=rngs)
        if heads.start == "identity":
            self._start_as_identity(k, heads)

    def quality(self, noisy: Array, prediction: Array) -> tuple[Array, Array]:
        """Contrastive layer: mean and log-variance of q(s given x, noisy label), ``[..., D]`` each."""
        contrast = nnx.relu(self.contrast_in(noisy)) - nnx.relu(self.contrast_in(prediction))
        mean, log_variance = jnp.split(self.contrast_out(contrast), 2, axis=-1)
        return mean, jnp.maximum(log_variance, self.floor)

    def label(self, noisy: Array, prediction: Array) -> Array:
        """Additive layer: log-odds of q(z given x, noisy label).

        The paper draws no activation between the sum and f'_t; without one q would be a logistic regression on both,
        which cannot trust one of them depending on the other. So: a ReLU.
        """
        return self.add_out(nnx.relu(self.add_noisy(noisy) + self.add_prediction(prediction)))

    def decode(self, z: Array, s: Array) -> Array:
        """Decoder: log-odds of P(noisy label given z, s)."""
        hidden = nnx.relu(self.decode_in(jnp.concatenate([z, s], axis=-1)))
        return self.decode_out(nnx.relu(self.decode_mid(hidden)))

    def _start_as_identity(self, k: int, heads: Heads) -> None:
        """Start with q = sigma(4 (noisy + w prediction - (1 + w)/2)) and P(noisy given z, s) = sigma(4 (z - 1/2))."""
        w, gain = heads.prediction_weight, 4.0
        if min(heads.widths(k)) < 2 * k:
            raise ArgumentError(
                f"`start`=identity needs `encoder_width` and `decoder_width` of at least 2K = {2 * k}; widen them or "
                "use `start`=random"
            )

        def put(layer: nnx.Linear, rows: slice, value: float, columns: slice) -> None:
            layer.kernel[...] = layer.kernel[...].at[rows, columns].set(value * jnp.eye(k))

        def shift(layer: nnx.Linear, columns: slice, value: float) -> None:
            layer.bias[...] = layer.bias[...].at[columns].set(value)  # type: ignore[index]

        # A pair of ReLUs passes a value of either sign: x = relu(x) - relu(-x). The other units keep their random
        # start.
        plus, minus, first = slice(0, k), slice(k, 2 * k), slice(0, k)
        for layer in (self.decode_in, self.decode_mid):
            layer.kernel[...] = layer.kernel[...].at[:, : 2 * k].set(0.0)
        for layer in (self.add_out, self.decode_out):
            layer.kernel[...] = layer.kernel[...] * 0.1
        for columns, sign in ((plus, 1.0), (minus, -1.0)):
            put(self.add_noisy, first, sign, columns)
            put(self.add_prediction, first, sign * w, columns)
            shift(self.add_noisy, columns, -sign * (1 + w) / 2)
            put(self.decode_in, first, sign, columns)
            shift(self.decode_in, columns, -sign * 0.5)
            put(self.decode_mid, columns, 1.0, columns)
            put(self.add_out, columns, sign * gain, first)
            put(self.decode_out, columns, sign * gain, first)


def paper_schedule(total_steps: int, rate: float | None = None, floor: float = 0.5) -> optax.Schedule:
    """The curve that the paper lets tau and rho follow: ``max(floor, exp(-rate * step))``.

    Args:
      total_steps: length of the run.
      rate: per step; None stretches or shrinks the paper's 3e-5 to this run's length, so that the floor of 0.5 is
        reached after 13 % of the run, as in the paper's.
      floor: lowest value.

    Returns:
      step -> value, float32 scalar.
    """
    per_step = 3e-5 * PAPER_STEPS / total_steps if rate is None else rate
    return lambda step: jnp.maximum(floor, jnp.exp(-per_step * jnp.asarray(step, jnp.float32)))


def can(
    num_classes: int,
    *,
    temperature: optax.Schedule,
    rho: optax.Schedule,
    regularizer: float = 0.3,
    samples: int = 1,
    heads: Heads | None = None,
) -> Method:
    r"""The Contrastive-Additive Noise network as a method.

    The loss is a surrogate whose gradient is the paper's Eq. 6 and 7: the noise network follows the objective of Eq. 4
    with the classifier's prediction held constant; the classifier follows
    :math:`(1 - \rho) \nabla \mathrm{KL}(q \| P) + \rho \nabla \mathrm{CE}(P, \tilde y)` with q held constant. Its value
    is Eq. 4's plus the classifier's term.

    Args:
      num_classes: K.
      temperature: tau(step) > 0 of the concrete samples.
      rho: rho(step) in [0, 1], the share of plain cross-entropy in the classifier's gradient.
      regularizer: lambda >= 0 (paper 0.3).
      samples: N, samples of (z, s) per example (paper 1).
      heads: shape and start of the noise network.

    Returns:
      The method. Its posterior has the candidates ``additive`` (q of the additive layer) and ``bayes``
      (P(z given x) P(noisy label given z, s = mu)), whose cost is the negative evidence lower bound at s = mu, and the
      belief ``classifier``. The bound favours copies of the noisy label, so that it decides nothing in the end.

    Raises:
      ArgumentError: regularizer < 0, samples < 1, or widths too small for the identity start.
    """
    if regularizer < 0:
        raise ArgumentError(f"`regularizer` (lambda) must be at least 0, got {regularizer}")
    if samples < 1:
        raise ArgumentError(f"`samples` must be at least 1, got {samples}")
    shape = heads or Heads()

    def build(key: Array) -> NoiseNetwork:
        return NoiseNetwork(num_classes, shape, rngs=nnx.Rngs(params=key))

    graph = nnx.graphdef(nnx.eval_shape(build, jax.random.key(0)))

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del outputs, size
        return nnx.to_pure_dict(nnx.state(build(key))), ()

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        network = nnx.merge(graph, params)
        logits = outputs["logits"]
        noisy = as_vectors(batch["noisy_label"], num_classes)
        # To the noise network the classifier is a constant, both as its input and as its prior (Eq. 6).
        prior = jax.lax.stop_gradient(logits)
        prediction = jax.nn.sigmoid(prior)

        q = network.label(noisy, prediction)
        mean, log_variance = network.quality(noisy, prediction)
        z_key, s_key = jax.random.split(key)
        z = concrete.sample(z_key, _repeat(q, samples), temperature(step))
        s = gaussian.sample(s_key, _repeat(mean, samples), _repeat(log_variance, samples))
        explained = reconstruction(network.decode(z, s), noisy)
        about_label = label_divergence(q, prior, regularizer)
        about_quality = quality_divergence(mean, log_variance, regularizer)
        objective = explained + about_label + about_quality

        # The gradient of KL(q || P) with respect to P is that of the cross-entropy of P against q (Eq. 6, last line).
        share = jnp.asarray(rho(step), logits.dtype)
        target = (1 - share) * jax.lax.stop_gradient(jax.nn.sigmoid(q)) + share * noisy
        classifier = binary_cross_entropy(logits, target)
        metrics = {
            "objective": objective,
            "reconstruction": explained,
            "label_divergence": about_label,
            "quality_divergence": about_quality,
            "rho": share,
        }
        return objective + classifier, memory, metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory
        network = nnx.merge(graph, params)
        single = batch["noisy_label"].ndim == 1
        logits = outputs["logits"]
        noisy = as_vectors(batch["noisy_label"], num_classes)
        prediction = jax.nn.sigmoid(logits)
        mean, _ = network.quality(noisy, prediction)

        def evidence(z: Array) -> Array:
            return -binary_cross_entropy(network.decode(z, mean), noisy)

        by_name = {
            "additive": network.label(noisy, prediction),
            "bayes": _bayes_logits(evidence, logits, single),
        }
        candidates = {}
        for name, log_odds in by_name.items():
            probs = to_probs(log_odds, batch["noisy_label"])
            inside = jnp.clip(probs, 1e-6, 1 - 1e-6)
            cost = label_divergence(jnp.log(inside) - jnp.log1p(-inside), logits) - evidence(inside)
            candidates[name] = Candidate(probs, cost)
        classifier = Column(to_probs(logits, batch["noisy_label"]), "belief")
        return Posterior(candidates, {"classifier": classifier, "quality_mean": Column(mean)})

    return Method("can", loss, posterior, init)


def _bayes_logits(evidence: Callable[[Array], Array], logits: Array, single: bool) -> Array:
    """Log-odds of P(z given x) P(noisy label given z, s = mu).

    Single-label: exact, over the K one-hot z, up to a constant. Multi-label: one class at a time, the others at their
    prior mean (2K decoder passes; enumerating all 2^K vectors would be exact).
    """
    prior = jax.nn.sigmoid(logits)

    def one_class(k: Array) -> Array:
        if single:
            return evidence(jnp.broadcast_to(jax.nn.one_hot(k, logits.shape[-1]), logits.shape))
        return evidence(prior.at[:, k].set(1.0)) - evidence(prior.at[:, k].set(0.0))

    # A few classes at a time: all at once would take [B, K, decoder width] of memory.
    return logits + jax.lax.map(one_class, jnp.arange(logits.shape[-1]), batch_size=_CLASSES_AT_ONCE).T


def _repeat(x: Array, times: int) -> Array:
    return jnp.broadcast_to(x[None], (times, *x.shape))
