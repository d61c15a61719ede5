"""Noise types: few trusted labels, many noisy ones, and noise that depends on the image (Xiao et al.).

Beside the classifier p(y given x), a second network p(z given x) says whether an example's label is right, randomly
wrong, or wrong in the way its class is usually confused. Both are pretrained on the examples whose label is trusted,
and then trained together by generalized EM, where the exact posterior of (y, z) is the target. What is visited in which
stage, for this method and the five it is compared to, stands in ``recipes/noise_types.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx import posteriors, transitions
from nlx.arguments import ArgumentError
from nlx.losses import cross_entropy, forward_corrected, soft_cross_entropy
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
    single_posterior,
)
from nlx.transitions.confusing import CONFUSING, noise_kinds


class Branch(NamedTuple):
    """The network p(z given x) as pure functions; it has no batch statistics, so no batch normalization.

    Attributes:
      init: (key, shapes of the backbone's outputs) -> params.
      apply: (params, outputs of the backbone, batch) -> logits of none, random and confusing noise, float32
        ``[B, 3]``.
    """

    init: Callable[[Array, Shapes], Params]
    apply: Callable[[Params, Outputs, Batch], Array]


def shared_trunk() -> Branch:
    """A linear layer on the backbone's ``features``, zero at the start: two heads on one trunk."""

    def init(key: Array, outputs: Shapes) -> Params:
        del key
        return {"head": {"weights": jnp.zeros((outputs["features"].shape[-1], 3)), "bias": jnp.zeros(3)}}

    def apply(params: Params, outputs: Outputs, batch: Batch) -> Array:
        del batch
        head = params["head"]
        return outputs["features"] @ head["weights"] + head["bias"][None, :]

    return Branch(init, apply)


def second_backbone(init: Callable[[Array], Params], apply: Callable[[Params, Array], Array]) -> Branch:
    """A network of its own on the batch's inputs, as in the paper.

    Args:
      init: key -> params.
      apply: (params, inputs ``[B, ...]`` as stored) -> logits float32 ``[B, 3]``, the same when training and not.

    Returns:
      The branch.
    """

    def on_batch(params: Params, outputs: Outputs, batch: Batch) -> Array:
        del outputs
        return apply(params, batch["inputs"])

    return Branch(lambda key, outputs: init(key), on_batch)


def noise_types(
    num_classes: int, confusing: ArrayLike, branch: Branch, *, clean_weight: float = 1.0, branch_rate: float = 1.0
) -> Method:
    r"""Train classifier and noise-type network by generalized EM, after both were pretrained on trusted examples.

    With q the posterior of :func:`nlx.posteriors.noise_types`, held constant,

    .. math:: \ell = \mathrm{CE}(p(y \mid x), q(y)) + \mathrm{CE}(p(z \mid x), q(z))

    where q is replaced by the known class and noise type of trusted examples. Stages before it pretrain the classifier
    (:func:`nlx.methods.plain.trusted_cross_entropy`) and p(z given x) (:func:`pretrain_noise_types`).

    Args:
      num_classes: K.
      confusing: matrix of confusing noise, float ``[K, K]``, see
        :func:`nlx.transitions.confusing.estimate_confusing`; it stays as it is, for learning it too has trivial
        solutions.
      branch: p(z given x): :func:`shared_trunk` or :func:`second_backbone` (paper).
      clean_weight: weight of trusted examples (paper 1, with trusted examples upsampled). Above 1 the classifier
        follows few trusted examples more closely; below 1 it takes upsampling back.
      branch_rate: learning rate of p(z given x) relative to the optimizer's, by scaling its gradient: right for SGD,
        without effect under Adam (paper 1). Below 1 for a branch that learns the trusted examples by heart.

    Returns:
      The method. The one candidate is q(y), ``posterior``, with the negative log-evidence as its cost; columns are
      ``noise_type``, q(z) ``[B, 3]``, and ``classifier``. Trusted labels have no part in them, so that they can be
      scored on any example; whoever exports cleaned labels knows the trusted ones.

    Raises:
      ArgumentError: shapes disagree, or a weight or rate that is negative.

    References:
      Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015, sections 3 and 4.
    """
    matrix = jnp.asarray(confusing, jnp.float32)
    if matrix.shape != (num_classes, num_classes):
        raise ArgumentError(f"`confusing` must be [K, K] for K = {num_classes} classes, got {matrix.shape}")
    if clean_weight < 0 or branch_rate < 0:
        raise ArgumentError(
            f"`clean_weight` and `branch_rate` must be at least 0, got {clean_weight} and {branch_rate}"
        )

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del num_classes, size
        return branch.init(key, outputs), ()

    def believe(params: Params, outputs: Outputs, batch: Batch) -> tuple[Array, posteriors.NoiseTypes]:
        kinds = branch.apply(params, outputs, batch)
        return kinds, posteriors.noise_types(outputs["logits"], kinds, batch["noisy_label"], matrix)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, step
        params = jax.tree.map(lambda x: _slowed(x, branch_rate), params)
        kinds, target = believe(params, outputs, batch)
        target = jax.tree.map(jax.lax.stop_gradient, target)
        known, true, true_kind = _trusted(batch, matrix)
        logits = outputs["logits"]
        about_class = soft_cross_entropy(
            logits, jnp.where(known[:, None], jax.nn.one_hot(true, num_classes, dtype=logits.dtype), target.label)
        )
        about_kind = soft_cross_entropy(
            kinds, jnp.where(known[:, None], jax.nn.one_hot(true_kind, 3, dtype=kinds.dtype), target.kind)
        )
        metrics = {
            "class_loss": about_class,
            "kind_loss": about_kind,
            "log_evidence": target.log_evidence,
            "believed_confusing": target.kind[:, CONFUSING],
            "trusted": known.astype(jnp.float32),
        }
        return jnp.where(known, clean_weight, 1.0) * (about_class + about_kind), memory, metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory
        _, belief = believe(params, outputs, batch)
        classifier = Column(jax.nn.softmax(outputs["logits"]), "belief")
        candidates = {"posterior": Candidate(belief.label, -belief.log_evidence)}
        return Posterior(candidates, {"noise_type": Column(belief.kind), "classifier": classifier})

    return Method("noise_types", loss, posterior, init)


def pretrain_noise_types(confusing: ArrayLike, branch: Branch, *, branch_rate: float = 1.0) -> Method:
    """Train p(z given x) alone, on the noise types of trusted examples; others give 0. The loss of a stage.

    The backbone gets no gradient: plain SGD leaves it as it is; momentum runs out and weight decay goes on.

    Args:
      confusing: as in :func:`noise_types`, whose parameters these are.
      branch: likewise.
      branch_rate: likewise.

    Raises:
      ArgumentError: a negative rate.
    """
    if branch_rate < 0:
        raise ArgumentError(f"`branch_rate` must be at least 0, got {branch_rate}")
    matrix = jnp.asarray(confusing, jnp.float32)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, step
        params = jax.tree.map(lambda x: _slowed(x, branch_rate), params)
        # A head on the trunk must not move the trunk while the classifier rests.
        kinds = branch.apply(params, jax.tree.map(jax.lax.stop_gradient, outputs), batch)
        known, _, true_kind = _trusted(batch, matrix)
        return cross_entropy(kinds, true_kind, where=known), memory, {}

    return Method("pretrain_noise_types", loss)


def bottom_up(transition: ArrayLike) -> Method:
    """Cross-entropy on trusted labels, and through a known transition matrix on the others.

    Args:
      transition: ``T[i, j] = p(noisy = j | true = i)``, counted on the trusted examples, float ``[K, K]``.

    Returns:
      The method, whose one candidate ``bayes`` takes no notice of trusted labels.

    References:
      Xiao et al., Table 1, model 5.
    """
    matrix = jnp.asarray(transition, jnp.float32)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        logits, noisy = outputs["logits"], batch["noisy_label"]
        trusted = _trusted_label(batch)
        known = trusted >= 0
        plain = cross_entropy(logits, jnp.where(known, trusted, noisy))
        return jnp.where(known, plain, forward_corrected(logits, noisy, matrix)), memory, {}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, memory
        logits = outputs["logits"]
        q = transitions.posterior(logits, batch["noisy_label"], matrix)
        return single_posterior("bayes", q, {"classifier": Column(jax.nn.softmax(logits), "belief")})

    return Method("bottom_up", loss, posterior)


def _trusted_label(batch: Batch) -> Array:
    """The trusted label of each example, negative where there is none, int ``[B]``."""
    noisy = batch["noisy_label"]
    return batch["trusted_label"] if "trusted_label" in batch else jnp.full_like(noisy, UNKNOWN)


def _trusted(batch: Batch, confusing: Array) -> tuple[Array, Array, Array]:
    """Which examples have a trusted label; the class of each, and the kind of its noise, where that one is right."""
    trusted, noisy = _trusted_label(batch), batch["noisy_label"]
    known = trusted >= 0
    true = jnp.where(known, trusted, noisy)
    return known, true, noise_kinds(true, noisy, confusing)


def _slowed(x: Array, rate: float) -> Array:
    """The identity, with a gradient of ``rate`` times its size."""

    @jax.custom_vjp
    def same(x: Array) -> Array:
        return x

    same.defvjp(lambda x: (x, None), lambda saved, grad: (rate * grad,))
    return same(x)
