"""What is done with a transition matrix: projection of a learned one, its inverse, and posteriors by Bayes' rule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nlx.arguments import as_type, class_labels, distributions, floating, label_vectors, working


def project(transition: ArrayLike) -> Array:
    r"""Nearest distribution to every row, in Euclidean distance: what follows a gradient step on T.

    .. math:: \operatorname{argmin}_{x \ge 0,\; \sum_i x_i = 1} \lVert x - v \rVert_2 = \max(v - \tau, 0),
       \qquad \sum_i \max(v_i - \tau, 0) = 1

    Newton's method from the left finds tau: the sum is convex and piecewise linear in it, so that entries only ever
    leave the support, and once none does tau is exact up to rounding. That takes a few passes over the rows (at most K)
    and no sort. Clipping and renormalizing is not this projection.

    Args:
      transition: any finite values, float ``[..., K]``; each row by itself.

    Returns:
      Rows that are not negative and sum to 1, in the dtype and shape of the input.

    Raises:
      TypeError: not floating.
      ValueError: a scalar.

    Examples:
      >>> project(jnp.array([[0.5, 0.5, 0.5, 0.5], [2.0, 0.0, 0.0, 0.0], [1.0, 0.5, -1.0, 0.0]]))
      Array([[0.25, 0.25, 0.25, 0.25],
             [1.  , 0.  , 0.  , 0.  ],
             [0.75, 0.25, 0.  , 0.  ]], dtype=float32)

    References:
      Held et al., 1974; Michelot, 1986; Condat, 2016. Sukhbaatar et al., 2015, section 3.1.
    """
    rows = floating(transition, "transition")
    if rows.ndim < 1 or not rows.shape[-1]:
        raise ValueError(f"transition must have rows, got {'a scalar' if not rows.ndim else rows.shape}")
    return _project(rows)


@jax.jit
def _project(rows: Array) -> Array:
    v = rows.astype(jnp.float32) if jnp.finfo(rows.dtype).bits < 32 else rows
    # A shift of the row changes nothing, and tau lies between the largest entry less 1 and the largest entry. With the
    # point of that interval that is nearest to 0 moved to 0, sums keep their digits beside entries of any size, and
    # rows that are nearly distributions are not touched.
    top = jax.lax.stop_gradient(jnp.max(v, axis=-1, keepdims=True))
    shift = jnp.clip(jnp.zeros_like(top), top - 1.0, top)
    v, lowest = v - shift, top - shift - 1.0
    fixed = jax.lax.stop_gradient(v)

    def newton(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tau, before, _ = carry
        left = jnp.maximum(fixed - tau, 0.0)
        count = jnp.sum((left > 0).astype(left.dtype), axis=-1, keepdims=True)
        excess = jnp.sum(left, axis=-1, keepdims=True) - 1.0
        return jnp.maximum(tau, tau + excess / count), count, jnp.any(count < before)

    # Filled like the rows, so that inside shard_map all of it varies as they do.
    start = lowest, jnp.full_like(lowest, rows.shape[-1] + 1), jnp.any(jnp.ones_like(lowest, bool))
    tau, _, _ = jax.lax.while_loop(lambda carry: carry[2], newton, start)
    # Solved once more on the support: with the gradient that the loop has not, and without the rounding of tau, which
    # would enter the sum once for every entry. A NaN is no member of the complement and so comes through.
    out = v <= tau
    left = jnp.where(out, 0.0, v - tau)
    count = jnp.sum((~out).astype(v.dtype), axis=-1, keepdims=True)
    excess = jnp.sum(left, axis=-1, keepdims=True) - 1.0
    return jnp.where(out, 0.0, jnp.maximum(left - excess / count, 0.0)).astype(rows.dtype)


def invert(transition: ArrayLike, *, max_condition: float = 1e3) -> Array:
    r"""Inverse of T for the Backward correction, which needs :math:`T^{-1}` once and before training.

    Worked out on the host in float64, so that this cannot be traced.

    Args:
      transition: ``T[i, j] = p(noisy = j | true = i)``, float ``[K, K]``.
      max_condition: highest condition number to accept (2-norm); errors in T and the spread of the corrected losses
        grow with it.

    Returns:
      T's inverse, float32 ``[K, K]``; its rows sum to 1 and may hold negative entries.

    Raises:
      ValueError: not square, a row that is no distribution, singular, or above ``max_condition``.

    Examples:
      >>> invert(jnp.array([[0.75, 0.25], [0.25, 0.75]]))
      Array([[ 1.5, -0.5],
             [-0.5,  1.5]], dtype=float32)

    References:
      Patrini et al., 2017, Theorem 1.
    """
    t = np.asarray(transition, np.float64)
    if t.ndim != 2 or t.shape[0] != t.shape[1]:
        raise ValueError(f"transition must be [K, K], got shape {t.shape}")
    if not np.isfinite(t).all():
        raise ValueError("transition is not finite")
    scales = np.linalg.svd(t, compute_uv=False)
    # float32 input carries errors of this size, below which a singular value cannot be told from 0.
    if scales[-1] <= len(t) * np.finfo(np.float32).eps * scales[0]:
        raise ValueError("transition is singular: some true classes give the same noisy labels; use the forward loss")
    condition = scales[0] / scales[-1]
    if condition > max_condition:
        raise ValueError(
            f"transition is ill-conditioned: condition number {condition:.3g} above {max_condition:.3g}; "
            "raise max_condition, or use the forward loss, which needs no inverse"
        )
    distributions(t, "transition")
    return jnp.asarray(np.linalg.inv(t), jnp.float32)


def posterior(logits: ArrayLike, noisy_labels: ArrayLike, transition: ArrayLike) -> Array:
    r"""Probability of each true class once the noisy label is known too.

    .. math:: q(y = i \mid x, \tilde y) \propto p(y = i \mid x)\, T_{i,\tilde y}

    Args:
      logits: unnormalized log p(y|x) of the true class (log-probabilities serve as well), float ``[..., K]``.
      noisy_labels: observed classes in ``[0, K)``, int ``[...]``; q of others is NaN, without a gradient.
      transition: ``T[i, j] = p(noisy = j | true = i)``, float ``[K, K]``; zeros are allowed and get no gradient.

    Returns:
      q, logits' dtype ``[..., K]``, rows sum to 1. Where no class can have given the label (its column of T is 0 for
      every class that p allows) the label tells nothing, and q is p.

    Raises:
      TypeError: logits or transition not floating, or labels not integer.
      ValueError: shapes disagree, or a T known before tracing has a row that is no distribution.

    Examples:
      >>> t = jnp.array([[0.8, 0.2], [0.4, 0.6]])
      >>> [f"{q:.3f}" for q in posterior(jnp.log(jnp.array([0.9, 0.1])), jnp.array(1), t)]
      ['0.750', '0.250']

    References:
      Sukhbaatar et al., 2015, equation 2, by Bayes' rule.
    """
    logits, t = floating(logits, "logits"), floating(transition, "transition")
    if logits.ndim < 1 or t.shape != (logits.shape[-1],) * 2:
        raise ValueError(f"transition must be [K, K] for logits {logits.shape}, got {t.shape}")
    labels = class_labels(noisy_labels, "noisy_labels", logits.shape[-1])
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"noisy_labels {labels.shape} must have the shape of logits without classes, {logits.shape}")
    distributions(transition, "transition")
    prior = logits.astype(working(logits))
    seen = jnp.take(_log(t, prior.dtype).T, labels, axis=0, mode="clip")
    # Measured from the likeliest class that can have given the label, log T keeps its digits beside large logits.
    given = prior + jnp.where(jnp.isneginf(seen), seen, 0.0)
    best = jax.lax.stop_gradient(jnp.max(given, axis=-1, keepdims=True))
    possible = best > -jnp.inf
    joint = jnp.where(possible, given - jnp.where(possible, best, 0.0) + seen, prior)
    return as_type(jnp.where((labels >= 0)[..., None], jax.nn.softmax(joint, axis=-1), jnp.nan), logits.dtype)


def binary_posterior(logits: ArrayLike, noisy_labels: ArrayLike, transition: ArrayLike) -> Array:
    r"""Multi-label twin of :func:`posterior`: every class is present or not, with a 2 x 2 transition of its own.

    .. math:: q(y_k = 1 \mid x, \tilde y_k) = \sigma(l_k + \log T_{k,1,\tilde y_k} - \log T_{k,0,\tilde y_k})

    Args:
      logits: log-odds l of each true label, float ``[..., K]``.
      noisy_labels: observed labels, {0, 1} or bool ``[..., K]``; others give NaN, and are refused where known.
      transition: ``T[k, i, j] = p(noisy_k = j | true_k = i)``, float ``[K, 2, 2]``; zeros are allowed and get no
        gradient.

    Returns:
      q(y_k = 1), logits' dtype ``[..., K]``. Where neither value can have given the label, the label tells nothing,
      and q is p.

    Raises:
      TypeError: logits or transition not floating.
      ValueError: shapes disagree, or a T known before tracing has a row that is no distribution.

    Examples:
      >>> t = jnp.array([[[0.9, 0.1], [0.3, 0.7]], [[1.0, 0.0], [0.5, 0.5]]])
      >>> [f"{q:.3f}" for q in binary_posterior(jnp.zeros(2), jnp.array([1, 0]), t)]
      ['0.875', '0.333']
    """
    logits, t = floating(logits, "logits"), floating(transition, "transition")
    given, is_label = label_vectors(noisy_labels, "noisy_labels", logits.shape)
    if logits.ndim < 1 or t.shape != (logits.shape[-1], 2, 2):
        raise ValueError(f"transition must be [K, 2, 2] for logits {logits.shape}, got {t.shape}")
    distributions(transition, "transition")
    x = logits.astype(working(logits))
    log_t = _log(t, x.dtype)
    present, absent = log_t[:, 1], log_t[:, 0]
    # -inf - -inf is NaN: the case of a label that nothing can give is set aside before the difference.
    impossible = jnp.isneginf(present) & jnp.isneginf(absent)
    ratio = jnp.where(impossible, 0.0, present - jnp.where(impossible, 0.0, absent))
    shape = (1,) * (logits.ndim - 1) + (logits.shape[-1],)
    shift = jnp.where(given, ratio[:, 1].reshape(shape), ratio[:, 0].reshape(shape))
    return as_type(jnp.where(is_label, jax.nn.sigmoid(x + shift), jnp.nan), logits.dtype)


def _log(t: Array, dtype: DTypeLike) -> Array:
    """log T with -inf at 0, where the gradient is 0 and not NaN."""
    positive = t > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, t, 1.0).astype(dtype)), -jnp.inf)
