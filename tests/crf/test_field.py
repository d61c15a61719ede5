import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import crf
from nlx.samplers import gibbs

C, H, N = 2, 2, 3
M = C + H
rng = np.random.default_rng(0)
U, B, A = (jnp.asarray(rng.normal(size=s), "f4") for s in ((M, N), (1, N), (1, M)))
AUX = tuple(jnp.asarray(rng.normal(size=s), "f4") for s in ((M, N), (M,)))
Y = jnp.array([[1.0, 0.0, 1.0]])


def states(n):
    return jnp.asarray((np.arange(2**n)[:, None] >> np.arange(n)) & 1, jnp.float32)


ALL_Y, ALL_Z = states(N), states(M)


def energies(u, b, a):
    """E of every (z, y), ``[2^M, 2^N]``, written out apart from the library."""
    return -((ALL_Z @ a)[:, None] + (ALL_Y @ b)[None] + ALL_Z @ u @ ALL_Y.T)


def exact_posterior(y, alpha):
    """q over all z given y by its definition, ``[2^M]``, and the same under the field alone."""
    log_p = jax.nn.log_softmax(ALL_Z @ (A[0] + U @ y))
    log_aux = jax.nn.log_softmax(ALL_Z @ (AUX[1] + AUX[0] @ y))
    return jax.nn.softmax((log_p + alpha * log_aux) / (alpha + 1)), jnp.exp(log_p)


def assert_same(tree, other, **kwargs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **kwargs), tree, other)


def test_energy_is_that_of_the_definition():
    y, z = jnp.tile(ALL_Y, (len(ALL_Z), 1)), jnp.repeat(ALL_Z, len(ALL_Y), 0)
    ours = crf.energy(y, z, U, B[0], A[0]).reshape(len(ALL_Z), len(ALL_Y))
    np.testing.assert_allclose(ours, energies(U, B[0], A[0]), rtol=1e-5, atol=1e-5)


def test_conditionals_are_those_of_the_enumerated_model():
    p = np.asarray(jax.nn.softmax(-energies(U, B[0], A[0]), axis=None), np.float64)
    given_y = (p / p.sum(0)).T @ np.asarray(ALL_Z)
    given_z = (p / p.sum(1, keepdims=True)) @ np.asarray(ALL_Y)
    np.testing.assert_allclose(jax.nn.sigmoid(crf.z_logits(ALL_Y, U, A[0])), given_y, rtol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(crf.y_logits(ALL_Z, U, B[0])), given_z, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 40.0])
def test_posterior_is_the_normalized_product_of_both_distributions(alpha):
    for y in ALL_Y:
        logits = crf.posterior_logits(crf.z_logits(y, U, A[0]), crf.z_logits(y, *AUX), alpha)
        np.testing.assert_allclose(jax.nn.sigmoid(logits), exact_posterior(y, alpha)[0] @ ALL_Z, rtol=1e-4)


