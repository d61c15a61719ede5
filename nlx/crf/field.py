"""A conditional random field over clean and noisy labels: energies, conditionals, posterior, gradient, marginals.

The field joins the noisy labels y (N units) with the clean labels and hidden units, stacked as z = (clean, hidden) of
M = C + H units. For each example, with biases b of y and a of z and one coupling U for all,

.. math:: E(y, z) = -b \\cdot y - a \\cdot z - z^\\top U y, \\qquad p(y, z) \\propto e^{-E(y, z)}.

The first C entries of a depend on the input and belong to the clean labels; the other H are the hidden units' c. The
rows of U are W over W'. No hidden units: M = C. The auxiliary distribution is the same with biases that are the same
for every example (:mod:`nlx.crf.rbm`). Everything here is a pure function of arrays.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlogy
from jax.typing import ArrayLike, DTypeLike

from nlx.arguments import floating
from nlx.samplers import gibbs
from nlx.samplers.bits import Generator

Start = Literal["mean_field", "random"]


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
    y, z, u = _units(y, "y"), _units(z, "z"), _units(coupling, "coupling")
    _fits(u, y, z)
    return -(_dot(y, y_bias) + _dot(z, z_bias) + jnp.sum(jnp.matmul(z, u) * y, axis=-1))


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
    product = jnp.matmul(_units(y, "y"), _units(coupling, "coupling").T)
    return product + _aligned(z_bias, product)


def y_logits(z: ArrayLike, coupling: ArrayLike, y_bias: ArrayLike) -> Array:
    """Log-odds of p(y = 1 given z): ``b + U^T z``, float32 ``[..., N]``; arguments as in :func:`z_logits`."""
    product = jnp.matmul(_units(z, "z"), _units(coupling, "coupling"))
    return product + _aligned(y_bias, product)


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
    p, aux = jnp.asarray(logits), jnp.asarray(auxiliary_logits)
    if p.shape != aux.shape:
        raise ValueError(f"logits {p.shape} and auxiliary_logits {aux.shape} must have the same shape")
    alpha = jnp.asarray(alpha, p.dtype)
    return (p + alpha * aux) / (alpha + 1)


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
    p = jnp.asarray(logits)
    aux = jnp.asarray(auxiliary, p.dtype)
    if p.shape != aux.shape:
        raise ValueError(f"logits {p.shape} and auxiliary {aux.shape} must have the same shape")
    alpha = jnp.asarray(alpha, p.dtype)
    return jax.nn.softmax((jax.nn.log_softmax(p) + xlogy(alpha, aux)) / (alpha + 1))


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
    (y, z), (y_neg, z_neg) = jax.lax.stop_gradient(
        jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (tuple(positive), tuple(negative)))
    )
    u, b, a = (_units(x, name) for x, name in ((coupling, "coupling"), (y_bias, "y_bias"), (z_bias, "z_bias")))
    _fits(u, y, z)
    _fits(u, y_neg, z_neg)
    if y_neg.ndim != 3 or y_neg.shape[:1] != y.shape[:1]:
        raise ValueError(f"negative samples must be [B, chains, .] with B = {y.shape[0]}, got {y_neg.shape}")
    # Biases meet the chains' means; only the pairwise term needs the chains themselves.
    pairs = jnp.sum(jnp.matmul(z, u) * y, -1) - jnp.mean(jnp.sum(jnp.matmul(z_neg, u) * y_neg, -1), -1)
    return -(_dot(y - jnp.mean(y_neg, 1), b) + _dot(z - jnp.mean(z_neg, 1), a) + pairs)


def split_weights(trusted: ArrayLike) -> Array:
    r"""Weights that turn a mean over a batch into the mean over noisy plus the mean over clean examples.

    :math:`w_i = B / m` with m the number of examples of i's kind in the batch, so that
    :math:`\tfrac1B \sum_i w_i \ell_i` is the sum of both means (Eq. 8); a kind that is absent adds nothing.

    Args:
      trusted: which examples' clean labels are known, bool ``[B]``.

    Returns:
      Weights, float32 ``[B]``.

    Examples:
      >>> print(split_weights(jnp.array([True, False, False])))
      [3.  1.5 1.5]

    References:
      Vahdat, 2017, Eq. 8 and Algorithm 1.
    """
    known = jnp.asarray(trusted, bool)
    clean = jnp.sum(known.astype(jnp.float32))
    count = jnp.where(known, clean, known.size - clean)
    return known.size / count


def mean_field(coupling: ArrayLike, y_bias: ArrayLike, z_bias: ArrayLike, iterations: int = 20) -> tuple[Array, Array]:
    """Approximate marginals by the mean-field equations, started from y's biases alone.

    Args:
      coupling: U, float ``[M, N]``.
      y_bias: b, float ``[B, N]`` or ``[N]``.
      z_bias: a, float ``[B, M]`` or ``[M]``.
      iterations: updates of z and y in turn.

    Returns:
      Probabilities that y = 1 and that z = 1, float32 ``[..., N]`` and ``[..., M]``.

    Examples:
      >>> y, z = mean_field(jnp.zeros((1, 1)), jnp.zeros(1), jnp.zeros(1))
      >>> print(y, z)
      [0.5] [0.5]
    """
    u, b, a = (_units(x, name) for x, name in ((coupling, "coupling"), (y_bias, "y_bias"), (z_bias, "z_bias")))
    lead = jnp.broadcast_shapes(b.shape[:-1], a.shape[:-1])
    b, a = jnp.broadcast_to(b, (*lead, b.shape[-1])), jnp.broadcast_to(a, (*lead, a.shape[-1]))

    def update(_: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        z = jax.nn.sigmoid(z_logits(both[0], u, a))
        return jax.nn.sigmoid(y_logits(z, u, b)), z

    return jax.lax.fori_loop(0, iterations, update, (jax.nn.sigmoid(b), jax.nn.sigmoid(a)))


def marginals(
    key: Array,
    coupling: ArrayLike,
    y_bias: ArrayLike,
    z_bias: ArrayLike,
    *,
    sweeps: int = 100,
    burn_in: int = 20,
    chains: int = 50,
    start: Start = "mean_field",
    generator: Generator = "threefry",
    dtype: DTypeLike = jnp.bfloat16,
) -> Array:
    r"""p(z = 1 given x) by Gibbs sampling, from averaged conditional probabilities :math:`\sigma(a + U y)`.

    Averaging probabilities instead of draws (Rao-Blackwell) gives the same mean with less variance.

    Args:
      key: typed PRNG key.
      coupling: U, float ``[M, N]``.
      y_bias: b, float ``[B, N]`` or ``[N]``.
      z_bias: a, float ``[B, M]``.
      sweeps: sweeps to average over.
      burn_in: sweeps before, at least 1.
      chains: chains per example.
      start: ``mean_field``: chains start at draws from the mean-field marginals, which shortens the burn-in;
        ``random``: at fair coins.
      generator: where the random bits come from.
      dtype: operands of the matrix products.

    Returns:
      Probabilities, float32 ``[B, M]``; the first C are the clean labels'.

    Raises:
      ValueError: unknown start, or as :func:`nlx.samplers.gibbs.step`.

    Examples:
      >>> print(marginals(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(2), jnp.array([[1.0]])).round(3))
      [[0.731]]

    References:
      Vahdat, 2017, section 3.2 (test time).
    """
    u, b, a = (_units(x, name) for x, name in ((coupling, "coupling"), (y_bias, "y_bias"), (z_bias, "z_bias")))
    if start not in ("mean_field", "random"):
        raise ValueError(f"unknown start {start!r}; known: mean_field, random")
    num_z, num_y = u.shape
    mean = None
    if start == "mean_field":
        mean = mean_field(u, b, a)[0 if gibbs.carries_y(num_y, num_z) else 1]
    init_key, burn_key, key = jax.random.split(key, 3)
    state = gibbs.init(init_key, a.shape[0], chains, num_y, num_z, mean=mean)
    state, _ = gibbs.step(burn_key, state, u, b, a, burn_in, generator=generator, dtype=dtype)
    return gibbs.step(key, state, u, b, a, sweeps, generator=generator, dtype=dtype, average=True)[1].z_mean


def _dot(x: Array, bias: ArrayLike) -> Array:
    return jnp.sum(x * _aligned(bias, x), axis=-1)


def _aligned(bias: ArrayLike, like: Array) -> Array:
    """A bias as float32, with the axes that another array has before it."""
    bias = _units(bias, "bias")
    if bias.shape not in (like.shape, like.shape[-1:]):
        raise ValueError(f"bias must be of shape {like.shape} or {like.shape[-1:]}, got {bias.shape}")
    return bias.reshape((1,) * (like.ndim - bias.ndim) + bias.shape)


def _units(x: ArrayLike, name: str) -> Array:
    return floating(x, name).astype(jnp.float32)


def _fits(u: Array, y: Array, z: Array) -> None:
    if u.shape != (z.shape[-1], y.shape[-1]) or y.shape[:-1] != z.shape[:-1]:
        raise ValueError(f"coupling must be [M, N] for y [..., N] and z [..., M], got {u.shape}, {y.shape}, {z.shape}")
