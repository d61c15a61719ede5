"""The noise layer: a transition matrix after the softmax, learned with the network or given (Sukhbaatar et al.)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx import transitions
from nlx.arguments import ArgumentError
from nlx.losses import binary_forward_corrected, forward_corrected
from nlx.methods.method import (
    KNOWN_OUTLIER,
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

Penalty = Literal["decay", "trace", "volume"]
PAPERS: dict[Penalty, float] = {"decay": 0.1, "trace": 0.1, "volume": 1e-4}
"""The papers' weights of the penalties."""

_CLASSES = 100  # up to which the penalty is the papers'
_SEVERAL = 0.2  # of decay where there are several labels to an example: a class's matrix meets few that are true
_RARE = -3.0  # first logit of the outliers


def noise_layer(
    num_classes: int,
    *,
    learn_from: int,
    learn_until: int | None = None,
    penalty: Penalty = "decay",
    strength: float | None = None,
    gradient_limit: float | None = 1.0,
    multi_label: bool = False,
    start: ArrayLike | None = None,
) -> Method:
    r"""Learn the transition matrix together with the network.

    The loss is :func:`nlx.losses.forward_corrected`. T starts as the identity and stays there for ``learn_from`` steps;
    then it follows its gradient and every row is projected back onto the simplex. A penalty pushes T away from the
    identity, which would explain any labels that the network can memorize:

    .. math:: \text{decay}: \tfrac{s}{2} \sum_{ij} T_{ij}^2 \qquad \text{trace}: s \sum_i T_{ii}
        \qquad \text{volume}: s \ln |\det T|

    Of an estimate to start from, there is no need to be pushed away: it is revised. With several labels per example
    every class has a 2 x 2 matrix of its own.

    Args:
      num_classes: K.
      learn_from: step from which T is learned (paper: 5 or 30 epochs; one epoch's steps are a good start, for a network
        that has begun to memorize wrong labels keeps T at the identity, which explains them).
      learn_until: step from which T is held where it is; None for the end of the run (paper).
      penalty: weight decay (paper's experiments), trace (paper's theory), or volume: of all matrices that explain the
        labels that of the smallest simplex (Li et al.; T here is 0.999 T + 0.001 I, so that it is finite).
      strength: s, at least 0; None for the papers': 0.1 (or 0.02 to be milder), of volume 0.0001; of one
        label beyond 100 classes less in proportion, for a row then meets few labels, of several 0.02 of decay; 0 with a
        start.
      gradient_limit: rows of T's gradient are cut to this length, so that one label that seemed impossible does not
        throw a row over; None for no limit. (The authors' code cuts entries at 0.1, which at the identity makes all of
        them equal, so that T cannot leave it.)
      multi_label: whether labels are {0, 1} vectors.
      start: T that is used from the first step and revised from ``learn_from`` on, float ``[K, K]`` or ``[K, 2, 2]``;
        None for the identity.

    Returns:
      The method, with the one candidate ``bayes``; predictions leave the layer out.

    Raises:
      ArgumentError: strength < 0, a gradient limit that is not above 0, or a start of another shape.
      ValueError: rows of the start that are no distributions.

    References:
      Sukhbaatar et al., Training Convolutional Networks with Noisy Labels, 2014, section 4.2.
      Li et al., Provably End-to-end Label-Noise Learning without Anchor Points (VolMinNet), 2021, Eq. 4.
      Xia et al., Are Anchor Points Really Indispensable in Label-Noise Learning? (T-revision), 2019.
    """
    if strength is None:
        share = (_SEVERAL if penalty == "decay" else 1.0) if multi_label else min(1.0, _CLASSES / num_classes)
        strength = PAPERS[penalty] * share if start is None else 0.0
    if strength < 0:
        raise ArgumentError(f"`strength` must be at least 0, got {strength}")
    if gradient_limit is not None and not gradient_limit > 0:
        raise ArgumentError(f"`gradient_limit` must be above 0, got {gradient_limit}")
    identity = jnp.broadcast_to(jnp.eye(2), (num_classes, 2, 2)) if multi_label else jnp.eye(num_classes)
    if start is not None and np.shape(start) != identity.shape:
        raise ArgumentError(f"`start` must be {list(identity.shape)}, got {list(np.shape(start))}")
    first = identity if start is None else jnp.asarray(start, jnp.float32)
    transitions.check(first)

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs, num_classes, size
        return {"transition": first}, ()

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key
        learning = (step >= learn_from) & (step < (2**31 - 1 if learn_until is None else learn_until))
        transition = params["transition"]
        if gradient_limit is not None:
            transition = _limited(transition, gradient_limit)
        transition = jnp.where(learning, transition, jax.lax.stop_gradient(transition))
        explained = _forward(outputs["logits"], batch["noisy_label"], transition)
        diagonal = jnp.diagonal(transition, axis1=-2, axis2=-1)
        if penalty == "volume":
            size = jnp.sum(jnp.linalg.slogdet(0.999 * transition + 0.001 * identity)[1])
        else:
            size = 0.5 * jnp.sum(transition**2) if penalty == "decay" else jnp.sum(diagonal)
        metrics = {"explained": explained, "mean_diagonal": jnp.mean(diagonal)}
        return explained + strength * size, memory, metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory
        return _bayes(outputs["logits"], batch["noisy_label"], params["transition"])

    def project(params: Params) -> Params:
        return {"transition": transitions.project(params["transition"])}

    return Method("noise_layer", loss, posterior, init, project, transition=lambda params: params["transition"])


