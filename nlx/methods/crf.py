"""Robust CNN-CRF: noisy and clean labels joined in a conditional random field, guided by an auxiliary distribution.

Vahdat, Toward Robustness against Label Noise in Training Deep Discriminative Neural Networks. The classifier's logits
are the biases of the clean labels. Where those are unknown they are inferred by a posterior that listens to the field
and, alpha times as much, to a distribution fitted to the few examples whose clean labels are known. The field's own
expectations come from chains that every training example keeps from one visit to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nlx import crf as field
from nlx.arguments import ArgumentError, class_labels
from nlx.crf.rbm import RBM, Report, conditional_logits
from nlx.losses import binary_cross_entropy, soft_cross_entropy
from nlx.methods.method import (
    Batch,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    as_rows,
    from_rows,
    single_posterior,
)
from nlx.samplers import gibbs
from nlx.samplers.bits import Generator, default_generator, num_bytes

Prediction = Literal["gibbs", "mean_field", "logits"]


class Chains(NamedTuple):
    """What is kept of every training example.

    Attributes:
      alpha: the weight that its posterior was last computed with, float32 ``[n]``.
      chains: persistent chains, uint8 ``[n, chains, bytes]`` :func:`as_rows`; None without pairwise terms.
    """

    alpha: Array
    chains: Array | None


def annealed(start: float, end: float, steps: int) -> optax.Schedule:
    """The paper's curve for alpha: a straight line from start to end, and flat from there.

    Args:
      start: alpha at step 0 (paper 40 on COCO, 8 on CIFAR-10).
      end: alpha from ``steps`` on (paper 5 and 1).
      steps: length of the line (paper 11 and 10 epochs).

    Returns:
      step -> alpha.

    Raises:
      ArgumentError: a negative alpha, or no step.
    """
    if not (start >= 0 and end >= 0 and steps >= 1):
        raise ArgumentError(f"alpha needs `start` and `end` >= 0 and `steps` >= 1, got {start}, {end} and {steps}")
    return optax.linear_schedule(start, end, steps)


def crf(
    num_clean: int,
    num_noisy: int,
    *,
    alpha: optax.Schedule,
    auxiliary: RBM | Callable[[], tuple[RBM, Report]] | None,
    trusted_share: float | None = None,
    hidden: int = 50,
    link: bool = False,
    pairwise: bool = True,
    chains: int = 50,
    sweeps: int = 100,
    prediction: Prediction = "gibbs",
    prediction_sweeps: int = 50,
    prediction_chains: int = 20,
    start: field.Start = "mean_field",
    generator: Generator | None = None,
    dtype: DTypeLike = jnp.bfloat16,
) -> Method:
    r"""The robust CNN-CRF for multi-label data with two vocabularies.

    A batch's ``noisy_label`` is {0, 1} float ``[B, N]``; ``trusted_label`` ``[B, C]``, where there is one, holds clean
    labels, and negative numbers in the rows of examples whose clean labels are unknown. The backbone's logits
    ``[B, C]`` are the clean labels' biases a(x). The means over noisy and over clean examples are added (Eq. 8).

    Args:
      num_clean: C.
      num_noisy: N.
      alpha: alpha(step) >= 0, the auxiliary distribution's weight (:func:`annealed`).
      auxiliary: the machine over (y, clean labels, hidden units), or what fits it (:func:`nlx.crf.rbm.fit`) when a
        training begins; None to do without, whatever alpha. Frozen parameters hold it and, if fitted, the report.
      trusted_share: as ``share`` of :func:`nlx.crf.split_weights`.
      hidden: H (paper 200 for 1,000 noisy labels); 0 leaves the hidden units out. The auxiliary machine's are the same.
      link: whether the noisy labels' biases are a linear function of the backbone's ``features``; without, they depend
        on no input (the paper's best: without the x-y link).
      pairwise: whether y and the other units interact; without, nothing is sampled and the gradient is exact.
      chains: persistent chains per example.
      sweeps: Gibbs sweeps per step.
      prediction: scores for test examples: log-odds of ``gibbs`` marginals (with a fixed key), of ``mean_field``
        marginals, or the ``logits`` a(x) as they are.
      prediction_sweeps: sweeps to average over (and half as many before).
      prediction_chains: chains per test example.
      start: where these chains start.
      generator: where the chains' random bits come from; None for :func:`nlx.samplers.bits.default_generator`.
      dtype: operands of the chains' matrix products.

    Returns:
      The method. Its posterior has the one candidate ``posterior``, q(clean label given y, x) of Eq. 10; rows of
      trusted examples hold q too, as if their clean labels were unknown.

    Raises:
      ArgumentError: sizes out of range, an auxiliary machine of another shape, or an unknown prediction.

    References:
      Vahdat, 2017, sections 3 and 4.1.
    """
    if min(num_clean, num_noisy, chains, sweeps, prediction_sweeps, prediction_chains) < 1 or hidden < 0:
        raise ArgumentError("numbers of labels, `chains` and `sweeps` must be at least 1 and `hidden` at least 0")
    if prediction not in ("gibbs", "mean_field", "logits"):
        raise ArgumentError(f"unknown `prediction` {prediction!r}; known: gibbs, mean_field, logits")
    hidden = hidden if pairwise else 0
    units, generator = num_clean + hidden, generator or default_generator()
    if isinstance(auxiliary, RBM):
        _matching(auxiliary, num_clean, num_noisy, hidden)

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del num_classes
        params: Params = {"noisy_bias": jnp.zeros(num_noisy)}
        if auxiliary is not None:
            machine, course = (auxiliary, None) if isinstance(auxiliary, RBM) else auxiliary()
            params |= {"auxiliary": _matching(machine, num_clean, num_noisy, hidden), "auxiliary_course": course}
        if link:
            params["noisy_kernel"] = jnp.zeros((outputs["features"].shape[-1], num_noisy))
        if pairwise:
            params["coupling"] = jnp.zeros((units, num_noisy))
            if hidden:  # an empty array could not be saved
                params["hidden_bias"] = jnp.zeros(hidden)
        packed = as_rows(gibbs.init(key, size, chains, num_noisy, units).packed) if pairwise else None
        return params, Chains(_first_alpha(alpha, size), packed)

    def biases(params: Params, outputs: Outputs) -> tuple[Array, Array]:
        """b ``[B, N]`` and (a, c) ``[B, C + H]``."""
        a = outputs["logits"].astype(jnp.float32)
        b = jnp.broadcast_to(params["noisy_bias"], (len(a), num_noisy))
        if link:
            b = b + outputs["features"].astype(jnp.float32) @ params["noisy_kernel"]
        if hidden:
            a = jnp.concatenate([a, jnp.broadcast_to(params["hidden_bias"], (len(a), hidden))], axis=-1)
        return b, a

    def infer(params: Params, y: Array, z_bias: Array, weight: Array) -> Array:
        """q(z = 1 given y, x), ``[B, C + H]``."""
        logits = field.z_logits(y, params["coupling"], z_bias) if pairwise else z_bias
        if auxiliary is not None:
            logits = field.posterior_logits(logits, conditional_logits(params["auxiliary"], y), weight)
        return jax.nn.sigmoid(logits)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        y, weight = batch["noisy_label"].astype(jnp.float32), jnp.asarray(alpha(step), jnp.float32)
        b, a = biases(params, outputs)
        q = infer(params, y, a, weight)
        z, weights = q, jnp.ones(len(y))
        if "trusted_label" in batch:
            label = batch["trusted_label"].astype(jnp.float32)
            known = jnp.all(label >= 0, axis=-1)
            clean = jnp.where(known[:, None], label, q[:, :num_clean])
            z, weights = jnp.concatenate([clean, q[:, num_clean:]], axis=-1), field.split_weights(known, trusted_share)
        z = jax.lax.stop_gradient(z)
        metrics, used = {"alpha": weight}, jnp.full(len(y), weight)
        if not pairwise:
            # Independent units: the bound's gradient is that of two cross-entropies.
            return weights * (binary_cross_entropy(a, z) + binary_cross_entropy(b, y)), Chains(used, None), metrics
        state, info = gibbs.step(
            key,
            gibbs.State(from_rows(memory.chains, (chains, num_bytes(min(num_noisy, units))))),
            *jax.lax.stop_gradient((params["coupling"], b, a)),
            sweeps,
            generator=generator,
            dtype=dtype,
        )
        losses = field.contrast((y, z), (info.y, info.z), params["coupling"], b, a)
        metrics |= {"flip_rate": info.flip_rate, "noisy_gap": jnp.mean(jnp.abs(y - info.y_mean), axis=-1)}
        return weights * losses, Chains(used, as_rows(state.packed)), metrics

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        y = batch["noisy_label"].astype(jnp.float32)
        q = infer(params, y, biases(params, outputs)[1], memory.alpha[:, None])
        classifier = Column(jax.nn.sigmoid(outputs["logits"]), "belief")
        return single_posterior("posterior", q[:, :num_clean], {"classifier": classifier})

    def predict(params: Params, outputs: Outputs) -> Array:
        if not pairwise or prediction == "logits":
            return outputs["logits"]
        b, a = biases(params, outputs)
        if prediction == "mean_field":
            return field.z_logits(field.mean_field(params["coupling"], b, a)[0], params["coupling"], a)[:, :num_clean]
        return field.marginal_logits(
            jax.random.key(0),
            params["coupling"],
            b,
            a,
            sweeps=prediction_sweeps,
            burn_in=max(1, prediction_sweeps // 2),
            chains=prediction_chains,
            start=start,
            generator=generator,
            dtype=dtype,
        )[:, :num_clean]

    return Method("crf", loss, posterior, init, predict=predict, frozen=("auxiliary", "auxiliary_course"))


def crf_analytic(table: ArrayLike, *, alpha: optax.Schedule, clean_weight: float = 2.0) -> Method:
    r"""The robust CNN-CRF for one label per example, without pairwise terms: its posterior is in closed form.

    The loss is the cross-entropy of the classifier against
    :math:`q(k) \propto (p(k \mid x)\, p_{aux}(k \mid \tilde y)^\alpha)^{1 / (\alpha + 1)}`, held constant, or against
    the trusted label where there is one (``trusted_label``, int ``[B]``, negative where unknown).

    Args:
      table: p_aux(true class given noisy class), rows are noisy classes and sum to 1, float ``[K, K]``.
      alpha: alpha(step) >= 0 (:func:`annealed`; paper: from 8 to 1 in 10 epochs).
      clean_weight: of a trusted example, at least 0; the others have 1. (Means as in Eq. 8 would fit a few by heart.)

    Returns:
      The method, with the one candidate ``posterior``.

    Raises:
      ArgumentError: the table is not square, its rows are no distributions, or the weight is negative.

    References:
      Vahdat, 2017, section 4.3.
    """
    if not clean_weight >= 0:
        raise ArgumentError(f"`clean_weight` must be at least 0, got {clean_weight}")
    rows = np.asarray(table, np.float32)
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1]:
        raise ArgumentError(f"`table` must be [K, K], got {rows.shape}")
    if not ((rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-4)):
        raise ArgumentError("every row of `table` must be a distribution over the true classes given one noisy class")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs, num_classes
        return {}, Chains(_first_alpha(alpha, size), None)

    def infer(outputs: Outputs, batch: Batch, weight: Array) -> Array:
        said = class_labels(batch["noisy_label"], "noisy_label", len(rows))
        auxiliary = jnp.where(said[:, None] >= 0, jnp.asarray(rows)[said], jnp.nan)
        return field.categorical_posterior(outputs["logits"], auxiliary, weight)

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params
        logits, weight = outputs["logits"], jnp.asarray(alpha(step), jnp.float32)
        target, weights = infer(outputs, batch, weight), jnp.ones(len(logits))
        if "trusted_label" in batch:
            label = batch["trusted_label"]
            known = label >= 0
            target = jnp.where(known[:, None], jax.nn.one_hot(label, len(rows)), target)
            weights = jnp.where(known, clean_weight, weights)
        losses = soft_cross_entropy(logits, jax.lax.stop_gradient(target))
        return weights * losses, memory._replace(alpha=jnp.full(len(logits), weight)), {"alpha": weight}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params
        q = infer(outputs, batch, memory.alpha[:, None])
        return single_posterior("posterior", q, {"classifier": Column(jax.nn.softmax(outputs["logits"]), "belief")})

    return Method("crf_analytic", loss, posterior, init)


def _first_alpha(alpha: optax.Schedule, size: int) -> Array:
    return jnp.full(size, alpha(jnp.zeros((), jnp.int32)), jnp.float32)


def _matching(machine: RBM, num_clean: int, num_noisy: int, hidden: int) -> RBM:
    """The part of an auxiliary machine that speaks of the field's units."""
    units, kept = machine.z_bias.shape[0], num_clean + hidden
    if machine.coupling.shape != (units, num_noisy) or units < num_clean or (hidden and units != kept):
        wanted = f"{num_clean} + {hidden} rows and {num_noisy} columns: fit it with as many `hidden` units as it"
        raise ArgumentError(f"the `auxiliary` machine couples {machine.coupling.shape}; it should have {wanted}")
    return RBM(machine.coupling[:kept], machine.y_bias, machine.z_bias[:kept])
