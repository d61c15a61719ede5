"""What was verified of given labels: which are known to be right or wrong, though the true label need not be known."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.methods.method import UNKNOWN


def eligible(noisy: ArrayLike, trusted: ArrayLike, num_classes: int) -> Array:
    """Which examples may be prototypes where some labels have been verified: those known right, if a class has any.

    Args:
      noisy: given labels, int ``[n]``; -1 in rows that only pad.
      trusted: true labels where known, int ``[n]``; ``UNKNOWN`` elsewhere. ``KNOWN_OUTLIER`` and
        ``KNOWN_WRONG`` make a given label wrong.
      num_classes: K.

    Returns:
      bool ``[n]``. Of a class without a label known right, all but those known wrong.

    Examples:
      >>> eligible(jnp.array([0, 0, 0, 1, 1]), jnp.array([0, 1, -1, -1, 0]), 2)
      Array([ True, False, False,  True, False], dtype=bool)

    References:
      Han et al., 2019, section 4.1.
    """
    noisy, trusted = jnp.asarray(noisy), jnp.asarray(trusted)
    right, wrong = known_right(noisy, trusted), known_wrong(noisy, trusted)
    label = jnp.clip(noisy, 0, num_classes - 1)
    has_right = jnp.zeros(num_classes, bool).at[label].max(right)
    return jnp.where(has_right[label], right, (noisy >= 0) & ~wrong)


def known_right(noisy: ArrayLike, trusted: ArrayLike) -> Array:
    """Given labels that are known to be right, bool ``[n]``; the labels are as in :func:`eligible`."""
    noisy = jnp.asarray(noisy)
    return (noisy >= 0) & (noisy == jnp.asarray(trusted))


def known_wrong(noisy: ArrayLike, trusted: ArrayLike) -> Array:
    """Given labels that are known to be wrong, bool ``[n]``; the labels are as in :func:`eligible`."""
    noisy, trusted = jnp.asarray(noisy), jnp.asarray(trusted)
    return (noisy >= 0) & (trusted != UNKNOWN) & (trusted != noisy)
