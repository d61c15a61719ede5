import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from nlx import posteriors

RNG = np.random.default_rng(0)
RUN = jax.jit(posteriors.noise_types, static_argnames="rows_at_once")


def matrix(k, zeros=0.5):
    t = RNG.uniform(size=(k, k)) * (RNG.uniform(size=(k, k)) > zeros)
    np.fill_diagonal(t, 0)
    t[np.arange(k), (np.arange(k) + 1) % k] += 0.1
    return (t / t.sum(1, keepdims=True)).astype(np.float32)


def example(n, k, scale=2.0, zeros=0.5):
    y, z = RNG.normal(size=(n, k)) * scale, RNG.normal(size=(n, 3)) * scale
    return y.astype(np.float32), z.astype(np.float32), RNG.integers(0, k, n, np.int32), matrix(k, zeros)


def enumerated(y, z, noisy, t):
    """Eq. 5 over all (y, z), one example at a time, in log space and float64."""
    n, k = y.shape
    joint = np.full((n, k, 3), -np.inf)
    log = lambda x: np.log(x) if x > 0 else -np.inf  # noqa: E731
    lse = lambda x: np.logaddexp.reduce(x.ravel())  # noqa: E731
    y, z = y.astype(np.float64), z.astype(np.float64)
    for b, i, kind in itertools.product(range(n), range(k), range(3)):
        j = noisy[b]
        likelihood = (float(i == j), float(i != j) / (k - 1), float(t[i, j]))[kind]
        joint[b, i, kind] = y[b, i] - lse(y[b]) + z[b, kind] - lse(z[b]) + log(likelihood)
    evidence = np.array([lse(joint[b]) for b in range(n)])
    q = np.exp(joint - evidence[:, None, None])
    return q.sum(2), q.sum(1), evidence


