"""Losses that know, or learn, how labels went wrong: through a transition matrix or one that depends on the input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import floating, integers, masked, same_shape
from nlx.losses.plain import binary_cross_entropy

_LOG_ZERO = -1e6
"""Stands for log 0 in a transition matrix: below any difference of logits, and finite."""
_MAX_LOG_SLOPE = 27.6
"""The slope in an entry of T that is all but impossible is cut at e^27.6, about 1e12, so that sums stay finite."""


def forward_corrected(
    logits: ArrayLike, labels: ArrayLike, transition: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropy against noisy labels, through the transition matrix that made them noisy.

    .. math:: \ell = -\log \sum_i T_{i,\tilde y}\, \mathrm{softmax}(\text{logits})_i

    This is the noise layer where T is learned, and the forward correction where it is given. One column of T is read
    per example; the product of p and T is never formed. The gradient in T is exact where T is 0 as well, so that
    entries can leave 0.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed noisy classes in ``[0, K)``, int ``[...]``.
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example; 1e6 for a label that no class can come out as.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree.

    Examples:
      >>> T = jnp.array([[0.8, 0.2], [0.3, 0.7]])
      >>> print(f"{forward_corrected(jnp.array([0.0, 0.0]), jnp.array(1), T):.3f}")
      0.799

    References:
      Sukhbaatar et al., Training Convolutional Networks with Noisy Labels, 2014, Eq. 3; Patrini et al., Making Deep
      Neural Networks Robust to Label Noise, 2017, Theorem 2.
    """
    logits = floating(logits, "logits")
    labels = integers(labels, "labels")
    transition = floating(transition, "transition").astype(logits.dtype)
    same_shape("logits[..., 0]", logits.shape[:-1], "labels", labels.shape)
    same_shape("transition", transition.shape, "[K, K]", (logits.shape[-1],) * 2)
    # Taking columns and turning them over is faster than turning over all of T, and so is its gradient.
    columns = jnp.moveaxis(jnp.take(transition, labels, axis=1), 0, -1)
    return masked(jax.nn.logsumexp(logits, axis=-1) - _log_mixture(logits, columns), where)


