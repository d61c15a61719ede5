"""A conditional random field over clean and noisy labels: energies, conditionals, posterior, gradient, marginals.

The field joins the noisy labels y (N units) with the clean labels and hidden units, stacked as z = (clean, hidden) of
M = C + H units. For each example, with biases b of y and a of z and one coupling U for all,

.. math:: E(y, z) = -b \\cdot y - a \\cdot z - z^\\top U y, \\qquad p(y, z) \\propto e^{-E(y, z)}.

The first C entries of a depend on the input and belong to the clean labels; the other H are the hidden units' c. The
rows of U are W over W'. No hidden units: M = C. The auxiliary distribution is the same with biases that are the same
for every example (:mod:`nlx.crf.rbm`). Everything here is a pure function of arrays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlogy
from jax.typing import ArrayLike

from nlx.arguments import as_type, floating, in_range, known, mask, same_shape, working


def energy(y: ArrayLike, z: ArrayLike, coupling: ArrayLike, y_bias: ArrayLike, z_bias: ArrayLike) -> Array:
    """E(y, z); lower is more probable.

    As E is linear in y and in z, means of independent units may stand in for states: the result is the mean energy.

    Args:
      y: noisy labels, float ``[..., N]``.
      z: clean labels and hidden units, float ``[..., M]``.
      coupling: U, float ``[M, N]``.
      y_bias: b, float, of y's shape or ``[N]``.
      z_bias: a, float, of z's shape or ``[M]``.

    Returns:
      Energy in nats, float32 ``[...]``.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> one = jnp.ones(1)
      >>> print(energy(one, one, jnp.array([[3.0]]), one, 2 * one))
      -6.0

    References:
      Vahdat, 2017, Eq. 1 and 2.
    """
    y, z, u, b, a = floats(y=y, z=z, coupling=coupling, y_bias=y_bias, z_bias=z_bias)
    _fits(u, y, z)
    return -(_dot(y, b) + _dot(z, a) + jnp.sum(jnp.matmul(z, u) * y, axis=-1))


def z_logits(y: ArrayLike, coupling: ArrayLike, z_bias: ArrayLike) -> Array:
    """Log-odds of p(z = 1 given y): ``a + U y``.

    Args:
      y: noisy labels, float ``[..., N]``.
      coupling: U, float ``[M, N]``.
      z_bias: a, float ``[..., M]`` or ``[M]``.

    Returns:
      Log-odds, float32 ``[..., M]``.

    Examples:
      >>> print(z_logits(jnp.array([1.0, 0.0]), jnp.array([[3.0, 5.0]]), jnp.array([-1.0])))
      [2.]
    """
    y, u, bias = floats(y=y, coupling=coupling, z_bias=z_bias)
    return _affine(y, u.T, bias)


def y_logits(z: ArrayLike, coupling: ArrayLike, y_bias: ArrayLike) -> Array:
    """Log-odds of p(y = 1 given z): ``b + U^T z``, float32 ``[..., N]``; arguments as in :func:`z_logits`."""
    z, u, bias = floats(z=z, coupling=coupling, y_bias=y_bias)
    return _affine(z, u, bias)


def posterior_logits(logits: ArrayLike, auxiliary_logits: ArrayLike, alpha: ArrayLike) -> Array:
    r"""Log-odds of the variational posterior q(z given y, x).

    .. math:: q \propto \left(p(z \mid y, x)\, p_{aux}(z \mid y)^\alpha\right)^{1 / (\alpha + 1)}

    Args:
      logits: log-odds of p(z given y, x), float ``[...]`` (:func:`z_logits`).
      auxiliary_logits: log-odds under the auxiliary distribution, float of the same shape.
      alpha: weight of the auxiliary distribution, at least 0, scalar or of logits' rank (``[B, 1]``, say).

    Returns:
      Log-odds of q, logits' dtype ``[...]``; its first C units are the clean labels' (Eq. 10), the rest the hidden
      units', which serve examples of known clean labels too (Eq. 11).

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> print(posterior_logits(jnp.array([4.0]), jnp.array([0.0]), 3.0))
      [1.]

    References:
      Vahdat, 2017, Eq. 10 and 11.
    """
    p, aux, weight = _tempered(logits, auxiliary_logits, "auxiliary_logits", alpha)
    return as_type((p + weight * aux) / (weight + 1), floating(logits, "logits").dtype)


def categorical_posterior(logits: ArrayLike, auxiliary: ArrayLike, alpha: ArrayLike) -> Array:
    r"""The variational posterior over one clean class per example, in closed form.

    .. math:: q(k) \propto \left(\mathrm{softmax}(\text{logits})_k\, p_{aux}(k)^\alpha\right)^{1 / (\alpha + 1)}

    Args:
      logits: unnormalized log p(k given x), float ``[..., K]``.
      auxiliary: p_aux(k given the noisy label), float ``[..., K]``; a class of probability 0 stays at 0 for alpha > 0.
      alpha: weight of the auxiliary distribution, at least 0, scalar or of logits' rank (``[B, 1]``, say).

    Returns:
      Probabilities, logits' dtype ``[..., K]``, rows sum to 1.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> print(f"{categorical_posterior(jnp.zeros(2), jnp.array([0.1, 0.9]), 1.0)[1]:.2f}")
      0.75

    References:
      Vahdat, 2017, Eq. 10 and section 4.3.
    """
    p, aux, weight = _tempered(logits, auxiliary, "auxiliary", alpha)
    q = jax.nn.softmax((jax.nn.log_softmax(p) + xlogy(weight, aux)) / (weight + 1))
    return as_type(q, floating(logits, "logits").dtype)


def contrast(
    positive: tuple[ArrayLike, ArrayLike],
    negative: tuple[ArrayLike, ArrayLike],
    coupling: ArrayLike,
    y_bias: ArrayLike,
    z_bias: ArrayLike,
) -> Array:
    r"""A loss whose gradient is minus that of the variational lower bound.

    .. math:: \ell = \mathbb E_q[E(y, z)] - \mathbb E_p[E(y, z)]

    with both expectations' weights held constant, so that the gradient in any parameter t of a, b and U is
    :math:`\mathbb E_q[\partial_t E] - \mathbb E_p[\partial_t E]`: descending it follows Eq. 12 (13 where the clean
    labels are known). The value itself is no likelihood and may have either sign.

    Args:
      positive: (y ``[B, N]``, mean of z under q ``[B, M]``). q factorizes, so that its means are all it takes. Where
        clean labels are known they take the place of their means.
      negative: (y ``[B, chains, N]``, z ``[B, chains, M]``): samples of p(y, z given x). One of the two may be a
        conditional mean given the other, as :class:`nlx.samplers.gibbs.Info` gives them.
      coupling: U, float ``[M, N]``.
      y_bias: b, float ``[B, N]`` or ``[N]``.
      z_bias: a, float ``[B, M]`` or ``[M]``.

    Returns:
      Loss, float32 ``[B]``, one per example.

    Raises:
      ValueError: shapes disagree.

    Examples:
      >>> positive, negative = (jnp.ones((1, 1)), jnp.ones((1, 1))), (jnp.zeros((1, 4, 1)), jnp.zeros((1, 4, 1)))
      >>> print(jax.grad(lambda u: contrast(positive, negative, u, jnp.zeros(1), jnp.zeros(1)).sum())(jnp.ones((1, 1))))
      [[-1.]]

    References:
      Vahdat, 2017, Eq. 12 and 13.
    """
    u, b, a = floats(coupling=coupling, y_bias=y_bias, z_bias=z_bias)
    y, z, y_neg, z_neg = (jax.lax.stop_gradient(jnp.asarray(x, u.dtype)) for x in (*positive, *negative))
    _fits(u, y, z)
    _fits(u, y_neg, z_neg)
    if y_neg.ndim != 3 or y_neg.shape[:1] != y.shape[:1]:
        raise ValueError(f"negative samples must be [B, chains, .] with B = {y.shape[0]}, got {y_neg.shape}")
    # Biases meet the chains' means; only the pairwise term needs the chains themselves.
    pairs = jnp.sum(jnp.matmul(z, u) * y, -1) - jnp.mean(jnp.sum(jnp.matmul(z_neg, u) * y_neg, -1), -1)
    return -(_dot(y - jnp.mean(y_neg, 1), b) + _dot(z - jnp.mean(z_neg, 1), a) + pairs)


def split_weights(trusted: ArrayLike, share: float | None = None) -> Array:
    r"""Weights that turn a mean over a batch into the mean over noisy plus the mean over clean examples.

    :math:`w_i = B / m` with m the number of examples of i's kind in the batch, so that
    :math:`\tfrac1B \sum_i w_i \ell_i` is the sum of both means (Eq. 8); a kind that is absent adds nothing. Where a
    kind is so rare that many batches have none, its mean counts for less than the other's: with the share of the whole
    set, weights are 1/share and 1/(1 - share), and the expectation over batches is the sum of the set's two means.

    Args:
      trusted: which examples' clean labels are known, bool ``[B]``.
      share: of such examples in the whole set, in [0, 1]; None for the batch's.

    Returns:
      Weights, float32 ``[B]``.

    Raises:
      ValueError: share outside [0, 1].

    Examples:
      >>> print(split_weights(jnp.array([True, False, False])))
      [3.  1.5 1.5]

    References:
      Vahdat, 2017, Eq. 8 and Algorithm 1.
    """
    is_known = mask(trusted, jnp.shape(trusted)[:1], "trusted")
    if share is not None:
        in_range(share, "share", 0, 1)
    clean = jnp.sum(is_known.astype(jnp.float32)) if share is None else jnp.float32(share * is_known.size)
    return is_known.size / jnp.maximum(jnp.where(is_known, clean, is_known.size - clean), 1e-6)


def floats(**arrays: ArrayLike) -> list[Array]:
    """Arrays of floats in one type: float64 if any of them is, else float32."""
    given = [floating(x, name) for name, x in arrays.items()]
    return [x.astype(working(*given)) for x in given]


def _affine(x: Array, matrix: Array, bias: Array) -> Array:
    if x.ndim < 1 or matrix.ndim != 2 or x.shape[-1] != matrix.shape[0]:
        raise ValueError(f"coupling must be [M, N] for units {x.shape}, got {matrix.shape} from this side")
    product = jnp.matmul(x, matrix)
    return product + _aligned(bias, product)


def _dot(x: Array, bias: Array) -> Array:
    return jnp.sum(x * _aligned(bias, x), axis=-1)


def _aligned(bias: Array, like: Array) -> Array:
    """A bias with the axes that another array has before it."""
    if bias.shape not in (like.shape, like.shape[-1:]):
        raise ValueError(f"bias must be of shape {like.shape} or {like.shape[-1:]}, got {bias.shape}")
    return bias.reshape((1,) * (like.ndim - bias.ndim) + bias.shape)


def _tempered(logits: ArrayLike, other: ArrayLike, name: str, alpha: ArrayLike) -> tuple[Array, Array, Array]:
    p, aux = floats(**{"logits": logits, name: other})
    same_shape("logits", p.shape, name, aux.shape)
    shape = jnp.shape(alpha)
    if shape and (len(shape) != p.ndim or any(n not in (1, m) for n, m in zip(shape, p.shape, strict=True))):
        raise ValueError(f"alpha must be a scalar or of logits' rank, such as [B, 1], got {shape} beside {p.shape}")
    weights = known(alpha)
    if weights is not None and weights.size:
        in_range(weights.min(), "alpha", 0)
    return p, aux, jnp.asarray(alpha, p.dtype)


def _fits(u: Array, y: Array, z: Array) -> None:
    if not (y.ndim and z.ndim) or u.shape != (z.shape[-1], y.shape[-1]) or y.shape[:-1] != z.shape[:-1]:
        raise ValueError(f"coupling must be [M, N] for y [..., N] and z [..., M], got {u.shape}, {y.shape}, {z.shape}")