def forward(transition: ArrayLike) -> Method:
    """Train through a transition matrix that is known: the forward correction, or the noise layer with T given.

    Args:
      transition: ``T[i, j] = p(noisy = j | true = i)``, float ``[K, K]``, or ``[K, 2, 2]`` for several labels.

    Returns:
      The method, with the one candidate ``bayes``.

    References:
      Patrini et al., Making Deep Neural Networks Robust to Label Noise, 2017.
    """
    matrix = jnp.asarray(transition, jnp.float32)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        return _forward(outputs["logits"], batch["noisy_label"], matrix), memory, {}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, memory
        return _bayes(outputs["logits"], batch["noisy_label"], matrix)

    return Method("forward", loss, posterior, transition=lambda params: matrix)


def outliers(num_classes: int, alpha: float) -> Method:
    r"""Train with one more class, for examples that are of none of the others.

    T is fixed: the identity on the K classes, and for an outlier alpha on its own class and (1 - alpha)/K on every
    other one. The logit of class K + 1 is a linear function of the features, -3 at the start: rare,
    so that it does not swallow a class before the others are told apart. Known outliers
    (``trusted_label`` of -2) carry its label, all other examples their noisy one.

    Args:
      num_classes: K.
      alpha: share of outliers that are known to be outliers, an estimate, in (0, 1].

    Returns:
      The method, whose posterior is the classifier's prediction given that an example is of one of the K classes.
      ``outlier_score`` is p(outlier given x).

    Raises:
      ValueError: alpha outside (0, 1].

    References:
      Sukhbaatar et al., Training Convolutional Networks with Noisy Labels, 2014, section 4.3.
    """
    matrix = transitions.outlier(num_classes, alpha)

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, num_classes, size
        return {"weights": jnp.zeros((outputs["features"].shape[-1], 1)), "bias": jnp.full(1, _RARE)}, ()

    def with_outlier(params: Params, outputs: Outputs) -> Array:
        logit = outputs["features"] @ params["weights"] + params["bias"][None]
        return jnp.concatenate([outputs["logits"], logit], axis=-1)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, step
        labels = batch["noisy_label"]
        if "trusted_label" in batch:
            labels = jnp.where(batch["trusted_label"] == KNOWN_OUTLIER, num_classes, labels)
        logits = with_outlier(params, outputs)
        return forward_corrected(logits, labels, matrix), memory, {"outliers": jax.nn.softmax(logits)[:, -1]}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del memory, batch
        score = jax.nn.softmax(with_outlier(params, outputs))[:, -1]
        column = Column(score, "outlier_score")
        return single_posterior("classifier", jax.nn.softmax(outputs["logits"]), {"outlier_score": column})

    return Method("outlier_layer", loss, posterior, init, outliers=True)


def _forward(logits: Array, labels: Array, transition: Array) -> Array:
    if labels.ndim == 2:
        return binary_forward_corrected(logits, labels, transition)
    return forward_corrected(logits, labels, transition)


def _bayes(logits: Array, labels: Array, transition: Array) -> Posterior:
    bayes = transitions.posterior if labels.ndim == 1 else transitions.binary_posterior
    classifier = Column(to_probs(logits, labels), "belief")
    return single_posterior("bayes", bayes(logits, labels, transition), {"classifier": classifier})


def _limited(x: Array, limit: float) -> Array:
    """The identity, with a gradient whose rows are no longer than ``limit``."""

    @jax.custom_vjp
    def same(x: Array) -> Array:
        return x

    def shortened(saved: None, grad: Array) -> tuple[Array]:
        del saved
        length = jnp.linalg.norm(grad, axis=-1, keepdims=True)
        return (grad * jnp.minimum(1.0, limit / jnp.maximum(length, limit)),)

    same.defvjp(lambda x: (x, None), shortened)
    return same(x)
