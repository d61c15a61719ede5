import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nlx.losses import binary_cross_entropy
from nlx.variational import label_divergence, quality_divergence, reconstruction

RNG = np.random.default_rng(0)
Q = jnp.asarray(RNG.normal(0, 2, (7, 4)), jnp.float32)
P = jnp.asarray(RNG.normal(0, 2, (7, 4)), jnp.float32)
LAMBDAS = (0.0, 0.3, 1.0, 5.0)


def sigmoid64(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.mark.parametrize("regularizer", LAMBDAS)
def test_label_divergence_enumerates_both_values_of_every_class(regularizer):
    q, p = sigmoid64(Q), sigmoid64(P)
    expected = np.zeros(7)
    for i in range(7):
        for k in range(4):
            for qv, pv in ((q[i, k], p[i, k]), (1 - q[i, k], 1 - p[i, k])):
                expected[i] += qv * np.log(qv ** (1 - regularizer) / pv)
    np.testing.assert_allclose(label_divergence(Q, P, regularizer), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("regularizer", LAMBDAS)
def test_quality_divergence_is_the_integral_over_one_dimension(regularizer):
    # KL(q || N(0, 1)) - lambda E_q[ln q], integrated; Eq. 8 drops the constant lambda/2 (1 + ln 2 pi).
    mean, variance = 0.7, 0.4
    s = np.linspace(-12, 12, 400_001)
    log_q = -0.5 * np.log(2 * np.pi * variance) - (s - mean) ** 2 / (2 * variance)
    log_prior = -0.5 * np.log(2 * np.pi) - s**2 / 2
    integral = np.trapezoid(np.exp(log_q) * (log_q - log_prior - regularizer * log_q), s)
    constant = regularizer / 2 * (1 + np.log(2 * np.pi))
    value = quality_divergence(jnp.array([mean]), jnp.log(jnp.array([variance])), regularizer)
    np.testing.assert_allclose(value, integral - constant, rtol=1e-5)


def test_objective_bounds_the_evidence_by_a_numeric_integral():
    """K = 2, D = 1: reconstruction + divergences, averaged over exact samples, is -ELBO >= -ln P(noisy | x)."""
    noisy = np.array([1.0, 0.0])
    p = sigmoid64(np.array([0.4, -1.0]))
    q_logits, mean, log_variance = np.array([1.2, -0.5]), 0.3, -0.6
    q = sigmoid64(q_logits)
    weights = np.array([[1.5, -0.4], [0.2, 2.0], [0.8, -1.1]])  # rows: z_1, z_2, s

    def log_likelihood(z, s):
        logits = weights[0] * z[0] + weights[1] * z[1] + weights[2] * s[:, None] - 0.5
        return (noisy * np.log(sigmoid64(logits)) + (1 - noisy) * np.log(sigmoid64(-logits))).sum(-1)

    s = np.linspace(-10, 10, 40_001)
    prior = np.exp(-(s**2) / 2) / np.sqrt(2 * np.pi)
    variance = np.exp(log_variance)
    posterior = np.exp(-((s - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    evidence, expected = 0.0, 0.0
    for z in ((0, 0), (0, 1), (1, 0), (1, 1)):
        p_z = np.prod(np.where(z, p, 1 - p))
        q_z = np.prod(np.where(z, q, 1 - q))
        evidence += p_z * np.trapezoid(np.exp(log_likelihood(z, s)) * prior, s)
        expected += q_z * np.trapezoid(log_likelihood(z, s) * posterior, s)

    draws = 200_000
    rng = np.random.default_rng(0)
    z = (rng.uniform(size=(draws, 2)) < q).astype(float)
    samples = mean + np.sqrt(variance) * rng.normal(size=(draws, 1))
    logits = np.concatenate([z, samples], axis=1) @ weights - 0.5
    term = float(reconstruction(jnp.asarray(logits, jnp.float32), jnp.asarray(noisy, jnp.float32)))
    assert abs(term + expected) < 0.01
    divergences = float(
        label_divergence(jnp.asarray(q_logits, jnp.float32), jnp.log(jnp.asarray(p / (1 - p), jnp.float32)))
        + quality_divergence(jnp.array([mean]), jnp.array([log_variance]))
    )
    assert -expected + divergences > -np.log(evidence)
    # The gap is KL from the true posterior: the bound is tight when q is chosen best, not for any q.
    assert -expected + divergences < -np.log(evidence) + 3


def test_reconstruction_averages_samples():
    logits = jnp.asarray(RNG.normal(size=(3, 7, 4)), jnp.float32)
    noisy = jnp.asarray(RNG.integers(0, 2, (7, 4)), jnp.float32)
    expected = np.mean([binary_cross_entropy(x, noisy) for x in logits], axis=0)
    np.testing.assert_allclose(reconstruction(logits, noisy), expected, rtol=1e-6)


def test_divergence_of_a_distribution_from_itself_is_zero_and_otherwise_positive():
    np.testing.assert_allclose(label_divergence(Q, Q), 0, atol=1e-5)
    assert (np.asarray(label_divergence(Q, P)) > 0).all()
    np.testing.assert_allclose(quality_divergence(jnp.zeros(3), jnp.zeros(3)), 0)


def test_the_regularizer_rewards_certainty():
    unsure, sure = jnp.zeros(2), jnp.array([4.0, -4.0])
    gain = label_divergence(unsure, unsure, 0.5) - label_divergence(sure, sure, 0.5)
    assert gain > 0.5


def test_gradients():
    check_grads(lambda q, p: label_divergence(q, p, 0.3), (Q[:2], P[:2]), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)
    check_grads(
        lambda m, v: quality_divergence(m, v, 0.3), (Q[:2], P[:2] / 4), order=1, modes=("rev",), atol=2e-2, rtol=2e-2
    )


def test_gradient_of_the_label_term_is_equation_6():
    regularizer = 0.3
    gradient = jax.grad(lambda q: label_divergence(q, P, regularizer).sum())(Q)
    q, p = sigmoid64(Q), sigmoid64(P)
    by_probability = np.log(q ** (1 - regularizer) * (1 - p) / ((1 - q) ** (1 - regularizer) * p))
    np.testing.assert_allclose(gradient, by_probability * q * (1 - q), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_finite_at_extremes(extreme):
    q = jnp.array([extreme, -extreme, 0.0])
    value, gradients = jax.value_and_grad(lambda q, p: label_divergence(q, p, 0.3), (0, 1))(q, -q)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_jit_and_vmap_agree():
    loop = jnp.stack([label_divergence(q, p, 0.3) for q, p in zip(Q, P, strict=True)])
    np.testing.assert_allclose(jax.jit(label_divergence)(Q, P, 0.3), loop, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda q, p: label_divergence(q, p, 0.3))(Q, P), loop, rtol=1e-5, atol=1e-6)


def test_bad_input_is_named():
    for function in (label_divergence, quality_divergence):
        with pytest.raises(ValueError, match="must have the same shape"):
            function(Q, P[:, :2])
