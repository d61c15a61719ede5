"""What every kind of noise returns, and what all of them check and draw in the same way."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_vector, in_range, integers, typed_key


class Corrupted(NamedTuple):
    """Noisy labels and which examples the noise touched.

    Attributes:
      labels: noisy labels, same shape and dtype as the clean ones; int32 where K classes do not fit in it.
      mask: examples that were touched, bool ``[n]``; by luck some of them may keep their label where a kind of noise
        allows it.
    """

    labels: Array
    mask: Array


def touched(key: Array, shape: tuple[int, ...], rate: ArrayLike, name: str = "rate") -> Array:
    """True with probability ``rate``, bool of the given shape."""
    in_range(rate, name, 0, 1)
    # float32 whatever the precision flags say, so that a key gives the same noise everywhere.
    return jax.random.uniform(key, shape, dtype=jnp.float32) < jnp.asarray(rate, dtype=jnp.float32)


def redrawn(key: Array, labels: Array, rate: ArrayLike, num_classes: int) -> Corrupted:
    """Some classes drawn anew, uniformly over all of them."""
    touch_key, class_key = jax.random.split(key)
    mask = touched(touch_key, labels.shape, rate)
    drawn = jax.random.randint(class_key, labels.shape, 0, num_classes, dtype=jnp.int32)
    return relabelled(labels, drawn, mask, num_classes)


def relabelled(labels: Array, noisy: Array, mask: Array, num_classes: int) -> Corrupted:
    """Class labels, int ``[n]``, with those that the mask tells replaced; what is no class stays as it is."""
    mask &= class_vector(labels, "labels", num_classes) >= 0
    if num_classes - 1 > jnp.iinfo(labels.dtype).max:
        labels = labels.astype(jnp.int32)
    return Corrupted(jnp.where(mask, noisy.astype(labels.dtype), labels), mask)


def checked(key: Array, labels: ArrayLike, num_classes: int) -> tuple[Array, Array]:
    """Class labels ``[n]`` as they are, and as int32 with 0 for those that are no class."""
    typed_key(key)
    classes = class_vector(labels, "labels", num_classes)
    at_least(2, num_classes=num_classes)
    return integers(labels, "labels"), jnp.maximum(classes, 0)