def test_posterior_goes_from_the_field_to_the_auxiliary_distribution():
    p, aux = jnp.array([[1.0, -2.0]]), jnp.array([[3.0, 5.0]])
    np.testing.assert_array_equal(crf.posterior_logits(p, aux, 0.0), p)
    np.testing.assert_allclose(crf.posterior_logits(p, aux, 1e7), aux, rtol=1e-6)
    by_example = crf.posterior_logits(jnp.tile(p, (2, 1)), jnp.tile(aux, (2, 1)), jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(by_example, [[1, -2], [2, 1.5]])


def q_means(alpha, clean=None):
    q = exact_posterior(Y[0], alpha)[0] @ ALL_Z
    return q[None] if clean is None else jnp.concatenate([clean, q[C:]])[None]


def gradient_with_exact_weights(positive):
    """Gradient of the contrast with every state as a chain of its own, weighted by its probability."""
    p = jax.nn.softmax(-energies(U, B[0], A[0]), axis=None).reshape(-1)
    y, z = jnp.tile(ALL_Y, (len(ALL_Z), 1)), jnp.repeat(ALL_Z, len(ALL_Y), 0)

    def loss(fields):
        one = lambda y, z: crf.contrast((Y, positive), (y[None, None], z[None, None]), *fields)[0]  # noqa: E731
        return jnp.sum(p * jax.vmap(one)(y, z))

    return jax.jit(jax.grad(loss))((U, B, A))


def log_joint(fields):
    """log p(y, z) for the observed y and every z, ``[2^M]``."""
    u, b, a = fields
    e = energies(u, b[0], a[0])
    index = int(np.argmax((np.asarray(ALL_Y) == np.asarray(Y)).all(1)))
    return -e[:, index] - jax.nn.logsumexp(-e, axis=None)


def test_gradient_is_that_of_the_likelihood_of_y_without_auxiliary_distribution():
    exact = jax.jit(jax.grad(lambda f: -jax.nn.logsumexp(log_joint(f))))((U, B, A))
    assert_same(gradient_with_exact_weights(q_means(0.0)), exact, atol=2e-5)


def test_gradient_is_that_of_the_likelihood_of_both_where_clean_labels_are_known():
    clean = jnp.array([1.0, 0.0])
    agree = (np.asarray(ALL_Z)[:, :C] == np.asarray(clean)).all(1)
    exact = jax.jit(jax.grad(lambda f: -jax.nn.logsumexp(log_joint(f)[agree])))((U, B, A))
    assert_same(gradient_with_exact_weights(q_means(0.0, clean)), exact, atol=2e-5)


def test_gradient_is_that_of_the_lower_bound_with_auxiliary_distribution():
    q, _ = exact_posterior(Y[0], 3.0)
    exact = jax.jit(jax.grad(lambda f: -jnp.sum(q * log_joint(f))))((U, B, A))
    assert_same(gradient_with_exact_weights(q_means(3.0)), exact, atol=2e-5)


def test_gradient_from_chains_is_the_exact_one_within_its_error(key):
    chains = 20_000
    state = gibbs.init(key, 1, chains, N, M)
    _, info = gibbs.step(key, state, U, B, A, 20, generator="hash", dtype=jnp.float32)
    negative = (info.y, info.z)
    gradient = jax.grad(lambda f: crf.contrast((Y, q_means(0.0)), negative, *f).sum())((U, B, A))
    exact = gradient_with_exact_weights(q_means(0.0))
    spread = (np.einsum("cm,cn->cmn", info.z[0], info.y[0]).std(0), info.y[0].std(0)[None], info.z[0].std(0)[None])
    for ours, right, sd in zip(gradient, exact, spread, strict=True):
        assert (np.abs(ours - right) < 4.5 * sd / np.sqrt(chains)).all()
        assert (sd > 0.01).all()


def test_contrast_takes_no_gradient_through_its_weights_and_vanishes_between_equals(key):
    z, y_neg, z_neg = (jax.random.uniform(key, s) for s in ((1, M), (1, 5, N), (1, 5, M)))
    of_weights = jax.grad(lambda w: crf.contrast((Y, w[0]), (w[1], w[2]), U, B, A).sum())((z, y_neg, z_neg))
    assert all((g == 0).all() for g in jax.tree.leaves(of_weights))
    np.testing.assert_allclose(crf.contrast((Y, z), (Y[:, None], z[:, None]), U, B[0], A[0]), 0, atol=1e-6)


def test_contrast_is_finite_at_extremes():
    negative = (jnp.ones((1, 2, N)), jnp.ones((1, 2, M)))
    value, gradient = jax.value_and_grad(lambda f: crf.contrast((Y, jnp.zeros((1, M))), negative, *f).sum())(
        (U * 1e4, B * 1e4, A * 1e4)
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


def test_weights_make_a_mean_the_sum_of_two_means():
    known = jnp.array([True, False, False, True, False, False, False])
    losses = jnp.arange(7.0)
    total = losses[known].mean() + losses[~known].mean()
    np.testing.assert_allclose(jnp.mean(crf.split_weights(known) * losses), total, rtol=1e-6)
    for kind in (True, False):
        np.testing.assert_array_equal(crf.split_weights(jnp.full(5, kind)), 1)


def test_with_the_share_of_the_whole_set_the_clean_mean_counts_once_however_rare_it_is():
    known = jnp.arange(3200) % 100 == 7
    batches = known[jax.random.permutation(jax.random.key(0), 3200)].reshape(100, 32)

    def of_clean(share):
        return float(np.mean([jnp.mean(jnp.where(k, crf.split_weights(k, share), 0.0)) for k in batches]))

    assert of_clean(0.01) == pytest.approx(1, rel=1e-5)
    assert of_clean(None) < 0.4
    assert np.isfinite(crf.split_weights(jnp.zeros(4, bool), 0.0)).all()
    assert np.isfinite(crf.split_weights(jnp.ones(4, bool), 1.0)).all()
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        crf.split_weights(known, 1.5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 8.0])
def test_categorical_posterior_is_its_formula(alpha):
    logits = rng.normal(size=(6, 4))
    aux = rng.dirichlet(np.ones(4), size=6)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = (p * aux**alpha) ** (1 / (alpha + 1))
    ours = crf.categorical_posterior(jnp.asarray(logits, "f4"), jnp.asarray(aux, "f4"), alpha)
    np.testing.assert_allclose(ours, q / q.sum(1, keepdims=True), rtol=1e-4)


def test_categorical_posterior_at_impossible_classes_and_extreme_logits():
    aux = jnp.array([[0.0, 0.5, 0.5]])
    np.testing.assert_allclose(crf.categorical_posterior(jnp.zeros((1, 3)), aux, 1.0), aux, atol=1e-6)
    np.testing.assert_allclose(crf.categorical_posterior(jnp.zeros((1, 3)), aux, 0.0), 1 / 3, rtol=1e-6)
    assert np.isfinite(crf.categorical_posterior(jnp.array([[1e4, -1e4, 0.0]]), aux, 8.0)).all()


@pytest.mark.parametrize("start", ["mean_field", "random"])
def test_marginals_are_those_of_the_enumerated_model(key, start):
    sweeps, chains = 100, 200
    ours = crf.marginal_logits(
        key,
        U,
        B[0],
        jnp.tile(A, (2, 1)),
        sweeps=sweeps,
        chains=chains,
        start=start,
        generator="hash",
        dtype=jnp.float32,
    )
    exact = jax.nn.softmax(-energies(U, B[0], A[0]), axis=None).sum(1) @ ALL_Z
    # Neighbouring sweeps are alike: count one sweep in four.
    np.testing.assert_allclose(
        jax.nn.sigmoid(ours), jnp.tile(exact, (2, 1)), atol=4.5 * 0.5 / np.sqrt(sweeps * chains / 4)
    )


def test_marginals_keep_their_order_where_they_are_all_but_certain(key):
    a = jnp.array([[14.0, 15.0, 17.0, 60.0, -60.0, 1e4]])
    ours = crf.marginal_logits(key, jnp.zeros((6, 2)), jnp.zeros(2), a, sweeps=4, chains=4)
    np.testing.assert_allclose(ours[0, :5], a[0, :5], rtol=1e-4)
    assert 80 < ours[0, 5] < 90


def test_mean_field_is_exact_without_coupling_and_a_fixed_point_with_it():
    y, z = crf.mean_field(0 * U, B, A)
    np.testing.assert_allclose(y, jax.nn.sigmoid(B), rtol=1e-6)
    np.testing.assert_allclose(z, jax.nn.sigmoid(A), rtol=1e-6)
    y, z = crf.mean_field(U, B, A, iterations=200)
    np.testing.assert_allclose(y, jax.nn.sigmoid(crf.y_logits(z, U, B)), rtol=1e-4)
    np.testing.assert_allclose(z, jax.nn.sigmoid(crf.z_logits(y, U, A)), rtol=1e-4)


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match=r"coupling must be \[M, N\]"):
        crf.energy(Y, A, U.T, B, A)
    with pytest.raises(ValueError, match="bias must be of shape"):
        crf.z_logits(Y, U, A[0, :1])
    with pytest.raises(TypeError, match="y must be floating"):
        crf.z_logits(Y.astype(int), U, A[0])
    with pytest.raises(ValueError, match="must have the same shape"):
        crf.posterior_logits(A, A[0], 1.0)
    with pytest.raises(ValueError, match="must have the same shape"):
        crf.categorical_posterior(A, A[0], 1.0)
    with pytest.raises(ValueError, match=r"negative samples must be \[B, chains, .\]"):
        crf.contrast((Y, A), (Y, A), U, B, A)
    with pytest.raises(ValueError, match="unknown start 'cold'"):
        crf.marginal_logits(key, U, B, A, start="cold")
