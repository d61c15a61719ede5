"""A restricted Boltzmann machine over noisy and clean labels, trained by persistent contrastive divergence.

It is the auxiliary distribution of the robust CNN-CRF: the field of :mod:`nlx.crf` with biases that depend on no input,
fitted to the few examples whose clean labels are known and frozen afterwards.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nlx.arguments import label_vectors, typed_key, varying
from nlx.crf.field import contrast, floats, z_logits
from nlx.samplers import gibbs
from nlx.samplers.bits import Generator


class RBM(NamedTuple):
    """Parameters of p(y, z) with z = (clean labels, hidden units).

    Attributes:
      coupling: U = [W; W'], float32 ``[C + H, N]``.
      y_bias: b, float32 ``[N]``.
      z_bias: (a, c), float32 ``[C + H]``.
    """

    coupling: Array
    y_bias: Array
    z_bias: Array


class Report(NamedTuple):
    """The course of a fit, one value a step.

    Attributes:
      clean_loss: cross-entropy of the clean labels given the noisy ones, in nats per label, on the step's batch: how
        well the machine does what it is for.
      gradient: root mean square of the coupling's gradient; it falls to the samples' noise when the fit has converged.
      flip_rate: share of the chains' units that a step changed; near 0 the chains stand still, and the fit cannot be
        trusted.
    """

    clean_loss: Array
    gradient: Array
    flip_rate: Array

    def course(self) -> dict[str, float]:
        """The fit in figures: mean cross-entropy of its first and last twentieth, and the flip rate of the last."""
        part, losses = max(1, len(self.clean_loss) // 20), self.clean_loss
        last = {"cross_entropy_last": losses[-part:], "flip_rate": self.flip_rate[-part:]}
        means = {"cross_entropy_first": losses[:part], **last}
        return {f"auxiliary_{name}": round(float(values.mean()), 4) for name, values in means.items()}


def conditional_logits(rbm: RBM, y: ArrayLike) -> Array:
    """Log-odds of p_aux(z = 1 given y), float32 ``[..., C + H]``, for y float ``[..., N]``."""
    return z_logits(y, rbm.coupling, rbm.z_bias)


def likelihood_loss(rbm: RBM, y: ArrayLike, clean: ArrayLike, negative: tuple[ArrayLike, ArrayLike]) -> Array:
    r"""A loss whose gradient is minus that of :math:`\log p(y, \hat y)`, the hidden units summed out.

    Args:
      rbm: the parameters.
      y: noisy labels, float ``[n, N]``.
      clean: clean labels, float ``[n, C]``.
      negative: samples of the machine, (y ``[1, chains, N]``, z ``[1, chains, C + H]``).

    Returns:
      Mean over examples, float32 scalar; only its gradient means anything.

    Raises:
      ValueError: more clean labels than units.

    Examples:
      >>> rbm = RBM(jnp.zeros((1, 1)), jnp.zeros(1), jnp.zeros(1))
      >>> one, none = jnp.ones((1, 1)), jnp.zeros((1, 1, 1))
      >>> print(jax.grad(likelihood_loss)(rbm, one, one, (none, none)).coupling)
      [[-1.]]
    """
    y, clean = floats(y=y, clean=clean)
    if not y.ndim == clean.ndim == 2 or len(y) != len(clean):
        raise ValueError(f"y must be [n, N] and clean [n, C], got {y.shape} and {clean.shape}")
    if clean.shape[-1] > rbm.z_bias.shape[0]:
        raise ValueError(f"the machine has {rbm.z_bias.shape[0]} units beside y, fewer than labels {clean.shape}")
    hidden = jax.nn.sigmoid(conditional_logits(rbm, y)[..., clean.shape[-1] :])
    # The energy is linear in z at fixed y, so that its mean over examples is one contrast with n "chains".
    data = jax.lax.stop_gradient((y[None], jnp.concatenate([clean, hidden], axis=-1)[None]))
    fields = (rbm.coupling, rbm.y_bias, rbm.z_bias)
    nothing = jax.tree.map(lambda x: jnp.zeros((1, x.shape[-1]), x.dtype), data)
    return jnp.sum(contrast(nothing, negative, *fields) - contrast(nothing, data, *fields))


def fit(
    key: Array,
    y: ArrayLike,
    clean: ArrayLike,
    hidden: int,
    steps: int,
    *,
    batch_size: int = 128,
    chains: int = 256,
    sweeps: int = 5,
    learning_rate: float = 0.05,
    momentum: float = 0.5,
    weight_decay: float = 1e-4,
    generator: Generator = "threefry",
    dtype: DTypeLike = jnp.bfloat16,
) -> tuple[RBM, Report]:
    """Fit the machine by stochastic gradient descent with persistent chains, in one scan.

    Biases start at the log-odds of the labels' frequencies and couplings near zero, so that the chains begin close to
    the data's first moments. The learning rate falls linearly to zero, which persistent chains need to keep up.

    Args:
      key: typed PRNG key.
      y: noisy labels in {0, 1}, ``[n, N]``.
      clean: clean labels in {0, 1}, ``[n, C]``.
      hidden: H, 0 or more.
      steps: updates.
      batch_size: examples a step, drawn with replacement.
      chains: persistent chains.
      sweeps: sweeps a step.
      learning_rate: at the start.
      momentum: of the updates.
      weight_decay: pull of the couplings (not of the biases) towards zero, per unit of learning rate.
      generator: where the chains' random bits come from.
      dtype: operands of the chains' matrix products.

    Returns:
      The machine and the report.

    Raises:
      ValueError: numbers of examples disagree, or a count out of range.

    Examples:
      >>> y = jnp.tile(jnp.eye(2), (50, 1))  # two noisy labels, each the sign of one clean label
      >>> rbm, report = fit(jax.random.key(0), y, y, hidden=0, steps=300, learning_rate=0.2)
      >>> print(jax.nn.sigmoid(conditional_logits(rbm, jnp.eye(2))).round())
      [[1. 0.]
       [0. 1.]]

    References:
      Tieleman, 2008. Vahdat, 2017, section 3.2, Eq. 6 and 7.
    """
    shapes = jnp.shape(y), jnp.shape(clean)
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][0] or shapes[0][0] == 0:
        raise ValueError(f"y must be [n, N] and clean [n, C] with the same n > 0, got {shapes[0]} and {shapes[1]}")
    # Labels that are neither 0 nor 1 leave nothing to fit, which NaN says where they cannot be refused.
    (y, y_fits), (clean, clean_fits) = (label_vectors(x, name) for x, name in ((y, "y"), (clean, "clean")))
    y, clean = (jnp.where(f, x.astype(jnp.float32), jnp.nan) for x, f in ((y, y_fits), (clean, clean_fits)))
    if hidden < 0 or min(steps, batch_size, chains, sweeps) < 1:
        raise ValueError("hidden must be at least 0, and steps, batch_size, chains and sweeps at least 1")
    rates = jnp.array([learning_rate, momentum, weight_decay], jnp.float32)
    fixed = hidden, steps, batch_size, chains, sweeps, generator, jnp.dtype(dtype)
    return _fit(typed_key(key), y, clean, rates, fixed)


@partial(jax.jit, static_argnames="fixed")
def _fit(key: Array, y: Array, clean: Array, rates: Array, fixed: tuple[Any, ...]) -> tuple[RBM, Report]:
    hidden, steps, batch_size, chains, sweeps, generator, dtype = fixed
    learning_rate, momentum, weight_decay = rates
    weights_key, chains_key, run_key = jax.random.split(key, 3)
    num_y, num_z = y.shape[1], clean.shape[1] + hidden
    rbm = RBM(
        # Hidden units that started alike would stay alike.
        0.01 * jax.random.normal(weights_key, (num_z, num_y), jnp.float32),
        _log_odds(y),
        jnp.concatenate([_log_odds(clean), jnp.zeros(hidden, jnp.float32)]),
    )
    start = jax.nn.sigmoid(rbm.y_bias if gibbs.carries_y(num_y, num_z) else rbm.z_bias)
    state = gibbs.init(chains_key, 1, chains, num_y, num_z, mean=start)

    def update(carry: tuple[RBM, RBM, gibbs.State], i: Array) -> tuple[tuple[RBM, RBM, gibbs.State], Report]:
        rbm, velocity, state = carry
        sample_key, gibbs_key = jax.random.split(jax.random.fold_in(run_key, i))
        rows = jax.random.randint(sample_key, (batch_size,), 0, len(y), jnp.int32)
        state, info = gibbs.step(gibbs_key, state, *rbm, sweeps, generator=generator, dtype=dtype)
        gradient = jax.grad(likelihood_loss)(rbm, y[rows], clean[rows], (info.y, info.z))
        rate = learning_rate * (1 - i.astype(jnp.float32) / steps)
        decayed = gradient._replace(coupling=gradient.coupling + weight_decay * rbm.coupling)
        velocity = jax.tree.map(lambda v, g: momentum * v - rate * g, velocity, decayed)
        logits = conditional_logits(rbm, y[rows])[:, : clean.shape[1]]
        loss = jnp.mean(jax.nn.softplus(logits) - clean[rows] * logits)
        report = Report(loss, jnp.sqrt(jnp.mean(gradient.coupling**2)), info.flip_rate[0])
        return (jax.tree.map(jnp.add, rbm, velocity), velocity, state), report

    carry = jax.tree.map(lambda x: varying(x, y, clean), (rbm, jax.tree.map(jnp.zeros_like, rbm), state))
    (rbm, _, _), report = jax.lax.scan(update, carry, jnp.arange(steps, dtype=jnp.int32))
    return rbm, report


def _log_odds(labels: Array) -> Array:
    """Log-odds of the labels' frequencies, counting half an example more of each kind."""
    on = jnp.sum(labels, axis=0)
    return jnp.log(on + 0.5) - jnp.log(len(labels) - on + 0.5)
