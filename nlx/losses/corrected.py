"""Losses that know, or learn, how labels went wrong: through a transition matrix or one that depends on the input."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import as_type, distributions, floating, label_vectors, mask, masked, same_shape, working
from nlx.losses.plain import highest, negative_log_likelihood, per_label

_IMPOSSIBLE = 1e6
"""The loss of a label that no class can come out as: above any difference of logits, and finite."""
_MAX_LOG_SLOPE = 27.6
"""The slope in an entry of T that is all but impossible is cut at e^27.6, about 1e12, so that sums stay finite."""


def forward_corrected(
    logits: ArrayLike, labels: ArrayLike, transition: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropy against noisy labels, through the transition matrix that made them noisy.

    .. math:: \ell = -\log \sum_i T_{i,\tilde y}\, \mathrm{softmax}(\text{logits})_i

    This is the noise layer where T is learned, and the forward correction where it is given. One column of T is read
    per example; the product of p and T is never formed. The gradient in T is exact where T is 0 as well, so that
    entries can leave 0. Both modes of differentiation work.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed noisy classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example; 1e6 for a label that no class can come out as.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or a matrix known before tracing has a row that does not sum to 1.

    Examples:
      >>> T = jnp.array([[0.8, 0.2], [0.3, 0.7]])
      >>> print(f"{forward_corrected(jnp.array([0.0, 0.0]), jnp.array(1), T):.3f}")
      0.799

    References:
      Sukhbaatar et al., Training Convolutional Networks with Noisy Labels, 2014, Eq. 3; Patrini et al., Making Deep
      Neural Networks Robust to Label Noise, 2017, Theorem 2.
    """

    def loss(x: Array, y: Array) -> Array:
        return _through(x, y, transition)

    return per_label(logits, labels, where, loss)


