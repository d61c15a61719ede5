import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nlx import transitions

RNG = np.random.default_rng(0)


def bisected(row):
    """The projection by its dual: the tau at which max(row - tau, 0) sums to 1, in float64."""
    row = row - row.max()
    low, high = -1.0, 0.0
    for _ in range(200):
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(row - tau, 0).sum() > 1 else (low, tau)
    return np.maximum(row - high, 0)


ROWS = {
    "random": RNG.normal(size=(50, 7)),
    "near the simplex": RNG.dirichlet(np.ones(7), 50) + 0.05 * RNG.normal(size=(50, 7)),
    "ties": RNG.integers(-1, 2, (50, 7)).astype(float),
    "all equal": np.full((1, 7), 3.0),
    "far below": RNG.normal(size=(5, 7)) - 1e5,
    "one far above": np.eye(7) * 1e30 + RNG.normal(size=(7, 7)),
    "one far below": np.eye(7) * -1e30 + RNG.normal(size=(7, 7)),
    "one column": np.array([[5.0], [-5.0]]),
    "many classes": RNG.normal(size=(3, 1000)) * 0.01,
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_projection_is_the_nearest_distribution(rows):
    rows = rows.astype(np.float32)
    ours = np.asarray(transitions.project(rows))
    expected = np.array([bisected(r) for r in rows.astype(np.float64)])
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(transitions.project(ours), ours, atol=1e-6)
    np.testing.assert_allclose(jax.jit(transitions.project)(rows), ours, atol=1e-6)


def test_projection_leaves_distributions_and_permutes_with_the_classes():
    on = RNG.dirichlet(np.ones(5), 20).astype(np.float32)
    np.testing.assert_allclose(transitions.project(on), on, atol=1e-6)
    rows, order = RNG.normal(size=(4, 6)).astype(np.float32), RNG.permutation(6)
    np.testing.assert_allclose(transitions.project(rows[:, order]), transitions.project(rows)[:, order], atol=1e-6)
    np.testing.assert_allclose(transitions.project(rows + 7), transitions.project(rows), atol=2e-6)
    np.testing.assert_allclose(jax.vmap(transitions.project)(rows), transitions.project(rows), atol=1e-6)
    assert transitions.project(rows.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    check_grads(transitions.project, (rows,), order=1, modes=["rev"], eps=1e-3)


def by_sorting(rows):
    """The projection by the sorted row's prefix sums, in float64 (Duchi et al., 2008)."""
    sums = np.cumsum(-np.sort(-np.asarray(rows, np.float64), axis=-1), axis=-1) - 1
    tau = (sums / np.arange(1, rows.shape[-1] + 1)).max(axis=-1, keepdims=True)
    return np.maximum(rows - tau, 0)


K, MANY = 1000, np.random.default_rng(1)
LEARNED = {
    "first step": np.eye(K) + 1e-3 * MANY.normal(size=(K, K)),
    "same step everywhere": np.eye(K) + 1e-3,
    "mostly zeros": np.where(MANY.uniform(size=(K, K)) < 0.99, 0, MANY.uniform(size=(K, K))),
    "small entries": 0.9 * np.eye(K) + 0.1 / K + 1e-6 * MANY.normal(size=(K, K)),
    "long tails": MANY.standard_cauchy(size=(K, K)),
    "ties": MANY.integers(0, 3, (K, K)) / 100,
    "geometric": np.tile(-(1.5 ** -np.arange(K)), (3, 1)),
}


@pytest.mark.parametrize("rows", LEARNED.values(), ids=LEARNED.keys())
def test_projection_of_many_classes_is_that_by_sorting(rows):
    rows = rows.astype(np.float32)
    ours = np.asarray(jax.jit(transitions.project)(rows))
    np.testing.assert_allclose(ours, by_sorting(rows), atol=2e-7)
    np.testing.assert_allclose(ours.sum(1, dtype=np.float64), 1, atol=2e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(transitions.project))(rows[:3]), ours[:3], atol=1e-7)
    one = jax.grad(lambda row: transitions.project(row)[np.argmax(rows[0])])(rows[0])
    support = by_sorting(rows)[0] > 1e-6
    if (support == (by_sorting(rows)[0] > 0)).all():  # no entry so near the edge that rounding decides
        np.testing.assert_allclose(one, support * (np.eye(K)[np.argmax(rows[0])] - 1 / support.sum()), atol=1e-6)


def test_what_is_no_number_stays_visible():
    rows = jnp.array([[0.5, jnp.nan, 0.1], [0.25, 0.75, 0.0]])
    projected = transitions.project(rows)
    assert jnp.isnan(projected[0]).any()
    np.testing.assert_array_equal(projected[1], rows[1])


def test_inverse_undoes_the_noise():
    t = transitions.sparse(jax.random.key(0), 50, 0.4)
    np.testing.assert_allclose(np.asarray(transitions.invert(t), np.float64) @ t, np.eye(50), atol=1e-5)
    np.testing.assert_allclose(transitions.invert(transitions.pair(2, 0.25)), [[1.5, -0.5], [-0.5, 1.5]], rtol=1e-6)


def test_what_cannot_be_inverted_is_said():
    with pytest.raises(ValueError, match="singular"):
        transitions.invert(transitions.symmetric(10, 0.9))
    with pytest.raises(ValueError, match="singular"):
        transitions.invert(np.zeros((2, 2)))
    close = transitions.symmetric(10, 0.899)
    with pytest.raises(ValueError, match=r"condition number 900 above 100"):
        transitions.invert(close, max_condition=100)
    assert np.isfinite(transitions.invert(close)).all()
    with pytest.raises(ValueError, match="not finite"):
        transitions.invert([[np.nan, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"must be \[K, K\]"):
        transitions.invert(np.ones((2, 3)))


def bayes(logits, labels, t):
    """Posterior one example and one class at a time, in float64; p where the label is impossible."""
    rows = []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        p = np.exp(row - row.max())
        p /= p.sum()
        q = np.array([p[i] * t[i, label] for i in range(len(p))])
        rows.append(q / q.sum() if q.sum() > 0 else p)
    return np.array(rows)


def problem(n=30, k=5):
    t = RNG.dirichlet(np.ones(k), k).astype(np.float32)
    return RNG.normal(size=(n, k)).astype(np.float32) * 3, RNG.integers(0, k, n), t


def test_posterior_is_bayes_rule():
    logits, labels, t = problem()
    ours = transitions.posterior(logits, labels, t)
    np.testing.assert_allclose(ours, bayes(logits, labels, t), atol=1e-6)
    np.testing.assert_allclose(jax.jit(transitions.posterior)(logits, labels, t), ours, atol=1e-6)
    np.testing.assert_allclose(transitions.posterior(logits + 50, labels, t), ours, atol=1e-5)
    one = jax.vmap(transitions.posterior, in_axes=(0, 0, None))(logits, labels, t)
    np.testing.assert_allclose(one, ours, atol=1e-6)
    assert transitions.posterior(logits.astype(jnp.bfloat16), labels, t).dtype == jnp.bfloat16


def test_zeros_in_the_matrix_rule_classes_out_and_an_impossible_label_says_nothing():
    logits, labels, t = problem()
    t[:3, 1] = 0
    t[:, 2] = 0
    t /= t.sum(axis=1, keepdims=True)
    ours = np.asarray(transitions.posterior(logits, labels, t))
    np.testing.assert_allclose(ours, bayes(logits, labels, t), atol=1e-6)
    assert (ours[labels == 1][:, :3] == 0).all()
    np.testing.assert_allclose(ours[labels == 2], jax.nn.softmax(logits[labels == 2]), atol=1e-6)
    np.testing.assert_allclose(transitions.posterior(logits, labels, np.eye(5, dtype=np.float32)), np.eye(5)[labels])


def test_posteriors_and_gradients_are_finite_at_any_logit():
    t = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.8, 0]], np.float32)
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [0, 0, 1e4], [1e4, 0, -1e4]], np.float32)
    labels = np.array([1, 0, 2, 2])

    def first(logits, t):
        return jnp.sum(transitions.posterior(logits, labels, t)[:, 0])

    assert np.isfinite(transitions.posterior(logits, labels, t)).all()
    # The best class is ruled out by the label: the next one takes it all, although its p is 0 in float32.
    np.testing.assert_allclose(transitions.posterior(logits, labels, t)[0], [0, 0, 1], atol=1e-6)
    for grad in jax.grad(first, (0, 1))(logits, t):
        assert np.isfinite(grad).all()
    logits, labels_, t = problem(4)
    check_grads(lambda a, b: transitions.posterior(a, labels_, b), (logits, t), order=1, modes=["rev"], eps=1e-3)