def backward_corrected(
    logits: ArrayLike, labels: ArrayLike, inverse: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropies of all classes, weighted by the inverse of the transition matrix: unbiased for the clean loss.

    .. math:: \ell = \sum_k (T^{-1})_{\tilde y, k} (-\log p_k)

    Its expectation over noisy labels is the cross-entropy of the true one; single values may be negative, and are
    large where T is ill-conditioned.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed noisy classes in ``[0, K)``, int ``[...]``.
      inverse: the inverse of T, see ``nlx.transitions.invert``, float ``[K, K]``.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree.

    Examples:
      >>> inverse = jnp.linalg.inv(jnp.array([[0.8, 0.2], [0.3, 0.7]]))
      >>> print(f"{backward_corrected(jnp.array([1.0, 0.0]), jnp.array(0), inverse):.3f}")
      -0.087

    References:
      Patrini et al., Making Deep Neural Networks Robust to Label Noise, 2017, Theorem 1.
    """
    logits = floating(logits, "logits")
    labels = integers(labels, "labels")
    inverse = floating(inverse, "inverse").astype(logits.dtype)
    same_shape("logits[..., 0]", logits.shape[:-1], "labels", labels.shape)
    same_shape("inverse", inverse.shape, "[K, K]", (logits.shape[-1],) * 2)
    return masked(-jnp.sum(inverse[labels] * jax.nn.log_softmax(logits), axis=-1), where)


def binary_forward_corrected(
    logits: ArrayLike, labels: ArrayLike, transition: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""The noise layer's multi-label twin: a transition of its own for the presence of every class.

    .. math:: \ell = -\sum_k \log \sum_{j \in \{0, 1\}} T_{k,j,\tilde y_k}\, p(y_k = j \mid x)

    Args:
      logits: log-odds of each class, float ``[..., K]``.
      labels: observed noisy {0, 1} labels, of any dtype, ``[..., K]``.
      transition: ``T[k, i, j] = p(noisy_k = j | true_k = i)``, float ``[K, 2, 2]``.
      where: classes that count, bool ``[..., K]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or transition not floating.
      ValueError: shapes disagree.

    Examples:
      >>> T = jnp.array([[[0.9, 0.1], [0.4, 0.6]]])
      >>> print(f"{binary_forward_corrected(jnp.array([0.0]), jnp.array([1]), T):.3f}")
      1.050

    References:
      Sukhbaatar et al., Training Convolutional Networks with Noisy Labels, 2014, with one label per class.
    """
    logits = floating(logits, "logits")
    labels = jnp.asarray(labels)
    transition = floating(transition, "transition").astype(logits.dtype)
    same_shape("logits", logits.shape, "labels", labels.shape)
    same_shape("transition", transition.shape, "[K, 2, 2]", (logits.shape[-1], 2, 2))
    pair = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
    present = (labels != 0)[..., None]
    shape = (1,) * (logits.ndim - 1) + transition.shape[:2]
    column = jnp.where(present, transition[..., 1].reshape(shape), transition[..., 0].reshape(shape))
    per_class = jax.nn.softplus(logits) - _log_mixture(pair, column)
    return jnp.sum(masked(per_class, where), axis=-1)


def conditional_noise(
    logits: ArrayLike, reporting: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Noise that depends on the input: whether a class is seen, and whether what is seen is then reported.

    .. math:: \ell = -\sum_k \log \sum_{j \in \{0, 1\}} r_k(\tilde y_k \mid j, x)\, v_k(j \mid x)

    Args:
      logits: log-odds of the visual presence v, float ``[..., K]``.
      reporting: log-odds of r(label = 1 | j, x) for j = 0 and 1, float ``[..., K, 2]``.
      labels: observed {0, 1} labels, of any dtype, ``[..., K]``.
      where: classes that count, bool ``[..., K]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or reporting not floating.
      ValueError: shapes disagree.

    Examples:
      >>> print(f"{conditional_noise(jnp.array([0.0]), jnp.array([[-2.0, 2.0]]), jnp.array([1])):.3f}")
      0.693

    References:
      Misra et al., Seeing through the Human Reporting Bias, 2016, Eq. 1.
    """
    logits = floating(logits, "logits")
    reporting = floating(reporting, "reporting").astype(logits.dtype)
    labels = jnp.asarray(labels)
    same_shape("logits", logits.shape, "labels", labels.shape)
    same_shape("reporting[..., 0]", reporting.shape[:-1], "logits", logits.shape)
    seen = jnp.stack([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)
    # One class at a time is its own Bernoulli, so that the plain loss says log r of either outcome.
    said = -binary_cross_entropy(
        reporting[..., None], jnp.broadcast_to(labels[..., None, None], (*reporting.shape, 1)).astype(logits.dtype)
    )
    return jnp.sum(masked(-jax.nn.logsumexp(seen + said, axis=-1), where), axis=-1)


@jax.custom_vjp
def _log_mixture(logits: Array, column: Array) -> Array:
    """log sum_i column_i exp(logits_i), with zeros allowed in the column."""
    return _log_mixture_forward(logits, column)[0]


def _log_mixture_forward(logits: Array, column: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    safe = jnp.where(column > 0, column, jnp.ones((), column.dtype))
    log_column = jnp.where(column > 0, jnp.log(safe), jnp.asarray(_LOG_ZERO, column.dtype))
    terms = logits + log_column
    value = jax.nn.logsumexp(terms, axis=-1)
    return value, (logits, terms, value)


def _log_mixture_backward(saved: tuple[Array, Array, Array], grad: Array) -> tuple[Array, Array]:
    logits, terms, value = saved
    # Differentiating log T would give 0 times infinity where T is 0; this is the same slope without the detour.
    slope = jnp.exp(jnp.minimum(logits - value[..., None], jnp.asarray(_MAX_LOG_SLOPE, logits.dtype)))
    return grad[..., None] * jnp.exp(terms - value[..., None]), grad[..., None] * slope


_log_mixture.defvjp(_log_mixture_forward, _log_mixture_backward)
