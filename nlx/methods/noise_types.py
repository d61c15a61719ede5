"""Noise types: few trusted labels, many noisy ones, and noise that depends on the image (Xiao et al.).

Beside the classifier p(y given x), a second network p(z given x) says whether an example's label is right, randomly
wrong, or wrong in the way its class is usually confused. Both are pretrained on the examples whose label is trusted,
and then trained together by generalized EM, where the exact posterior of (y, z) is the target. What is visited in which
stage, for this method and the five it is compared to, stands in :mod:`nlx.training.strategies`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx import posteriors, transitions
from nlx.losses import cross_entropy, forward_corrected, soft_cross_entropy
from nlx.methods.method import UNKNOWN, Aux, Batch, Memory, Method, Outputs, Params, Posterior, only, without_state
from nlx.transitions.confusing import CONFUSING, noise_kinds


class Branch(NamedTuple):
    """The network p(z given x) as pure functions; it has no batch statistics, so no batch normalization.

    Attributes:
      init: key -> params.
      apply: (params, outputs of the backbone, batch) -> logits of none, random and confusing noise, float32
        ``[B, 3]``.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Outputs, Batch], Array]


def shared_trunk(num_features: int) -> Branch:
    """A linear layer on the backbone's ``features``, zero at the start: two heads on one trunk.

    Args:
      num_features: F, width of ``features``.

    Returns:
      The branch.
    """

    def init(key: Array) -> Params:
        del key
        return {"head": {"weights": jnp.zeros((num_features, 3)), "bias": jnp.zeros(3)}}

    def apply(params: Params, outputs: Outputs, batch: Batch) -> Array:
        del batch
        head = params["head"]
        return outputs["features"] @ head["weights"] + head["bias"][None, :]

    return Branch(init, apply)


def second_backbone(init: Callable[[Array], Params], apply: Callable[[Params, Array], Array]) -> Branch:
    """A network of its own on the batch's inputs, as in the paper.

    Args:
      init: key -> params.
      apply: (params, prepared inputs ``[B, ...]``) -> logits float32 ``[B, 3]``, the same when training and not.

    Returns:
      The branch.
    """

    def on_batch(params: Params, outputs: Outputs, batch: Batch) -> Array:
        del outputs
        return apply(params, batch["image"] if "image" in batch else batch["features"])

    return Branch(init, on_batch)


