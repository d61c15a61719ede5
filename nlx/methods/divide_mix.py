"""DivideMix: labels whose loss is high are put aside, and two networks guess what they are for each other."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import cross_entropy
from nlx.methods.method import (
    UNKNOWN,
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
)

_ROUNDS = 30  # of EM for two Gaussians in one dimension
_WIDTH = 5e-4  # least variance of each, of losses from 0 to 1 (authors' code)
_LEAST = 1e-4  # probability


class Clean(NamedTuple):
    """What is kept of every example: how likely each network finds its label right, float32 ``[n, 2]``."""

    probability: Array


def divide_mix(
    *,
    warm_up: int,
    unlabelled_weight: float = 0.0,
    rise: int = 1,
    start: int = 0,
    temperature: float = 0.5,
    threshold: float = 0.5,
) -> Method:
    r"""MixMatch on what the other network finds right, as labelled, and on the rest, as unlabelled examples.

    Between epochs, two Gaussians are fitted to each network's losses of the given labels; w is the probability of the
    one of lower mean, and 1 during the warm-up. For each network, an example with the *other* one's
    :math:`w > \tau` is labelled, with :math:`w \tilde y + (1 - w) p` (p is its own mean prediction over two views);
    others get what both networks say on both views. Either is sharpened, :math:`\propto y^{1/T}`, and mixed as the
    inputs are, see :func:`nlx.models.mixed_pair`.

    .. math:: \ell = \mathrm{CE}_{\text{labelled}} + \lambda_u \lVert s - y \rVert^2_{\text{unlabelled}} / K
        + \mathrm{KL}(1/K \,\|\, \bar s)

    Beside the paper: batches are drawn from all examples and divided then, rather than half and half; both networks
    take a step at once; the warm-up mixes as well; w of every view's mate is drawn for itself. Memory: 8 bytes an
    example; in a step each network sees an example four times, and learns from two of these.

    Args:
      warm_up: epochs before the first division, at least 1 (paper 10 of 300 on CIFAR-10, 30 on CIFAR-100).
      unlabelled_weight: :math:`\lambda_u`, at least 0. The paper sets it by the noise: 0 where little is wrong, 25 to
        150 for more symmetric noise; of labels by people 0 is best.
      rise: steps over which it comes from 0, after step ``start`` (paper: 16 epochs after the warm-up).
      start: see ``rise``.
      temperature: T, above 0 (paper 0.5).
      threshold: :math:`\tau`, in [0, 1] (paper 0.5).

    Returns:
      A method for one label per example, of a model made by :func:`nlx.models.mixed_pair`. Trusted labels count as
      right, missing ones as unlabelled. Its posterior has the classifier and ``refined``,
      :math:`w \tilde y + (1 - w) p`, and the column ``clean``, the mean of both networks' w.

    Raises:
      ArgumentError: a number out of range; when trained, the model is no mixed pair.

    References:
      Li et al., DivideMix: Learning with Noisy Labels as Semi-supervised Learning, 2020, equations 3 to 12.
    """
    if not (warm_up >= 1 and unlabelled_weight >= 0 and rise >= 1 and temperature > 0 and 0 <= threshold <= 1):
        raise ArgumentError(
            "`warm_up` and `rise` must be at least 1, `unlabelled_weight` at least 0, `temperature` above 0 and "
            f"`threshold` in [0, 1], got {warm_up}, {rise}, {unlabelled_weight}, {temperature} and {threshold}"
        )

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs, num_classes
        return {}, Clean(jnp.ones((size, 2)))

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params
        if "mixed_logits" not in outputs:
            raise ArgumentError("DivideMix needs two networks that mix: make the model by `nlx.models.mixed_pair`")
        given, clean = _known(memory.probability[:, ::-1], batch)
        num_classes = outputs["logits"].shape[-1]
        said = jnp.mean(jnp.exp(outputs["guess_logits"]), axis=1)
        labelled = (given >= 0)[:, None] & (clean > threshold)
        refined = _refined(clean, given, said)
        guessed = jnp.broadcast_to(jnp.mean(said, axis=1, keepdims=True), said.shape)
        target = _sharpened(jnp.where(labelled[..., None], refined, guessed), temperature)

        weight, mate = outputs["mix_weight"][..., None, None], outputs["mix_with"]
        mixed = weight * target[:, None] + (1 - weight) * target[mate]
        log_s = jax.nn.log_softmax(outputs["mixed_logits"])
        surprise = -jnp.sum(mixed * log_s, axis=-1)
        square = jnp.mean((jnp.exp(log_s) - mixed) ** 2, axis=-1)
        ramp = unlabelled_weight * jnp.clip((step - start) / rise, 0.0, 1.0)
        views = surprise.shape[1]
        learnt = jnp.where(labelled, jnp.sum(surprise, axis=1) * _per_one(labelled, views), 0.0)
        drawn = jnp.where(labelled, 0.0, jnp.sum(square, axis=1) * _per_one(~labelled, views))
        mean = jnp.maximum(jnp.mean(jnp.exp(log_s), axis=(0, 1)), _LEAST)
        spread = -jnp.mean(jnp.log(mean * num_classes), axis=-1)
        metrics = {"labelled": jnp.mean(labelled, axis=1, dtype=jnp.float32), "prior_divergence": jnp.mean(spread)}
        return jnp.sum(learnt + ramp * drawn, axis=1) + jnp.sum(spread), memory, metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params
        classifier, each = jax.nn.softmax(outputs["logits"]), jax.nn.softmax(outputs["pair_logits"])
        given, clean = _known(memory.probability[:, ::-1], batch)
        refined = jnp.mean(_refined(clean, given, each), axis=1)
        even = jnp.zeros(len(classifier))
        beliefs = {"classifier": Candidate(classifier, even), "refined": Candidate(refined, even)}
        return Posterior(beliefs, {"clean": Column(jnp.mean(clean, axis=1))})

    def refresh(key: Array, memory: Memory, features: Array, labels: Batch) -> Memory:
        del key, memory
        given = labels["noisy_label"]
        logits = features.reshape(len(features), 2, -1)
        losses = jax.vmap(cross_entropy, (1, None), 1)(logits, jnp.maximum(given, 0))
        return Clean(jax.vmap(lower_of_two, (1, None), 1)(losses, given >= 0))

    def refresh_after(epochs: int) -> bool:
        return epochs >= warm_up

    return Method("divide_mix", loss, posterior, init, refresh=refresh, refresh_after=refresh_after)


def lower_of_two(values: Array, counts: Array) -> Array:
    """How likely each value comes from the lower one of two Gaussians that are fitted to all of them by EM.

    Values are brought to [0, 1] first; EM begins at the parts below and above their mean.

    Args:
      values: float32 ``[n]``.
      counts: which of them count, bool ``[n]``.

    Returns:
      Probabilities, float32 ``[n]``; 0 for what does not count, 1 where all values are equal.
    """
    low, high = jnp.min(values, where=counts, initial=jnp.inf), jnp.max(values, where=counts, initial=-jnp.inf)
    unit = jnp.where(counts, (values - low) / jnp.where(high > low, high - low, 1.0), 0.0)
    total = jnp.maximum(jnp.sum(counts, dtype=jnp.float32), 1.0)

    def update(_: int, share: Array) -> Array:
        """Probabilities ``[2, n]`` of both, after one round."""
        size = jnp.maximum(jnp.sum(share, axis=1), 1e-6)
        square = (unit[None] - (jnp.sum(share * unit[None], axis=1) / size)[:, None]) ** 2
        variance = jnp.sum(share * square, axis=1) / size + _WIDTH
        log = (jnp.log(size / total) - 0.5 * jnp.log(variance))[:, None] - 0.5 * square / variance[:, None]
        return jnp.where(counts[None], jax.nn.softmax(log, axis=0), 0.0)

    below = unit <= jnp.sum(unit) / total
    halves = (jnp.stack([below, ~below]) & counts[None]).astype(jnp.float32)
    share = jax.lax.fori_loop(0, _ROUNDS, update, halves)
    mean = jnp.sum(share * unit[None], axis=1) / jnp.maximum(jnp.sum(share, axis=1), 1e-6)
    lower = jnp.where(mean[0] <= mean[1], share[0], share[1])
    return jnp.where(counts & (high <= low), 1.0, lower)


def _known(clean: Array, batch: Batch) -> tuple[Array, Array]:
    """Labels ``[B]``, trusted ones where there are any, and how likely they are right, ``[B, 2]``."""
    given = batch["noisy_label"]
    if "trusted_label" in batch:
        sure = batch["trusted_label"] > UNKNOWN
        given = jnp.where(sure, batch["trusted_label"].astype(given.dtype), given)
        clean = jnp.where(sure[:, None], 1.0, clean)
    return given, jnp.where((given >= 0)[:, None], clean, 0.0)


def _refined(clean: Array, given: Array, said: Array) -> Array:
    """Equation 5, before sharpening, float32 ``[B, 2, K]``."""
    label = jax.nn.one_hot(given, said.shape[-1])[:, None]
    return clean[..., None] * label + (1 - clean[..., None]) * said


def _sharpened(probs: Array, temperature: float) -> Array:
    power = jnp.maximum(probs, 0.0) ** (1 / temperature)
    return power / jnp.sum(power, axis=-1, keepdims=True)


def _per_one(chosen: Array, views: int) -> Array:
    """Factor ``[1, 2]`` that makes sums over views, meant over the batch, means over the chosen examples' views."""
    return len(chosen) / (views * jnp.maximum(jnp.sum(chosen, axis=0, keepdims=True, dtype=jnp.float32), 1.0))
