"""What a noisy label alone says of the true one, by Bayes' rule."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import class_vector, distributions
from nlx.transitions.algebra import project


def label_posterior(transition: ArrayLike, noisy_labels: ArrayLike) -> Array:
    r"""p(true | noisy), from T and how often each noisy label occurs.

    .. math:: p(i \mid j) \propto \pi_i T_{ij}, \qquad \pi = \operatorname{proj}(T^{-\top} p(\tilde y))

    The true classes' frequencies are those that T turns into the noisy ones' (least squares, projected onto the
    simplex). Worked out on the host in float64, so that this cannot be traced.

    Args:
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``.
      noisy_labels: observed noisy classes in ``[0, K)``, int ``[n]``; others are left out.

    Returns:
      Rows are noisy classes and sum to 1, none of them 0, float32 ``[K, K]``; a row that T never gives is uniform.

    Raises:
      TypeError: labels not integer.
      ValueError: T is not square or a row of it no distribution, or no label is a class.

    Examples:
      >>> label_posterior(np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([0, 0, 1, 1]))
      Array([[0.75, 0.25],
             [0.25, 0.75]], dtype=float32)
    """
    t = np.asarray(transition, np.float64)
    if t.ndim != 2 or t.shape[0] != t.shape[1]:
        raise ValueError(f"transition must be [K, K], got {t.shape}")
    distributions(transition, "transition")
    labels = np.asarray(class_vector(noisy_labels, "noisy_labels", len(t)))
    labels = labels[labels >= 0]
    if not len(labels):
        raise ValueError(f"noisy_labels must be classes in [0, {len(t)}), at least one")
    frequency = np.bincount(labels, minlength=len(t)) / len(labels)
    solved = np.linalg.lstsq(t.T, frequency, rcond=1e-3)[0]
    prior = np.asarray(project(jnp.asarray(solved, jnp.float32)))
    joint = (prior + 1e-6)[:, None] * t + 1e-12
    return jnp.asarray(joint.T / joint.T.sum(axis=1, keepdims=True), jnp.float32)
