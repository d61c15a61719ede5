"""Digits at any size and in any type, matrices that are none, chains under any generator, noise with gaps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import corruption, crf, losses, metrics, posteriors, prototypes, transitions, variational
from nlx.crf import rbm
from nlx.samplers import concrete, gaussian, gibbs

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
T = np.array([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.25, 0.0, 0.75]], np.float32)
T2 = np.array([[[0.9, 0.1], [0.2, 0.8]], [[1.0, 0.0], [0.5, 0.5]], [[0.6, 0.4], [0.0, 1.0]]], np.float32)
Y, V = np.array([0, 1, 2, 1]), np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])


def softplus(x):
    return np.logaddexp(0, x)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def log(p):
    return np.where(p > 0, np.log(np.maximum(p.astype(np.float64), 1e-300)), -np.inf)


REFERENCES = {
    "cross_entropy": (lambda x: losses.cross_entropy(x, Y), lambda x: -log_softmax(x)[range(4), Y]),
    "generalized_cross_entropy": (
        lambda x: losses.generalized_cross_entropy(x, Y),
        lambda x: (1 - np.exp(log_softmax(x)[range(4), Y]) ** 0.7) / 0.7,
    ),
    "mean_absolute_error": (
        lambda x: losses.mean_absolute_error(x, Y), lambda x: 2 * (1 - np.exp(log_softmax(x)[range(4), Y]))
    ),
    "symmetric_cross_entropy": (
        lambda x: losses.symmetric_cross_entropy(x, Y),
        lambda x: -0.1 * log_softmax(x)[range(4), Y] + 4 * (1 - np.exp(log_softmax(x)[range(4), Y])),
    ),
    "forward_corrected": (
        lambda x: losses.forward_corrected(x, Y, jnp.asarray(T)),
        lambda x: -np.logaddexp.reduce(log_softmax(x) + log(T.T[Y]), -1),
    ),
    "binary_cross_entropy": (
        lambda x: losses.binary_cross_entropy(x, jnp.asarray(V, jnp.float32)),
        lambda x: np.where(V, softplus(-x), softplus(x)).sum(-1),
    ),
    "binary_forward_corrected": (
        lambda x: losses.binary_forward_corrected(x, V, jnp.asarray(T2)),
        lambda x: -sum(
            np.logaddexp(
                -softplus(x[:, k]) + log(T2[k, 0, V[:, k]]), -softplus(-x[:, k]) + log(T2[k, 1, V[:, k]])
            )
            for k in range(3)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("scale", [1, 30])
def test_losses_and_both_kinds_of_gradients_keep_their_digits(name, dtype, scale):
    ours, reference = REFERENCES[name]
    x = jnp.asarray(RNG.normal(0, scale, (4, 3)), dtype)
    exact, step = np.asarray(x, np.float64), RNG.normal(size=(4, 3))
    digits = float(jnp.finfo(dtype).eps)
    value, tangent = jax.jvp(ours, (x,), (jnp.asarray(step, dtype),))
    assert value.dtype == dtype
    np.testing.assert_allclose(np.asarray(value, np.float64), reference(exact), rtol=2 * digits + 2e-6, atol=1e-6)
    gradient = np.asarray(jax.grad(lambda x: ours(x).astype(jnp.float32).sum())(x), np.float64)
    size = 1e-5 * max(scale, 1)
    slope = (reference(exact + size * step) - reference(exact - size * step)) / (2 * size)
    np.testing.assert_allclose((gradient * step).sum(-1), slope, rtol=8 * digits, atol=8 * digits + 1e-5)
    np.testing.assert_allclose(np.asarray(tangent, np.float64), slope, rtol=8 * digits, atol=8 * digits + 1e-5)


def test_small_losses_survive_large_logits():
    """Logits that differ by little, far from 0: what is measured from the largest of them keeps its digits."""
    x = np.array([[1.0, 0.0, -3.0], [0.5, -2.0, 0.25], [0.0, 1.0, -1.0], [-4.0, 3.0, 2.5]], np.float32)
    for shift in (1e4, -1e4):
        far = np.float32(shift) + x
        near = (far - np.float32(shift)).astype(np.float32)  # what float32 holds of it
        for name in ("cross_entropy", "generalized_cross_entropy", "mean_absolute_error", "forward_corrected"):
            loss = REFERENCES[name][0]
            np.testing.assert_allclose(loss(far), loss(near), rtol=1e-5, atol=1e-7, err_msg=name)
            for a, b in zip(jax.jvp(loss, (far,), (x,)), jax.jvp(loss, (near,), (x,)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(transitions.posterior(far, Y, T), transitions.posterior(near, Y, T), rtol=1e-5)
        # Far apart as well: the best class is ruled out by T, and the others are told apart all the same.
        apart = np.array([[1e4, 0.5, 0.0]], np.float32)
        only = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]], np.float32)
        q = 0.5 * np.exp(0.5) / (0.5 * np.exp(0.5) + 1)
        np.testing.assert_allclose(transitions.posterior(apart, np.array([1]), only)[0], [0, q, 1 - q], rtol=1e-5)
    logits = jnp.array([16.0, -20.0])
    np.testing.assert_allclose(losses.binary_cross_entropy(logits[:1], jnp.ones(1)), np.log1p(np.exp(-16.0)), rtol=1e-5)
    assert losses.cross_entropy(jnp.array([26.0, 22.0], jnp.bfloat16), jnp.array(0)) > 0.0180
    np.testing.assert_allclose(
        variational.quality_divergence(jnp.zeros(1), jnp.array([1e-3])), (np.expm1(1e-3) - 1e-3) / 2, rtol=1e-3
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("matrix_dtype", [jnp.float16, jnp.float32])
def test_forward_corrected_is_finite_for_labels_that_no_class_gives(dtype, matrix_dtype):
    none = jnp.array([[0.5, 0.5, 0.0]] * 3, matrix_dtype)
    for x in ([15.0, 0.0, -15.0], [0.0, 0.0, 0.0], [-600.0, 600.0, 0.0]):
        logits = jnp.array([x], dtype)
        loss = lambda x, t, y: losses.forward_corrected(x, jnp.array([y]), t).sum()  # noqa: E731
        value, (in_x, in_t) = jax.value_and_grad(loss, (0, 1))(logits, none, 2)
        assert float(value) == pytest.approx(min(1e6, float(jnp.finfo(dtype).max)), rel=1e-2)
        assert (in_x == 0).all()
        assert jnp.isfinite(in_t).all()
        assert (in_t[:, 2] <= 0).all()
        for matrix in (transitions.pair(3, 0.4), jnp.eye(3), transitions.outlier(2, 0.5)):
            for y in range(3):
                parts = jax.value_and_grad(loss, (0, 1))(logits, matrix.astype(matrix_dtype), y)
                assert all(jnp.isfinite(part).all() for part in jax.tree.leaves(parts))


def test_second_derivatives_of_the_mixture_are_exact_also_where_the_matrix_is_zero():
    x, y = jnp.array([1.0, 0.0, -1.0]), jnp.array(0)
    p = jax.nn.softmax(x)
    for matrix in (jnp.eye(3), jnp.asarray(T)):
        slope = p / (p @ matrix[:, 0])
        ours = jax.jit(jax.hessian(lambda t: losses.forward_corrected(x, y, t)))(matrix)[:, 0, :, 0]
        np.testing.assert_allclose(ours, np.outer(slope, slope), rtol=1e-5)
        naive = jax.jit(jax.hessian(lambda x, t=matrix: -jnp.log(jax.nn.softmax(x) @ t[:, 0])))(x)
        both = jax.jit(jax.jacfwd(jax.grad(lambda x, t=matrix: losses.forward_corrected(x, y, t))))(x)
        np.testing.assert_allclose(both, naive, atol=1e-6)


BAD = {
    "ones": np.ones((3, 3)),
    "half": np.eye(3) * 0.5,
    "counts": np.diag([3, 4, 5]) + 1.0,
    "percent": T * 100,
    "negative": np.eye(3) * 1.3 - 0.1,
    "nan": np.full((3, 3), np.nan),
}


@pytest.mark.parametrize("name", BAD)
def test_a_matrix_whose_rows_are_no_distributions_is_refused_where_it_enters(name):
    t = BAD[name].astype(np.float32)
    x, two = np.zeros((4, 3), np.float32), np.broadcast_to(t[1:, 1:], (3, 2, 2)) * (0.9 if name == "half" else 1)
    calls = [
        lambda: losses.forward_corrected(x, Y, t),
        lambda: transitions.posterior(x, Y, t),
        lambda: transitions.label_posterior(t, Y),
        lambda: corruption.flips(KEY, Y, t),
        lambda: jax.jit(lambda x: losses.forward_corrected(x, Y, t))(x),
        lambda: jax.jit(lambda x: losses.importance_reweighted(x, Y, t))(x),
        lambda: jax.jit(lambda x: losses.label_smoothing(x, Y, transition=t))(x),
        lambda: jax.jit(lambda x: losses.soft_forward_corrected(x, x, t))(x),
    ]
    if name != "negative":  # an inverse has negative entries, and what is left of the diagonal here sums to 1
        calls += [
            lambda: losses.backward_corrected(x, Y, t),
            lambda: losses.binary_forward_corrected(x, V, two),
            lambda: transitions.binary_posterior(x, V, two),
        ]
    calls += [lambda: posteriors.noise_types(x, x, Y, t), lambda: transitions.noise_kinds(Y, Y, t)]
    for call in calls:
        with pytest.raises(ValueError, match="no distribution"):
            call()
    with pytest.raises(ValueError, match=r"no distribution|singular|not finite"):
        transitions.invert(t)


def test_a_label_of_probability_zero_leaves_beliefs_as_they_were():
    confusing = np.array([[0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]], np.float32)
    x = np.array([[0.0, 1.0, -np.inf], [2.0, 0.0, -np.inf], [0.0, 0.0, 1.0]], np.float32)
    kinds = np.array([[0.0, -np.inf, 0.5], [-np.inf, -np.inf, 0.0], [0.0, 0.0, 0.0]], np.float32)
    q = posteriors.noise_types(x, kinds, np.array([2, 2, 2]), confusing)
    np.testing.assert_allclose(q.label[:2], jax.nn.softmax(x[:2]), atol=1e-6)
    np.testing.assert_allclose(q.kind[:2], jax.nn.softmax(kinds[:2]), atol=1e-6)
    assert q.log_evidence[:2].tolist() == [-1e6, -1e6]
    assert np.isfinite(q.log_evidence[2])
    np.testing.assert_allclose(q.label.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_draws_have_their_tails_in_any_type(dtype):
    for logit in (0.0, 6.0, -6.0, 12.0, 50.0):
        z = concrete.sample(KEY, jnp.full(200_000, logit, dtype), 0.5)
        assert z.dtype == dtype
        p = 1 / (1 + np.exp(-logit))
        share = float(jnp.mean(z > 0.5, dtype=jnp.float32))
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 200_000) + 1e-5
    draws = gaussian.sample(KEY, jnp.zeros(200_000, dtype), jnp.zeros(200_000, dtype)).astype(jnp.float32)
    assert jnp.max(jnp.abs(draws)) > 4
    assert abs(float(jnp.mean(jnp.abs(draws) > 3)) - 0.0027) < 6e-4


def test_float64_is_worked_on_in_float64():
    with jax.enable_x64(True):
        far = np.array([[1e8, 1e8 + 1]])
        matrix = np.array([[0.8, 0.2], [0.2, 0.8]])
        q = np.array([0.8, 0.2 * np.e]) / (0.8 + 0.2 * np.e)
        np.testing.assert_allclose(transitions.posterior(far, np.array([0]), matrix)[0], q, rtol=1e-12)
        loss = losses.forward_corrected(far, np.array([0]), matrix)
        np.testing.assert_allclose(loss[0], -np.log((0.8 + 0.2 * np.e) / (1 + np.e)), rtol=1e-12)
        odds = transitions.binary_posterior(far[:1], np.array([[1, 1]]), np.stack([matrix, matrix]))
        assert odds.dtype == np.float64
        field = crf.mean_field(np.ones((1, 1)), np.zeros(1), np.full(1, 1e-9))[1]
        assert field.dtype == np.float64
        assert rbm.fit(KEY, V, V, 1, 2)[0].coupling.dtype == np.float32


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize("made_by", ["default", "threefry2x32"])
def test_chains_are_right_under_any_default_generator(implementation, made_by):
    u, b, a = np.array([[1.0, -0.5]], np.float32), np.array([0.3, 0.0], np.float32), np.array([[0.5]], np.float32)
    with jax.default_prng_impl(implementation):
        key = jax.random.key(0) if made_by == "default" else jax.random.key(0, impl=made_by)
        marginal = crf.marginal_logits(key, u, b, a, chains=1000, sweeps=50)
    states = np.array(list(itertools.product((0, 1), repeat=3)))
    energy = states[:, :2] @ b + states[:, 2] * a[0, 0] + (states[:, :2] @ u[0]) * states[:, 2]
    p = np.exp(energy) / np.exp(energy).sum()
    np.testing.assert_allclose(jax.nn.sigmoid(marginal[0, 0]), p @ states[:, 2], atol=0.01)
    if made_by == "threefry2x32":  # the same key, the same draws
        np.testing.assert_array_equal(marginal, crf.marginal_logits(KEY, u, b, a, chains=1000, sweeps=50))


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_features_with_gaps_are_refused_and_harm_no_other_where_they_cannot_be_seen(gap):
    x, y = np.asarray(jax.random.normal(KEY, (4000, 6))), np.arange(4000) % 4
    whole = corruption.instance_dependent(KEY, x, y, 4, 0.4)
    broken = x.copy()
    broken[7, 2] = gap
    for features in (broken, jnp.asarray(broken)):
        with pytest.raises(ValueError, match=r"features must be finite.*\[7, 2\]"):
            corruption.instance_dependent(KEY, features, y, 4, 0.4)
    hidden = jax.jit(lambda x: corruption.instance_dependent(KEY, x, y, 4, 0.4))(broken)
    assert np.mean(np.asarray(hidden.labels) == whole.labels) > 0.99


@pytest.mark.parametrize("scale", [1e25, 1e-30])
def test_instance_noise_does_not_depend_on_units(scale):
    x, y = np.asarray(jax.random.normal(KEY, (1000, 4))), np.arange(1000) % 3
    whole = corruption.instance_dependent(KEY, x, y, 3, 0.4).labels
    assert (
        np.mean(np.asarray(corruption.instance_dependent(KEY, x * np.float32(scale), y, 3, 0.4).labels) == whole) > 0.99
    )
    stamps = 1.7e9 + x.astype(np.float64)  # seconds: in float32 all would be equal
    assert np.mean(np.asarray(corruption.instance_dependent(KEY, stamps, y, 3, 0.4).labels) == whole) > 0.99


def test_scores_that_are_not_numbers_give_no_number():
    s, y = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32), np.array([0, 1, 0, 1])
    v, one = np.eye(2, dtype=int)[y], s.copy()
    for sign in (1, -1):
        one[1, 0] = np.copysign(np.nan, sign)
        for scores in (s * np.nan, one):
            assert np.isnan(metrics.accuracy(scores, y))
            assert np.isnan(metrics.recovery(scores, y))
            assert np.isnan(metrics.recovery(scores, v))
            assert np.isnan(metrics.average_precision(scores[:, 0], v[:, 0]))
            assert np.isnan(metrics.mean_average_precision(scores, y))
            assert np.isnan(metrics.mean_average_precision(scores, v, points=11))
    where = np.array([True, False, True, True])
    assert metrics.accuracy(one, y, where=where) == 1
    assert metrics.mean_average_precision(one, v, where=where) == 1
    assert metrics.mean_average_precision(s, np.array([0, 0, 0, 0])) == 1  # a class that has no positive


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: concrete.sample(KEY, jnp.zeros(3), n), "temperature must be above 0"),
        (
            lambda n: gibbs.step(KEY, gibbs.init(KEY, 1, 2, 1, 1), *np.zeros((3, 1, 1), "f4"), n),
            "num_sweeps must be at",
        ),
        (lambda n: losses.generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), q=n), r"q must lie in \(0, 1\]"),
        (lambda n: prototypes.by_kmeans(KEY, jnp.ones((3, 2)), jnp.ones(3, bool), n), "count must be at least 1"),
    ],
)
def test_numbers_out_of_their_range_are_refused_in_every_form(call, message):
    for wrong in (0, -1, np.int32(0), np.int64(-3)):
        with pytest.raises(ValueError, match=message):
            call(wrong)


def test_ranges_where_zero_is_fine():
    for call in (
        lambda n: variational.label_divergence(jnp.zeros(2), jnp.zeros(2), n),
        lambda n: variational.quality_divergence(jnp.zeros(2), jnp.zeros(2), n),
        lambda n: crf.posterior_logits(jnp.zeros((2, 2)), jnp.zeros((2, 2)), n),
        lambda n: crf.categorical_posterior(jnp.zeros((2, 2)), jnp.ones((2, 2)) / 2, n),
        lambda n: transitions.from_pairs(Y, Y, 3, smoothing=n),
    ):
        for fine in (0, 1.0, np.float32(0.5)):
            call(fine)
        for wrong in (-1, -0.1, np.float32(-2), jnp.float32(-1), np.nan):
            with pytest.raises(ValueError, match="must be at least 0"):
                call(wrong)


def test_a_gibbs_state_of_another_width_is_refused():
    coupling, bias = np.zeros((12, 10), np.float32), np.zeros(12, np.float32)
    for units in (11, 12, 16):
        other = gibbs.init(KEY, 2, 8, units, units)
        with pytest.raises(ValueError, match="make it with init"):
            gibbs.step(KEY, other, coupling, bias[:10], bias, 1)
        assert jax.jit(lambda s: gibbs.step(KEY, s, coupling, bias[:10], bias, 1)[1].flip_rate)(other).max() <= 1


def test_density_peaks_of_few_members_are_not_the_first_rows():
    """Two tight groups and a stray that comes first: the peaks are the groups' middles."""
    for size in (3, 5, 20):
        groups = [centre + 0.1 * RNG.normal(size=(size, 2)) for centre in ([0.0, 0.0], [5.0, 5.0])]
        for group, centre in zip(groups, ([0.0, 0.0], [5.0, 5.0]), strict=True):
            group[-1] = centre
        x = np.concatenate([[[20.0, -20.0], [-30.0, 10.0]], *groups]).astype(np.float32)
        chosen = prototypes.by_density_peaks(KEY, x, np.ones(len(x), bool), 2)
        rows = sorted(np.asarray(chosen.rows).tolist())
        assert 2 <= rows[0] < 2 + size <= rows[1]
