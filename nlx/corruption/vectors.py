"""Noise on label vectors: the CAN paper's shuffle, and tags that go wrong as they do on the web."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import array, at_least, label_vectors, typed_key
from nlx.corruption.corrupted import Corrupted, checked, redrawn, touched


class CorruptedTags(NamedTuple):
    """Noisy tags and what happened to them.

    Attributes:
      labels: noisy tags, same shape and dtype as the clean ones.
      mask: examples with at least one wrong tag, bool ``[n]``.
      copied: examples of the uploads whose tags were copied from one member, bool ``[n]``.
    """

    labels: Array
    mask: Array
    copied: Array


def vector_shuffle(key: Array, labels: ArrayLike, rate: ArrayLike, num_classes: int | None = None) -> Corrupted:
    r"""Shuffle the elements of label vectors, each vector with the same probability: the noise of the CAN paper.

    A touched vector :math:`y \in \{0, 1\}^K` becomes :math:`(y_{\pi(1)}, \dots, y_{\pi(K)})` under a random permutation
    of its own. A class number stands for its one-hot vector, whose shuffle is uniform over all K classes:

    .. math:: p(\tilde y = j \mid y = i) = (1 - r)\,[i = j] + \frac{r}{K}

    Args:
      key: typed PRNG key.
      labels: clean label vectors of zeros and ones ``[n, K]`` of any dtype, or classes in ``[0, K)``, int ``[n]``.
      rate: r, probability that an example is shuffled, in [0, 1]; scalar.
      num_classes: K; needed for classes, and may be left out for vectors.

    Returns:
      Noisy labels in the form they came, and the mask of the shuffled examples. A shuffle may leave a label as it was:
      a class stays with probability 1/K.

    Raises:
      TypeError: labels ``[n]`` are not integers, or the key is not typed.
      ValueError: labels have other dimensions, num_classes is missing or disagrees with the vectors, or a rate known
        before tracing is outside [0, 1].

    Examples:
      >>> noisy, mask = vector_shuffle(jax.random.key(0), jnp.array([[1, 1, 0, 0], [0, 0, 0, 1]]), rate=1.0)
      >>> noisy.sum(axis=1).tolist()
      [2, 1]

    References:
      CAN: Contrastive-Additive Noise network, experiments with synthetic noise (Table VI).
    """
    if jnp.ndim(labels) == 2:
        label_vectors(labels, "labels")
        labels = array(labels, "labels")
        if num_classes is not None and labels.shape[1] != num_classes:
            raise ValueError(f"labels have {labels.shape[1]} columns but num_classes is {num_classes}")
        touch_key, shuffle_key = jax.random.split(typed_key(key))
        mask = touched(touch_key, labels.shape[:1], rate)
        shuffled = jax.random.permutation(shuffle_key, labels, axis=1, independent=True)
        return Corrupted(jnp.where(mask[:, None], shuffled, labels), mask)
    if num_classes is None:
        raise ValueError("num_classes is needed to shuffle labels given as class numbers")
    return redrawn(key, checked(key, labels, num_classes)[0], rate, num_classes)


def tag_noise(
    key: Array, labels: ArrayLike, missing: ArrayLike, spurious: ArrayLike, batch_copied: ArrayLike, batch: int = 8
) -> CorruptedTags:
    r"""Drop tags, add tags, and give whole uploads the tags of one of their members.

    Every tag goes wrong on its own,

    .. math:: p(\tilde y_k = 0 \mid y_k = 1) = m, \qquad p(\tilde y_k = 1 \mid y_k = 0) = s,

    and then, with probability :math:`c`, all examples of an upload take the noisy tags of one member, drawn uniformly,
    as people tag a batch of pictures at once. Such errors are shared by an upload and not independent.

    Args:
      key: typed PRNG key.
      labels: clean tags, zeros and ones of any dtype ``[n, K]``.
      missing: m, probability that a true tag is dropped, in [0, 1]; scalar.
      spurious: s, probability that a tag is added where there is none, in [0, 1]; scalar.
      batch_copied: c, probability that an upload's tags are copied, in [0, 1]; scalar.
      batch: examples in an upload, consecutive ones; the last upload may be smaller.

    Returns:
      Noisy tags ``[n, K]``, the mask of examples with a wrong tag, and the mask of examples in copied uploads.

    Raises:
      TypeError: the key is not typed.
      ValueError: labels are not two-dimensional, batch < 1, or a probability known before tracing is outside [0, 1].

    Examples:
      >>> noisy, mask, copied = tag_noise(jax.random.key(0), jnp.eye(4, dtype=int), 0.0, 0.0, 1.0, batch=2)
      >>> (noisy[0] == noisy[1]).all().item(), (noisy[2] == noisy[3]).all().item(), mask.sum().item()
      (True, True, 2)

    References:
      CAN: Contrastive-Additive Noise network, on Flickr's batch annotation: pictures that share their upload's tags.
    """
    if jnp.ndim(labels) != 2:
        raise ValueError(f"labels must be vectors [n, K], got shape {jnp.shape(labels)}")
    true, is_label = label_vectors(labels, "labels")
    labels = array(labels, "labels")
    at_least(1, batch=batch)
    missing_key, spurious_key, copy_key, member_key = jax.random.split(typed_key(key), 4)
    dropped = touched(missing_key, labels.shape, missing, "missing")
    added = touched(spurious_key, labels.shape, spurious, "spurious")
    own = jnp.where(true, ~dropped, added)

    n = labels.shape[0]
    upload = np.arange(n) // batch
    starts = np.arange(0, n, batch, dtype=np.int32)
    sizes = np.minimum(np.int32(batch), np.int32(n) - starts)
    is_copied = touched(copy_key, starts.shape, batch_copied, "batch_copied")
    member = starts + jax.random.randint(member_key, starts.shape, 0, sizes, dtype=jnp.int32)
    copied = is_copied[upload]
    tags = jnp.where(is_label, jnp.where(copied[:, None], own[member[upload]], own), true)
    noisy = jnp.where(is_label, tags.astype(labels.dtype), labels)
    return CorruptedTags(noisy, (tags != true).any(axis=1), copied)
