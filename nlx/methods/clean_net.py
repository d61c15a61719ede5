"""CleanNet: how much a label fits its example, learned from a few verified labels and carried over to all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nlx.arguments import ArgumentError
from nlx.losses import cross_entropy
from nlx.methods.method import (
    UNKNOWN,
    Batch,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    prediction_posterior,
)
from nlx.methods.verified import known_right, known_wrong
from nlx.prototypes import by_kmeans, class_prototypes

_LEAST = 1e-6  # of a squared length, so that the cosine of a zero vector is 0 with a finite gradient
_HALF = 64  # verified examples of a batch, and as many unverified ones

Net = dict[str, Any]
Moving = tuple[Net, optax.OptState]


class Relevance(NamedTuple):
    """What is kept of every example: cosine of its embedding and that of its given label, float32 ``[n]``."""

    cosine: Array


class Terms(NamedTuple):
    """The parts of CleanNet's loss, one value per example, float32 ``[B]``; 0 where a part has no say.

    Attributes:
      verified: that of examples whose label is known to be right or wrong.
      pseudo: that of the others, whose label is taken for right where the cosine reaches the margin.
      reconstruction: mean squared error of the feature that the query's embedding is decoded to.
    """

    verified: Array
    pseudo: Array
    reconstruction: Array


def clean_net(
    num_classes: int,
    *,
    refresh_after: Callable[[int], bool],
    references: int = 50,
    members: int = 1280,
    width: int = 128,
    steps: int = 200,
    rate: float = 0.002,
    margin: float = 0.1,
    reconstruction_weight: float = 0.1,
    pseudo_weight: float = 0.1,
) -> Method:
    r"""Cross-entropy in which an example counts as much as a second network finds its label relevant.

    .. math:: \ell = \max(0, \cos(\phi_q, \phi_s)) \, \mathrm{CE}(p, \tilde y)

    Training of the classifier and of CleanNet take turns. Between epochs, see ``refresh_after``, CleanNet learns from
    the features as they are then: the query encoder makes :math:`\phi_q` of an example's feature, the reference encoder
    :math:`\phi_s` of the features that stand for the given label's class, by attention; :func:`terms` has its loss.
    Until the first turn every label counts as 1. Trusted labels count as 1 throughout, in place of the given ones.

    Beside the paper: CleanNet begins anew at each turn, so that nothing of it is kept but the cosines; it descends by
    Adam; features are standardized, and reconstruction is a mean over their components instead of a sum; references
    are the members nearest to the centres of K-means, never such that are known to be labelled wrong; a wrong label
    counts by how many right ones there are for it among the verified; where none of these is wrong, each right one is
    also a wrong label of its example for another class, drawn anew in each batch. Memory: 4 bytes an example. A turn
    holds the features twice, and beside them K · references of them and numbers in proportion to n · width.

    Args:
      num_classes: K.
      refresh_after: number of epochs done -> whether CleanNet learns then, such as
        :func:`nlx.methods.self_learning.corrections`.
      references: features that stand for a class, at least 1 (paper 50).
      members: random examples of a class that they are selected from, at least 1.
      width: units of the hidden layers and of the embeddings, at least 1.
      steps: batches of a turn, at least 1; of 64 verified examples and 64 others. Many steps learn few verified labels
        by heart.
      rate: learning rate of Adam, above 0.
      margin: rho, a wrong label's cosine may be this large, in [0, 1) (paper 0.1).
      reconstruction_weight: beta, at least 0 (paper 0.1).
      pseudo_weight: gamma of the labels that are not verified, at least 0 (paper 0.1).

    Returns:
      A method for one label per example, of which some are trusted: verified right where the trusted label is the given
      one, else wrong, as where it is ``KNOWN_WRONG``. Its posterior is the classifier's; the column ``relevance``, in
      [0, 1], is how much the given label counts: near 1 for right ones and at most rho for wrong ones where CleanNet
      has learned. It ranks labels, and is no calibrated probability. That it ranks labels of classes of which none is
      verified, as the paper has it, was not reproduced: on clusters it was chance.

    Raises:
      ArgumentError: a number out of range; when trained, no label is trusted.

    References:
      Lee et al., CleanNet: Transfer Learning for Scalable Image Classifier Training with Label Noise, 2018, section 3.
    """
    beta, gamma, optimizer = reconstruction_weight, pseudo_weight, optax.adam(rate)
    if not (min(num_classes, references, members, width, steps) >= 1 and rate > 0 and 0 <= margin < 1):
        raise ArgumentError(
            "`num_classes`, `references`, `members`, `width` and `steps` must be at least 1, `rate` above 0 and "
            f"`margin` in [0, 1), got {num_classes}, {references}, {members}, {width}, {steps}, {rate} and {margin}"
        )
    if not (beta >= 0 and gamma >= 0):
        raise ArgumentError(f"`reconstruction_weight` and `pseudo_weight` must be at least 0, got {beta} and {gamma}")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs, num_classes
        return {}, Relevance(jnp.ones(size))

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, step
        known = (trusted := _trusted(batch)) != UNKNOWN
        label = jnp.where(known, trusted, batch["noisy_label"])
        weight = jnp.where(known, 1.0, jnp.maximum(memory.cosine, 0.0))
        # Of no class: a known outlier, a wrong label alone, or no label at all.
        losses = cross_entropy(outputs["logits"], jnp.maximum(label, 0), where=label >= 0)
        return weight * losses, memory, {"relevance": jnp.maximum(memory.cosine, 0.0)}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        relevance = Column(jnp.clip(memory.cosine, 0.0, 1.0))
        return prediction_posterior(params, memory, outputs, batch)._replace(columns={"relevance": relevance})

    def refresh(key: Array, memory: Memory, features: Array, labels: Batch) -> Memory:
        del memory
        given, trusted = labels["noisy_label"], _trusted(labels)
        counts = given >= 0
        right, wrong = known_right(given, trusted), known_wrong(given, trusted)
        known = right | wrong
        label = jnp.maximum(given, 0)
        x = _standardized(features, counts)
        choose_key, init_key, batch_key = jax.random.split(key, 3)
        sets = class_prototypes(
            choose_key, x, given, num_classes, members=members, count=references, where=~wrong, selector=by_kmeans
        )
        reference, valid = x[sets.rows], sets.valid
        balance = _count(right) / jnp.maximum(_count(wrong), 1.0)
        # Verified examples first, then the others, then padding.
        order = jnp.argsort(jnp.where(known, 0, jnp.where(counts, 1, 2))).astype(jnp.int32)
        verified, none_wrong = jnp.sum(known, dtype=jnp.int32), ~jnp.any(wrong)
        others = jnp.sum(counts, dtype=jnp.int32) - verified

        def objective(net: Net, index: Array, shift: Array) -> Array:
            embeddings = class_embeddings(net, reference, valid)
            parts = terms(net, x[index], embeddings[label[index]], right[index], wrong[index], balance, margin)
            elsewhere = embeddings[(label[index] + shift) % num_classes]
            standing_in = jnp.maximum(cosine(query_embedding(net, x[index]), elsewhere) - margin, 0.0)
            parts = parts._replace(verified=parts.verified + jnp.where(right[index] & none_wrong, standing_in, 0.0))
            shares = Terms(known[index], counts[index] & ~known[index], counts[index])
            means = [
                jnp.sum(part * share) / jnp.maximum(jnp.sum(share), 1.0)
                for part, share in zip(parts, (share.astype(x.dtype) for share in shares), strict=True)
            ]
            return means[0] + gamma * means[1] + beta * means[2]

        def descend(i: Array, moving: Moving) -> Moving:
            first, second = jax.random.split(jax.random.fold_in(batch_key, i))
            place = jax.random.randint(first, (_HALF,), 0, jnp.maximum(verified, 1))
            other = verified + jax.random.randint(second, (_HALF,), 0, jnp.maximum(others, 1))
            index = order[jnp.minimum(jnp.concatenate([place, other]), len(order) - 1)]
            shift = jax.random.randint(jax.random.fold_in(second, 1), index.shape, min(1, num_classes - 1), num_classes)
            slope = jax.grad(objective)(moving[0], index, shift)
            with jax.numpy_dtype_promotion("standard"):  # which optax leans on
                change, state = optimizer.update(slope, moving[1])
                return optax.apply_updates(moving[0], change), state

        net = first_net(init_key, x.shape[1], width)
        net, _ = jax.lax.fori_loop(0, steps, descend, (net, optimizer.init(net)))
        to = class_embeddings(net, reference, valid)[label]
        return Relevance(jnp.where(counts, cosine(query_embedding(net, x), to), 0.0))

    return Method("clean_net", loss, posterior, init, refresh=refresh, refresh_after=refresh_after)


def first_net(key: Array, features: int, width: int) -> Net:
    """Parameters of CleanNet before it has learned.

    Args:
      key: a PRNG key.
      features: F.
      width: D, of all layers.

    Returns:
      Layers of ``weights`` and ``bias``, float32, by name: two of the query encoder, two of its decoder, two of the
      reference encoder, one of attention; and ``context``, ``[D]``, what attention looks for.
    """
    sizes = {
        "query_hidden": (features, width),
        "query": (width, width),
        "decoder_hidden": (width, width),
        "decoder": (width, features),
        "reference_hidden": (features, width),
        "reference": (width, width),
        "attention": (width, width),
    }
    keys = jax.random.split(key, len(sizes) + 1)
    net: Net = {
        name: {"weights": jax.random.normal(keys[i], size) * size[0] ** -0.5, "bias": jnp.zeros(size[1])}
        for i, (name, size) in enumerate(sizes.items())
    }
    return {**net, "context": jax.random.normal(keys[-1], (width,)) * width**-0.5}


def query_embedding(net: Net, features: Array) -> Array:
    """phi_q of features float32 ``[B, F]``, ``[B, D]``."""
    return _dense(net["query"], jnp.tanh(_dense(net["query_hidden"], features)))


def class_embeddings(net: Net, reference: Array, valid: Array) -> Array:
    """phi_s of every class: its references' encodings, weighed by attention.

    Args:
      net: see :func:`first_net`.
      reference: features that stand for a class, float32 ``[K, V, F]``.
      valid: which of them there are, bool ``[K, V]``.

    Returns:
      float32 ``[K, D]``; 0 for a class without any.
    """
    encoded = _dense(net["reference"], jnp.tanh(_dense(net["reference_hidden"], reference)))
    score = jnp.tanh(_dense(net["attention"], encoded)) @ net["context"]
    some = jnp.any(valid, axis=1, keepdims=True)
    attention = jax.nn.softmax(score, axis=1, where=valid | ~some)
    return jnp.sum(jnp.where(some, attention, 0.0)[..., None] * encoded, axis=1)


def cosine(a: Array, b: Array) -> Array:
    """Cosine of the angles between vectors ``[..., D]``, ``[...]``; towards 0 for those shorter than a thousandth."""
    lengths = [jnp.sqrt(jnp.maximum(jnp.sum(v * v, axis=-1), _LEAST)) for v in (a, b)]
    return jnp.sum(a * b, axis=-1) / (lengths[0] * lengths[1])


def terms(net: Net, features: Array, to: Array, right: Array, wrong: Array, balance: Array, margin: float) -> Terms:
    r"""CleanNet's loss in parts.

    .. math:: \text{right}: 1 - c \qquad \text{wrong}: \omega \max(0, c - \rho)
        \qquad \text{unverified}: [c \ge \rho] (1 - c) \qquad \text{all}: \lVert v - \hat v \rVert^2 / F

    Args:
      net: see :func:`first_net`.
      features: v, float32 ``[B, F]``.
      to: phi_s of the given labels' classes, float32 ``[B, D]``; c is the cosine of phi_q and this.
      right: labels that are verified right, bool ``[B]``.
      wrong: labels that are verified wrong, bool ``[B]``.
      balance: omega, float32 scalar.
      margin: rho.

    Returns:
      The terms, without beta and gamma.

    References:
      Lee et al., 2018, section 3.
    """
    embedding = query_embedding(net, features)
    c = cosine(embedding, to)
    verified = jnp.where(right, 1 - c, jnp.where(wrong, balance * jnp.maximum(c - margin, 0.0), 0.0))
    pseudo = jnp.where(right | wrong | (c < margin), 0.0, 1 - c)
    decoded = _dense(net["decoder"], jnp.tanh(_dense(net["decoder_hidden"], embedding)))
    return Terms(verified, pseudo, jnp.mean((features - decoded) ** 2, axis=-1))


def _dense(layer: dict[str, Array], x: Array) -> Array:
    return x @ layer["weights"] + layer["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def _standardized(features: Array, counts: Array) -> Array:
    """Features of mean 0 and deviation 1 over the rows that count; what never varies is 0."""
    rows = counts[:, None]
    total = jnp.maximum(_count(counts), 1.0)
    mean = jnp.sum(jnp.where(rows, features, 0.0), axis=0, keepdims=True) / total
    deviation = jnp.sqrt(jnp.sum(jnp.where(rows, features - mean, 0.0) ** 2, axis=0, keepdims=True) / total)
    return jnp.where(rows & (deviation > 0), (features - mean) / jnp.where(deviation > 0, deviation, 1.0), 0.0)


def _count(where: Array) -> Array:
    return jnp.sum(where, dtype=jnp.float32)


def _trusted(batch: Batch) -> Array:
    if "trusted_label" not in batch:
        raise ArgumentError("CleanNet learns from trusted labels: add `clean_fraction`=0.1, say, or a column of them")
    return batch["trusted_label"]