def importance_reweighted(
    logits: ArrayLike, labels: ArrayLike, transition: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropy, weighted by how much likelier the label is as the true one than as a noisy one.

    .. math:: \ell = -\frac{p_{\tilde y}}{\sum_i T_{i,\tilde y}\, p_i} \log p_{\tilde y}

    Unbiased for the clean loss, without an inverse. The weight is differentiated too, and carries T's gradient where T
    is revised while training.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      transition: ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float ``[K, K]``.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or transition not floating, or labels not integer.
      ValueError: shapes disagree, or a matrix known before tracing has a row that does not sum to 1.

    Examples:
      >>> T = jnp.array([[0.8, 0.2], [0.3, 0.7]])
      >>> print(f"{importance_reweighted(jnp.array([0.0, 0.0]), jnp.array(1), T):.3f}")
      0.770

    References:
      Liu and Tao, Classification with Noisy Labels by Importance Reweighting, 2016; Xia et al., Are Anchor Points
      Really Indispensable in Label-Noise Learning?, 2019, section 3.
    """

    def loss(x: Array, y: Array) -> Array:
        nll = negative_log_likelihood(x, y)
        # Where T holds the label for impossible, the weight is without bound; it is cut as T's slopes are.
        odds = jnp.minimum(_through(x, y, transition) - nll, _MAX_LOG_SLOPE)
        return jnp.exp(odds) * nll

    return per_label(logits, labels, where, loss)


def _through(x: Array, y: Array, transition: ArrayLike) -> Array:
    """-log sum_i T_iy softmax(x)_i, with T as it was given: a tracer's rows could not be checked."""
    t = floating(transition, "transition")
    same_shape("transition", t.shape, "[K, K]", (x.shape[-1],) * 2)
    distributions(transition, "transition")
    # Taking columns and turning them over is faster than turning over all of T, and so is its gradient.
    columns = jnp.moveaxis(jnp.take(t.astype(x.dtype), y, axis=1, mode="clip"), 0, -1)
    return mixture_loss(x, columns, slope_limit(t, y.size))


def backward_corrected(
    logits: ArrayLike, labels: ArrayLike, inverse: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Cross-entropies of all classes, weighted by the inverse of the transition matrix: unbiased for the clean loss.

    .. math:: \ell = \sum_k (T^{-1})_{\tilde y, k} (-\log p_k)

    Its expectation over noisy labels is the cross-entropy of the true one; single values may be negative, and are
    large where T is ill-conditioned.

    Args:
      logits: unnormalized log p(y|x), float ``[..., K]``.
      labels: observed noisy classes in ``[0, K)``, int ``[...]``; the loss of others is NaN, without a gradient.
      inverse: the inverse of T, see ``nlx.transitions.invert``, float ``[K, K]``.
      where: examples that count, bool ``[...]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits not floating or labels not integer.
      ValueError: shapes disagree, or a matrix known before tracing has a row that does not sum to 1.

    Examples:
      >>> inverse = jnp.linalg.inv(jnp.array([[0.8, 0.2], [0.3, 0.7]]))
      >>> print(f"{backward_corrected(jnp.array([1.0, 0.0]), jnp.array(0), inverse):.3f}")
      -0.087

    References:
      Patrini et al., Making Deep Neural Networks Robust to Label Noise, 2017, Theorem 1.
    """
    weights = floating(inverse, "inverse")

    def loss(x: Array, y: Array) -> Array:
        same_shape("inverse", weights.shape, "[K, K]", (x.shape[-1],) * 2)
        distributions(inverse, "inverse", signed=True)
        rows = jnp.take(weights.astype(x.dtype), y, axis=0, mode="clip")
        return -jnp.sum(rows * jax.nn.log_softmax(x), axis=-1)

    return per_label(logits, labels, where, loss)


def binary_forward_corrected(
    logits: ArrayLike, labels: ArrayLike, transition: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""The noise layer's multi-label twin: a transition of its own for the presence of every class.

    .. math:: \ell = -\sum_k \log \sum_{j \in \{0, 1\}} T_{k,j,\tilde y_k}\, p(y_k = j \mid x)

    Args:
      logits: log-odds of each class, float ``[..., K]``.
      labels: observed noisy {0, 1} labels, of any dtype, ``[..., K]``; others give NaN, and are refused where known.
      transition: ``T[k, i, j] = p(noisy_k = j | true_k = i)``, float ``[K, 2, 2]``.
      where: classes that count, bool ``[..., K]``; the others give 0 and no gradient.

    Returns:
      Loss in nats, logits' dtype ``[...]``, one per example.

    Raises:
      TypeError: logits or transition not floating.
      ValueError: shapes disagree, or a matrix known before tracing has a row that does not sum to 1.

    Examples:
      >>> T = jnp.array([[[0.9, 0.1], [0.4, 0.6]]])
      >>> print(f"{binary_forward_corrected(jnp.array([0.0]), jnp.array([1]), T):.3f}")
      1.050

    References:
      Sukhbaatar et al., Training Convolutional Networks with Noisy Labels, 2014, with one label per class.
    """
    x, present, are, counts = _binary(logits, labels, where)
    t = floating(transition, "transition")
    same_shape("transition", t.shape, "[K, 2, 2]", (x.shape[-1], 2, 2))
    distributions(transition, "transition")
    pair = jnp.stack([jnp.zeros_like(x), x], axis=-1)
    said, silent = (t[..., j].astype(x.dtype).reshape((1,) * (x.ndim - 1) + t.shape[:2]) for j in (1, 0))
    column = jnp.where(present[..., None], said, silent)
    return _summed(mixture_loss(pair, column, slope_limit(t, x.size)), are, counts, logits)


def conditional_noise(
    logits: ArrayLike, reporting: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    r"""Noise that depends on the input: whether a class is seen, and whether what is seen is then reported.

    .. math:: \ell = -\sum_k \log \sum_{j \in \{0, 1\}} r_k(\tilde y_k \mid j, x)\, v_k(j \mid x)

    Args:
      logits: log-odds of the visual presence v, float ``[..., K]``.
      reporting: log-odds of r(label = 1 | j, x) for j = 0 and 1, float ``[..., K, 2]``.
      labels: observed {0, 1} labels, of any dtype, ``[..., K]``; others give NaN, and are refused where known.
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
    x, present, are, counts = _binary(logits, labels, where)
    odds = floating(reporting, "reporting")
    same_shape("reporting", odds.shape, "logits and 2", (*x.shape, 2))
    odds = masked(odds.astype(x.dtype), counts)
    seen = jnp.stack([jax.nn.log_sigmoid(-x), jax.nn.log_sigmoid(x)], axis=-1)
    said = jax.nn.log_sigmoid(jnp.where(present[..., None], odds, -odds))
    return _summed(-jax.nn.logsumexp(seen + said, axis=-1), are, counts, logits)


def _binary(logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None) -> tuple[Array, Array, Array, Array | None]:
    """Logits to work with, which labels are 1, which are 0 or 1, and the mask, all ``[..., K]``."""
    x = floating(logits, "logits")
    counts = mask(where, x.shape)
    present, are = label_vectors(labels, "labels", x.shape, counts)
    return masked(x.astype(working(x)), counts), present, are, counts


def _summed(per_class: Array, are: Array, where: Array | None, logits: ArrayLike) -> Array:
    """Losses ``[..., K]`` summed over the classes that count, NaN for labels that are neither 0 nor 1."""
    return as_type(
        jnp.sum(masked(jnp.where(are, per_class, jnp.nan), where), axis=-1), floating(logits, "logits").dtype
    )


def slope_limit(transition: Array, examples: int) -> float:
    """How large log p / T may be: such that the sum over all examples stays within the matrix's dtype."""
    return min(_MAX_LOG_SLOPE, math.log(float(jnp.finfo(transition.dtype).max) / max(examples, 1)))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def mixture_loss(x: Array, column: Array, limit: float) -> Array:
    """-log sum_i column_i softmax(x)_i, with zeros allowed in the column."""
    return _mixture_terms(x, column, limit)[0]


def _mixture_terms(x: Array, column: Array, limit: float) -> tuple[Array, Array, Array]:
    """The loss and its slopes in x and in column."""
    top, best = highest(x), highest(jnp.where(column > 0, x, -jnp.inf))
    # The classes that can have given the label are measured from the likeliest of them, all classes from the likeliest
    # of all: digits survive where either is far from 0 or from the other.
    odds = jnp.exp(x - top)
    shares = jnp.where(column < 0, 0.0, column) * jnp.exp(jnp.minimum(x - best, limit))
    total, mixture = (jnp.sum(y, axis=-1, keepdims=True) for y in (odds, shares))
    possible = mixture > 0
    mixture = jnp.where(possible, mixture, 1.0)
    loss = jnp.where(possible, jnp.log(total) - jnp.log(mixture) + (top - best), _IMPOSSIBLE)
    in_x = jnp.where(possible, odds / total - shares / mixture, 0.0)
    # Differentiating log T would give 0 times infinity where T is 0; this is the same slope without the detour.
    steep = jnp.where(possible, jnp.minimum(x - best - jnp.log(mixture), limit), x - top + limit)
    return loss[..., 0], in_x, -jnp.exp(steep)


@mixture_loss.defjvp
def _mixture_loss_jvp(limit: float, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    loss, in_x, in_column = _mixture_terms(*primals, limit)
    return loss, jnp.sum(in_x * tangents[0] + in_column * tangents[1], axis=-1)