def test_binary_posterior_is_the_posterior_of_two_classes():
    n, k = 20, 4
    logits, labels = RNG.normal(size=(n, k)).astype(np.float32) * 2, RNG.integers(0, 2, (n, k))
    t = RNG.dirichlet(np.ones(2), (k, 2)).astype(np.float32)
    t[1] = [[1, 0], [0.5, 0.5]]
    t[2] = [[1, 0], [1, 0]]
    ours = transitions.binary_posterior(logits, labels, t)
    for c in range(k):
        two = np.stack([np.zeros(n, np.float32), logits[:, c]], axis=1)
        np.testing.assert_allclose(ours[:, c], bayes(two, labels[:, c], t[c])[:, 1], atol=1e-6)
    np.testing.assert_allclose(jax.jit(transitions.binary_posterior)(logits, labels.astype(bool), t), ours, atol=1e-6)
    one = jax.vmap(transitions.binary_posterior, in_axes=(0, 0, None))(logits, labels, t)
    np.testing.assert_allclose(one, ours, atol=1e-6)
    huge = np.where(labels == 1, 1e4, -1e4).astype(np.float32)
    for grad in jax.grad(lambda a, b: jnp.sum(transitions.binary_posterior(a, labels, b)), (0, 1))(huge, t):
        assert np.isfinite(grad).all()


def test_bad_input_is_named():
    logits, labels, t = problem()
    with pytest.raises(TypeError, match="transition must be floating"):
        transitions.project(np.eye(2, dtype=int))
    with pytest.raises(ValueError, match="must have rows"):
        transitions.project(1.0)
    with pytest.raises(TypeError, match="logits must be floating"):
        transitions.posterior(labels, labels, t)
    with pytest.raises(TypeError, match="noisy_labels must be integers"):
        transitions.posterior(logits, labels.astype(np.float32), t)
    with pytest.raises(ValueError, match=r"transition must be \[K, K\]"):
        transitions.posterior(logits, labels, t[:3])
    with pytest.raises(ValueError, match=r"noisy_labels .* must have the shape"):
        transitions.posterior(logits, labels[:3], t)
    with pytest.raises(ValueError, match=r"transition must be \[K, 2, 2\]"):
        transitions.binary_posterior(logits, logits > 0, t)
    with pytest.raises(ValueError, match="must have the same shape"):
        transitions.binary_posterior(logits, labels, np.zeros((5, 2, 2), np.float32))