@pytest.mark.parametrize("k", [2, 3, 14])
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0, 1e4])
def test_it_is_the_enumeration_of_all_classes_and_noise_types(k, scale):
    args = example(40, k, scale)
    beliefs = RUN(*args)
    for ours, exact in zip(beliefs, enumerated(*args), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-5 if scale < 100 else 2e-3, rtol=1e-5)
    assert all(np.isfinite(x).all() for x in beliefs)
    np.testing.assert_allclose(beliefs.label.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(beliefs.kind.sum(1), 1, rtol=1e-5)


def other_path(y, z, noisy, t):
    """What runs where there is no CPU, and on a CPU where noise types are far apart."""
    return jax.jit(posteriors._everywhere)(*map(jnp.asarray, (y, z, noisy, t.T)))


@pytest.mark.parametrize("k", [2, 3, 14])
def test_both_paths_are_the_enumeration(k):
    args = example(40, k)
    for ours, other, exact in zip(RUN(*args), other_path(*args), enumerated(*args), strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(other, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("apart", [39.0, 41.0, 100.0, 150.0])
def test_the_shortcut_ends_before_anything_is_lost(apart):
    # Confused classes hundreds of nats below the others, and noise types as far apart as the shortcut allows, or more.
    y, z, noisy, t = example(60, 5, scale=200.0)
    z = np.array(list(itertools.permutations((0, apart / 2, apart))), np.float32)[np.arange(60) % 6]
    for ours, exact in zip(RUN(y, z, noisy, t), enumerated(y, z, noisy, t), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=2e-5, atol=1e-5)


def test_one_example_with_noise_types_far_apart_changes_no_other():
    y, z, noisy, t = example(40, 5)
    far = np.concatenate([z, [[300.0, 0.0, 0.0]]]).astype(np.float32)
    y, noisy = np.concatenate([y, y[:1]]), np.append(noisy, noisy[0])
    y[-1, noisy[-1]] -= 250  # so that the product of the two matters, and neither may underflow
    exact = enumerated(y, far, noisy, t)
    for rows_at_once in (None, 8):
        for a, b in zip(RUN(y, far, noisy, t, rows_at_once=rows_at_once), exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_small_integer_labels_are_classes_beyond_their_range():
    y, z, _, t = example(20, 300)
    noisy = np.arange(230, 250, dtype=np.uint8)
    for a, b in zip(RUN(y, z, noisy, t), RUN(y, z, noisy.astype(np.int32), t), strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_logits_keep_their_digits():
    y, z, noisy, t = example(40, 5)
    y, z = np.round(y), np.round(z)  # so that the shifted logits are exact in float32
    beliefs, far = RUN(y, z, noisy, t), RUN(y + np.float32(1e4), z - np.float32(1e4), noisy, t)
    for a, b in zip(beliefs, far, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_label_that_nothing_is_confused_with_is_never_confusing():
    y, z, noisy, _ = example(6, 3)
    t = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32)  # nothing comes out as 2
    noisy[:] = 2
    z[:, 2] = 1e4
    beliefs = posteriors.noise_types(y, z, noisy, t)
    np.testing.assert_array_equal(beliefs.kind[:, 2], 0)
    np.testing.assert_allclose(beliefs.label, enumerated(y, z, noisy, t)[0], atol=1e-5)


def test_noise_types_alone_decide_where_they_are_certain():
    y, z, noisy, t = example(20, 5)
    p = np.asarray(jax.nn.softmax(y))
    own = np.eye(5)[noisy]
    for kind, expected in enumerate((own, p * (1 - own), p * t.T[noisy])):
        certain = np.where(np.arange(3) == kind, 300, 0).astype(np.float32) + np.zeros_like(z)
        beliefs = posteriors.noise_types(y, certain, noisy, t).label
        np.testing.assert_allclose(beliefs, expected / expected.sum(1, keepdims=True), atol=1e-5)


def test_invariances():
    y, z, noisy, t = example(20, 5)
    beliefs = posteriors.noise_types(y, z, noisy, t)
    shifted = posteriors.noise_types(y + RNG.normal(size=(20, 1)).astype(np.float32), z - 3, noisy, t)
    order = RNG.permutation(5)
    inverse = np.argsort(order).astype(np.int32)
    permuted = posteriors.noise_types(y[:, order], z, inverse[noisy], t[order][:, order])
    jitted = RUN(y, z, noisy, t)
    blocks = [RUN(y, z, noisy, t, rows_at_once=rows) for rows in (1, 7, 20, 64)]
    one = jax.vmap(lambda *row: posteriors.noise_types(*(x[None] for x in row), t))(y, z, noisy)
    for other in (shifted, permuted._replace(label=permuted.label[:, inverse]), jitted, *blocks):
        for a, b in zip(beliefs, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(one.label[:, 0], beliefs.label, rtol=1e-5)


@pytest.mark.parametrize("rows_at_once", [None, 16])
def test_no_array_is_larger_than_the_posterior(rows_at_once):
    def sizes(jaxpr):
        for eqn in jaxpr.eqns:
            for variable in (*eqn.invars, *eqn.outvars):
                if hasattr(variable.aval, "shape"):
                    yield int(np.prod(variable.aval.shape))
            for inner in jaxprs_in_params(eqn.params):
                yield from sizes(inner)

    b, k = 4000, 1000
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in (((b, k), "f4"), ((b, 3), "f4"), ((b,), "i4"), ((k, k), "f4"))]
    traced = jax.make_jaxpr(lambda *args: posteriors.noise_types(*args, rows_at_once=rows_at_once))(*shapes)
    beliefs = list(sizes(traced.jaxpr))
    assert max(beliefs) == b * k
    assert len(beliefs) > 100


def test_bfloat16_comes_out_as_float32():
    y, z, noisy, t = example(8, 5)
    beliefs = posteriors.noise_types(jnp.asarray(y, jnp.bfloat16), jnp.asarray(z, jnp.bfloat16), noisy, t)
    assert {x.dtype for x in beliefs} == {jnp.dtype("float32")}
    np.testing.assert_allclose(beliefs.label, posteriors.noise_types(y, z, noisy, t).label, atol=0.03)


def test_em_on_a_linear_model_never_lowers_the_likelihood():
    x = jnp.asarray(RNG.normal(size=(200, 6)), jnp.float32)
    noisy, t = jnp.asarray(RNG.integers(0, 4, 200)), matrix(4)

    def posterior(weights):
        return posteriors.noise_types(x @ weights[0], x @ weights[1], noisy, t)

    def expected(weights, q):
        """Eq. 6, up to a constant."""
        log_y, log_z = jax.nn.log_softmax(x @ weights[0]), jax.nn.log_softmax(x @ weights[1])
        return jnp.mean(jnp.sum(q.label * log_y, 1) + jnp.sum(q.kind * log_z, 1))

    @jax.jit
    def em(weights):
        q = posterior(weights)
        for _ in range(5):  # an M-step by gradient ascent, with a step far below the inverse curvature
            weights = jax.tree.map(lambda w, g: w + 0.1 * g, weights, jax.grad(expected)(weights, q))
        return weights, jnp.mean(q.log_evidence)

    weights = tuple(jnp.asarray(RNG.normal(size=(6, m)), jnp.float32) for m in (4, 3))
    course = []
    for _ in range(40):
        weights, evidence = em(weights)
        course.append(float(evidence))
    assert (np.diff(course) >= -1e-6).all()
    assert course[-1] > course[0] + 0.1


def test_the_gradient_of_the_evidence_is_that_of_the_expected_likelihood():
    y, z, noisy, t = (jnp.asarray(a) for a in example(6, 4))
    by_y, by_z = jax.grad(lambda y, z: posteriors.noise_types(y, z, noisy, t).log_evidence.sum(), (0, 1))(y, z)
    q = posteriors.noise_types(y, z, noisy, t)
    np.testing.assert_allclose(by_y, q.label - jax.nn.softmax(y), atol=1e-5)
    np.testing.assert_allclose(by_z, q.kind - jax.nn.softmax(z), atol=1e-5)


def test_bad_input_is_named():
    y, z, noisy, t = example(4, 3)
    with pytest.raises(TypeError, match="logits_y must be floating"):
        posteriors.noise_types(y.astype(int), z, noisy, t)
    with pytest.raises(TypeError, match="noisy_labels must be integers"):
        posteriors.noise_types(y, z, noisy.astype(np.float32), t)
    with pytest.raises(ValueError, match=r"logits_z must be \(4, 3\)"):
        posteriors.noise_types(y, z[:, :2], noisy, t)
    with pytest.raises(ValueError, match=r"confusing must be \(3, 3\)"):
        jax.jit(posteriors.noise_types)(y, z, noisy, t[:2])
    with pytest.raises(ValueError, match="at least 2 classes"):
        posteriors.noise_types(y[:, :1], z, noisy, t)
    with pytest.raises(ValueError, match="rows_at_once must be at least 1"):
        posteriors.noise_types(y, z, noisy, t, rows_at_once=0)


def test_a_label_that_nothing_is_confused_with_stays_finite_in_a_compiled_program():
    """Where all that explains the label is less than 1, a tiny divisor in place of an empty sum would vanish."""
    confusing = jnp.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])  # nothing is taken for 2 or 3
    y = jnp.array([[9.0, 0, -9, -9], [0, 9, -9, -9]])
    z = jnp.array([[-9.0, 9, -9], [-9, 9, 9]])
    beliefs = RUN(y, z, jnp.array([2, 3]), confusing)
    assert all(np.isfinite(x).all() for x in beliefs)
    np.testing.assert_allclose(beliefs.label.sum(1), 1, rtol=1e-6)
