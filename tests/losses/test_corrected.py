import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nlx.losses import (
    backward_corrected,
    binary_cross_entropy,
    binary_forward_corrected,
    conditional_noise,
    cross_entropy,
    forward_corrected,
    importance_reweighted,
    label_smoothing,
    soft_forward_corrected,
)

K = 4
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 3, (6, K)), jnp.float32)
LABELS = jnp.array([0, 3, 2, 2, 1, 3])
T = jnp.asarray(RNG.dirichlet(np.ones(K), K), jnp.float32)
VECTORS = jnp.asarray(RNG.integers(0, 2, (6, K)))
T2 = jnp.asarray(RNG.dirichlet(np.ones(2), (K, 2)), jnp.float32)
REPORTING = jnp.asarray(RNG.normal(0, 2, (6, K, 2)), jnp.float32)


def sigmoid64(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def softmax64(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_forward_is_the_cross_entropy_of_the_noisy_prediction():
    noisy = softmax64(LOGITS) @ np.asarray(T, np.float64)
    expected = -np.log(noisy[np.arange(6), LABELS])
    np.testing.assert_allclose(forward_corrected(LOGITS, LABELS, T), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(forward_corrected)(LOGITS, LABELS, T), expected, rtol=1e-5)


def test_soft_smoothed_and_reweighted_are_their_formulas():
    p, t, rows = softmax64(LOGITS), np.asarray(T, np.float64), np.arange(6)
    noisy, q = p @ t, softmax64(LOGITS[::-1])
    expected = -(q * np.log(noisy)).sum(-1)
    np.testing.assert_allclose(soft_forward_corrected(LOGITS, jnp.asarray(q, jnp.float32), T), expected, rtol=1e-5)
    expected = -0.7 * np.log(noisy[rows, LABELS]) - 0.3 * np.log(noisy).mean(-1)
    np.testing.assert_allclose(label_smoothing(LOGITS, LABELS, 0.3, T), expected, rtol=1e-5)
    given = p[rows, LABELS]
    expected = -given / noisy[rows, LABELS] * np.log(given)
    np.testing.assert_allclose(importance_reweighted(LOGITS, LABELS, T), expected, rtol=1e-5)


def test_forward_with_the_identity_is_cross_entropy():
    wide = 10 * LOGITS
    np.testing.assert_allclose(forward_corrected(wide, LABELS, jnp.eye(K)), cross_entropy(wide, LABELS), rtol=1e-6)
    gradients = [jax.grad(lambda x, f=f: f(x).sum())(wide) for f in (
        lambda x: forward_corrected(x, LABELS, jnp.eye(K)), lambda x: cross_entropy(x, LABELS)
    )]  # fmt: skip
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_forward_gradients_in_logits_and_matrix():
    check_grads(lambda x, t: forward_corrected(x, LABELS, t), (LOGITS, T), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_the_slope_in_an_entry_of_zero_is_exact():
    """-p_i / sum_j p_j T_jy, there as everywhere: entries can leave 0."""
    p = softmax64(LOGITS)
    gradient = jax.grad(lambda t: forward_corrected(LOGITS, LABELS, t).sum())(jnp.eye(K))
    expected = np.zeros((K, K))
    for n, y in enumerate(np.asarray(LABELS)):
        expected[:, y] -= p[n] / p[n, y]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_backward_is_unbiased():
    """Its expectation over the noisy labels of every true class is the cross-entropy of that class."""
    inverse = jnp.asarray(np.linalg.inv(np.asarray(T, np.float64)), jnp.float32)
    each = jnp.stack([backward_corrected(LOGITS, jnp.full(6, j), inverse) for j in range(K)])
    for true in range(K):
        clean = cross_entropy(LOGITS, jnp.full(6, true))
        np.testing.assert_allclose(T[true] @ each, clean, rtol=1e-3, atol=1e-3)
    assert (each < 0).any()


def test_backward_with_the_identity_is_cross_entropy():
    np.testing.assert_allclose(backward_corrected(LOGITS, LABELS, jnp.eye(K)), cross_entropy(LOGITS, LABELS), rtol=1e-5)
    check_grads(lambda x: backward_corrected(x, LABELS, T), (LOGITS,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_binary_forward_is_a_sum_over_classes_of_two_by_two_mixtures():
    p = sigmoid64(LOGITS)
    t = np.asarray(T2, np.float64)
    expected = np.zeros(6)
    for n, k in np.ndindex(6, K):
        y = int(VECTORS[n, k])
        expected[n] -= np.log((1 - p[n, k]) * t[k, 0, y] + p[n, k] * t[k, 1, y])
    np.testing.assert_allclose(binary_forward_corrected(LOGITS, VECTORS, T2), expected, rtol=1e-5)
    identity = jnp.broadcast_to(jnp.eye(2), (K, 2, 2))
    np.testing.assert_allclose(
        binary_forward_corrected(LOGITS, VECTORS, identity),
        binary_cross_entropy(LOGITS, VECTORS.astype(jnp.float32)),
        rtol=1e-5,
    )
    check_grads(
        lambda x, m: binary_forward_corrected(x, VECTORS, m), (LOGITS, T2), order=1, modes=["rev"], atol=2e-2, rtol=2e-2
    )


def test_conditional_noise_sums_over_presence():
    v, r = sigmoid64(LOGITS), sigmoid64(REPORTING)
    expected = np.zeros(6)
    for n, k in np.ndindex(6, K):
        said = r[n, k] if VECTORS[n, k] else 1 - r[n, k]
        expected[n] -= np.log((1 - v[n, k]) * said[0] + v[n, k] * said[1])
    np.testing.assert_allclose(conditional_noise(LOGITS, REPORTING, VECTORS), expected, rtol=1e-5)
    check_grads(
        lambda x, r: conditional_noise(x, r, VECTORS), (LOGITS, REPORTING), order=1, modes=["rev"], atol=2e-2, rtol=2e-2
    )


def test_conditional_noise_that_is_the_same_for_all_is_a_transition():
    odds = jnp.log(T2[..., 1]) - jnp.log(T2[..., 0])
    np.testing.assert_allclose(
        conditional_noise(LOGITS, jnp.broadcast_to(odds, (6, K, 2)), VECTORS),
        binary_forward_corrected(LOGITS, VECTORS, T2),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1e4, jnp.float32), (-1e4, jnp.float32), (6e4, jnp.float16), (15, jnp.float16)],
)
def test_extremes_and_zeros_are_finite(scale, dtype):
    """Also where no class gives the label: the promised 1e6 does not fit into float16, which holds 65504 at most."""
    logits = jnp.array([[scale, 0.0, -scale, 0.0], [scale, scale, scale, scale]], dtype)
    labels, vectors = jnp.array([2, 0]), jnp.array([[1, 0, 1, 0], [0, 1, 0, 1]])
    impossible = jnp.eye(K).at[0, 0].set(0.0).at[0, 1].set(1.0)
    never, reporting = jnp.zeros((K, K)).at[:, 3].set(1.0), jnp.stack([logits, -logits], axis=-1)
    cases = (
        (lambda x, t: forward_corrected(x, labels, t), impossible),
        (lambda x, t: backward_corrected(x, labels, t), T),
        (lambda x, t: binary_forward_corrected(x, vectors, t), jnp.zeros((K, 2, 2)).at[:, :, 0].set(1.0)),
        (lambda x, t: conditional_noise(x, t, vectors), reporting),
        (lambda x, t: soft_forward_corrected(x, vectors.astype(dtype), t), never),
        (lambda x, t: importance_reweighted(x, labels, t), never),
        (lambda x, t: label_smoothing(x, labels, transition=t), never),
    )
    for loss, other in cases:
        values, back = jax.vjp(loss, logits, other.astype(dtype))
        assert values.dtype == dtype
        assert np.isfinite(values).all()
        assert all(np.isfinite(gradient).all() for gradient in back(jnp.ones_like(values)))


def test_masks_and_permutations():
    where = jnp.array([True, False, True, True, False, True])
    order = np.array([2, 0, 3, 1])
    renamed = jnp.argsort(jnp.asarray(order))[LABELS]
    permuted = T[order][:, order]
    for loss, matrix in ((forward_corrected, T), (backward_corrected, T)):
        full = loss(LOGITS, LABELS, matrix)
        np.testing.assert_array_equal(loss(LOGITS, LABELS, matrix, where=where), jnp.where(where, full, 0))
        np.testing.assert_allclose(loss(LOGITS[:, order], renamed, permuted), full, rtol=1e-5)
        np.testing.assert_allclose(loss(LOGITS + 3, LABELS, matrix), full, rtol=1e-4, atol=1e-5)
    some = jnp.asarray(RNG.integers(0, 2, (6, K)), bool)
    for masked, single in (
        (binary_forward_corrected(LOGITS, VECTORS, T2, where=some), lambda k: binary_forward_corrected(
            LOGITS[:, k : k + 1], VECTORS[:, k : k + 1], T2[k : k + 1])),
        (conditional_noise(LOGITS, REPORTING, VECTORS, where=some), lambda k: conditional_noise(
            LOGITS[:, k : k + 1], REPORTING[:, k : k + 1], VECTORS[:, k : k + 1])),
    ):  # fmt: skip
        np.testing.assert_allclose(masked, sum(jnp.where(some[:, k], single(k), 0) for k in range(K)), rtol=1e-5)


def arrays_of(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns"):
                    yield from arrays_of(inner)
                elif hasattr(inner, "jaxpr"):
                    yield from arrays_of(inner.jaxpr)


def test_no_product_of_prediction_and_matrix_is_formed():
    """Reading one noisy probability takes K products, not K squared: there is no matrix product in the program."""
    jaxpr = jax.make_jaxpr(jax.value_and_grad(lambda x, t: forward_corrected(x, LABELS, t).sum(), argnums=(0, 1)))
    text = str(jaxpr(LOGITS, T))
    assert "dot_general" not in text
    assert max(np.prod(aval.shape) for aval in arrays_of(jaxpr(LOGITS, T).jaxpr)) <= LOGITS.size


def test_bad_input():
    with pytest.raises(ValueError, match=r"transition \(3, 3\) and \[K, K\] \(4, 4\) must have the same shape"):
        forward_corrected(LOGITS, LABELS, jnp.eye(3))
    with pytest.raises(TypeError, match="labels must be integers"):
        backward_corrected(LOGITS, LABELS.astype(jnp.float32), T)
    with pytest.raises(ValueError, match=r"transition .* and \[K, 2, 2\]"):
        binary_forward_corrected(LOGITS, VECTORS, T)
    with pytest.raises(ValueError, match="reporting"):
        conditional_noise(LOGITS, REPORTING[:, :2], VECTORS)