def noise_types(
    num_classes: int,
    confusing: ArrayLike,
    branch: Branch,
    *,
    boundaries: tuple[int, int],
    clean_weight: float = 1.0,
    branch_rate: float = 1.0,
) -> Method:
    r"""Train classifier and noise-type network by generalized EM, after pretraining both on trusted examples.

    The loss changes with the step. In stage 1 it is the classifier's cross-entropy on trusted labels; in stage 2 that
    of p(z given x) on the noise types of trusted examples, which leaves the backbone without gradient (plain SGD then
    leaves it as it is; momentum runs out and weight decay goes on). In stage 3, with q the posterior of
    :func:`nlx.posteriors.noise_types`, held constant,

    .. math:: \ell = \mathrm{CE}(p(y \mid x), q(y)) + \mathrm{CE}(p(z \mid x), q(z))

    where q is replaced by the known class and noise type of trusted examples. Examples without a trusted label give 0
    in the first two stages.

    Args:
      num_classes: K.
      confusing: matrix of confusing noise, float ``[K, K]``, see
        :func:`nlx.transitions.confusing.estimate_confusing`; it stays as it is, for learning it too has trivial
        solutions.
      branch: p(z given x): :func:`shared_trunk` or :func:`second_backbone` (paper).
      boundaries: steps at which stages 2 and 3 start.
      clean_weight: weight of trusted examples in stage 3 (paper 1, with trusted examples upsampled). Above 1 the
        classifier follows few trusted examples more closely; below 1 it takes upsampling back.
      branch_rate: learning rate of p(z given x) relative to the optimizer's, by scaling its gradient: right for SGD,
        without effect under Adam (paper 1). Below 1 for a branch that learns the trusted examples by heart.

    Returns:
      The method. The one candidate is q(y), ``posterior``, with the negative log-evidence as its cost; extras are
      ``noise_type``, q(z) ``[B, 3]``, and ``classifier``; the export has the rank by q(z = confusing) as well. Trusted
      labels have no part in them, so that they can be scored on any example; whoever exports cleaned labels knows the
      trusted ones.

    Raises:
      ValueError: shapes disagree, boundaries not in order, or a weight or rate that is negative.

    References:
      Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015, sections 3 and 4.
    """
    matrix = jnp.asarray(confusing, jnp.float32)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"confusing must be ({num_classes}, {num_classes}) for {num_classes} classes: {matrix.shape}")
    types_from, together_from = boundaries
    if not 0 <= types_from <= together_from:
        raise ValueError(f"boundaries must be two steps in order, got {boundaries}")
    if clean_weight < 0 or branch_rate < 0:
        raise ValueError(f"clean_weight and branch_rate must be at least 0, got {clean_weight} and {branch_rate}")

    def init(key: Array, batch: Batch, size: int) -> tuple[Params, Memory]:
        del batch, size
        return branch.init(key), {}

    def believe(params: Params, outputs: Outputs, batch: Batch) -> tuple[Array, posteriors.NoiseTypes]:
        kinds = branch.apply(params, outputs, batch)
        return kinds, posteriors.noise_types(outputs["logits"], kinds, batch["noisy_label"], matrix)

    def loss(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del memory, key
        together = step >= together_from
        # A head on the trunk must not move the trunk while the classifier rests.
        seen = jax.tree.map(lambda x: jnp.where(together, x, jax.lax.stop_gradient(x)), outputs)
        params = jax.tree.map(lambda x: _slowed(x, branch_rate), params)
        kinds, found = believe(params, seen, batch)
        target = jax.tree.map(jax.lax.stop_gradient, found)
        trusted = _trusted(batch)
        known = trusted >= 0
        true = jnp.where(known, trusted, batch["noisy_label"])
        true_kind = noise_kinds(true, batch["noisy_label"], matrix)
        hard, logits = known[:, None], outputs["logits"]
        about_class = soft_cross_entropy(
            logits, jnp.where(hard, jax.nn.one_hot(true, num_classes, dtype=logits.dtype), target.label)
        )
        about_kind = soft_cross_entropy(
            kinds, jnp.where(hard, jax.nn.one_hot(true_kind, 3, dtype=kinds.dtype), target.kind)
        )
        first, second = step < types_from, (step >= types_from) & ~together
        pretrained = jnp.where(first, about_class, 0.0) + jnp.where(second, about_kind, 0.0)
        weighed = jnp.where(known, clean_weight, 1.0) * (about_class + about_kind)
        metrics = {
            "class_loss": about_class,
            "kind_loss": about_kind,
            "log_evidence": target.log_evidence,
            "believed_confusing": target.kind[:, CONFUSING],
            "trusted": known.astype(jnp.float32),
        }
        return jnp.where(together, weighed, jnp.where(known, pretrained, 0.0)), Aux(metrics)

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory
        _, found = believe(params, outputs, batch)
        extras = {"noise_type": found.kind, "classifier": jax.nn.softmax(outputs["logits"])}
        return Posterior({"posterior": found.label}, {"posterior": -found.log_evidence}, extras)

    return Method("noise_types", init, loss, posterior, columns=_rank_by_confusion)


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
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del params, memory, key, step
        trusted, noisy = _trusted(batch), batch["noisy_label"]
        known = trusted >= 0
        plain = cross_entropy(outputs["logits"], jnp.where(known, trusted, noisy))
        return jnp.where(known, plain, forward_corrected(outputs["logits"], noisy, matrix)), Aux({})

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, memory
        logits = outputs["logits"]
        q = transitions.posterior(logits, batch["noisy_label"], matrix)
        return only("bayes", q, {"classifier": jax.nn.softmax(logits)})

    return Method("bottom_up", without_state, loss, posterior)


def _trusted(batch: Batch) -> Array:
    """The trusted label of each example, negative where there is none, int ``[B]``."""
    noisy = batch["noisy_label"]
    return batch["trusted_label"] if "trusted_label" in batch else jnp.full_like(noisy, UNKNOWN)


def _rank_by_confusion(extras: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """0 for the label that is most probably wrong in the way of its class, int32 ``[n]``."""
    order = np.argsort(-extras["noise_type"][:, CONFUSING], kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return {"confusing_rank": rank}


def _slowed(x: Array, rate: float) -> Array:
    """The identity, with a gradient of ``rate`` times its size."""

    @jax.custom_vjp
    def same(x: Array) -> Array:
        return x

    same.defvjp(lambda x: (x, None), lambda saved, grad: (rate * grad,))
    return same(x)
