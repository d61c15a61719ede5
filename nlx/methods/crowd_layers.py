"""A layer for each annotator on top of the classifier, trained by gradient: CrowdLayer, and CoNAL."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.methods.crowd import Given, given_answers, padded
from nlx.methods.method import Batch, Memory, Method, Metrics, Outputs, Params, Shapes


def crowd_layer(annotators: ArrayLike, labels: ArrayLike, *, num_annotators: int, num_classes: int) -> Method:
    r"""CrowdLayer: each annotator's answers by a linear layer of their own on the class probabilities.

    .. math:: \ell = \sum_{(a, j)} \mathrm{CE}(p(y \mid x)\, W^a, j), \qquad W^a = I \text{ at the start}

    Args:
      annotators: who answers, int ``[n, P]`` in ``[0, A)``, -1 where an example has fewer answers.
      labels: the answers, int ``[n, P]`` in ``[0, K)``, -1 likewise.
      num_annotators: A.
      num_classes: K.

    Returns:
      A method for one label per example, whose belief is the classifier's. The loss is a mean over the example's
      answers, where the paper has the sum, so that a step is no longer the more answers there are.

    Raises:
      ArgumentError: arrays that do not fit.

    References:
      Rodrigues and Pereira, Deep Learning from Crowds, 2018, section 4 (the variant MW).
    """
    given = given_answers(annotators, labels, num_annotators, num_classes)

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs
        own = jnp.broadcast_to(jnp.eye(num_classes), (num_annotators, num_classes, num_classes))
        return {"own": own}, _in_memory(given, size)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, batch, step
        probs = jax.nn.softmax(outputs["logits"])
        scores = jnp.einsum("bk,bpkj->bpj", probs, params["own"][jnp.maximum(memory.annotator, 0)])
        return _of_answers(scores, memory), memory, {}

    return Method("crowd_layer", loss, init=init)


def conal(
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_annotators: int,
    num_classes: int,
    width: int = 20,
    apart: float = 1e-5,
) -> Method:
    r"""CoNAL: noise that all annotators share and noise of their own, mixed by how each annotator takes each example.

    .. math:: \ell = \mathrm{CE}\big(\omega\, p\, W + (1 - \omega)\, p\, W^a, j\big)
        - \lambda \sum_a \lVert W - W^a \rVert, \qquad \omega = \sigma(u_a^\top v(x))

    with u a unit vector for each annotator, and v one of the example, linear in the backbone's features.

    Args:
      annotators: as in :func:`crowd_layer`.
      labels: likewise.
      num_annotators: A.
      num_classes: K.
      width: of u and v, at least 1 (the authors' code: 20).
      apart: lambda, at least 0 (paper 1e-5).

    Returns:
      A method for one label per example, whose belief is the classifier's. The loss is a mean over answers.

    Raises:
      ArgumentError: arrays that do not fit, or an option out of its range.

    References:
      Chu et al., Learning from Crowds by Modeling Common Confusions, 2021, equations 1 to 5.
    """
    if width < 1 or not apart >= 0:
        raise ArgumentError(f"`width` must be at least 1 and `apart` at least 0, got {width} and {apart}")
    given = given_answers(annotators, labels, num_annotators, num_classes)

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        people, examples = jax.random.split(key)
        features = outputs["features"].shape[-1]
        params = {
            "own": jnp.broadcast_to(2 * jnp.eye(num_classes), (num_annotators, num_classes, num_classes)),
            "common": 2 * jnp.eye(num_classes),
            "people": jax.random.normal(people, (num_annotators, width)),
            "examples": jax.random.normal(examples, (features, width)) / features**0.5,
        }
        return params, _in_memory(given, size)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, batch, step
        who, probs = jnp.maximum(memory.annotator, 0), jax.nn.softmax(outputs["logits"])
        person, example = _unit(params["people"])[who], _unit(outputs["features"] @ params["examples"])
        shared = jax.nn.sigmoid(jnp.einsum("bpd,bd->bp", person, example))[:, :, None]
        own = jnp.einsum("bk,bpkj->bpj", probs, params["own"][who])
        scores = shared * (probs @ params["common"])[:, None, :] + (1 - shared) * own
        difference = params["own"] - params["common"][None]
        # At a distance of 0 the root has no slope: both begin alike.
        distance = jnp.sum(jnp.sqrt(jnp.sum(difference**2, axis=(1, 2)) + 1e-12))
        metrics = {"shared": jnp.mean(shared[:, :, 0], axis=1)}
        return _of_answers(scores, memory) - apart * distance, memory, metrics

    return Method("conal", loss, init=init)


def _in_memory(given: Given, size: int) -> Given:
    return Given(*(padded(x, size, -1) for x in given))


def _unit(x: Array) -> Array:
    return x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


def _of_answers(scores: Array, given: Given) -> Array:
    """Mean cross-entropy of an example's answers ``[B]``, from scores ``[B, P, K]``; 0 for one without any."""
    there = (given.annotator >= 0) & (given.label >= 0)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), jnp.maximum(given.label, 0)[:, :, None], axis=2)[:, :, 0]
    return -jnp.sum(jnp.where(there, chosen, 0.0), axis=1) / jnp.maximum(jnp.sum(there, axis=1, dtype=scores.dtype), 1)
