import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nlx import transitions

RNG = np.random.default_rng(0)


def noisy_pairs(t, n):
    true = RNG.integers(0, len(t), n)
    return true, (RNG.uniform(size=(n, 1)) > np.cumsum(t, axis=1)[true]).sum(1)


def test_pairs_recover_the_matrix():
    t = np.asarray(transitions.sparse(jax.random.key(0), 6, 0.4, targets=3), np.float64)
    true, noisy = noisy_pairs(t, 60_000)
    # 10,000 examples a row: four standard errors of 0.5 are 0.02.
    np.testing.assert_allclose(transitions.from_pairs(true, noisy, 6), t, atol=0.02)


def test_pairs_by_hand():
    true, noisy = np.array([0, 0, 0, 2, 2]), np.array([0, 1, 1, 2, 0])
    expected = np.array([[1 / 3, 2 / 3, 0], [0, 1, 0], [0.5, 0, 0.5]])
    np.testing.assert_allclose(transitions.from_pairs(true, noisy, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(transitions.from_pairs, static_argnums=2)(true, noisy, 3), expected, rtol=1e-6)
    smooth = [[2 / 6, 3 / 6, 1 / 6], [1 / 3, 1 / 3, 1 / 3], [2 / 5, 1 / 5, 2 / 5]]
    np.testing.assert_allclose(transitions.from_pairs(true, noisy, 3, smoothing=1.0), smooth, rtol=1e-6)
    mask = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(
        transitions.from_pairs(true, noisy, 3, where=mask), transitions.from_pairs(true[mask], noisy[mask], 3)
    )


def leaning(true, noisy, k):
    """Rows towards the noise that all classes share, by the strength of the highest Dirichlet-multinomial evidence."""
    n = np.zeros((k, k))
    np.add.at(n, (true, noisy), 1)
    wrong = n * (1 - np.eye(k))
    rate, others = wrong.sum() / n.sum(), (wrong.sum(axis=0) + 1)[None, :] * (1 - np.eye(k))
    shared = (1 - rate) * np.eye(k) + rate * others / others.sum(axis=1, keepdims=True)
    evidence = [
        sum(stats.dirichlet_multinomial.logpmf(n[i].astype(int), s * shared[i], int(n[i].sum())) for i in range(k))
        for s in 2.0 ** np.arange(13)
    ]
    strength = 2.0 ** np.argmax(evidence)
    return (n + strength * shared) / (n.sum(axis=1, keepdims=True) + strength), strength


@pytest.mark.parametrize(("kind", "own_way"), [("symmetric", False), ("pair", True)])
def test_few_pairs_lean_on_what_classes_share_as_far_as_they_share_it(kind, own_way):
    t = np.asarray(getattr(transitions, kind)(8, 0.4), np.float64)
    true, noisy = noisy_pairs(t, 8 * 15)
    expected, strength = leaning(true, noisy, 8)
    ours = transitions.from_few_pairs(true, noisy, 8)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert (strength <= 4) == own_way
    off = [np.abs(estimate - t).sum() for estimate in (ours, transitions.from_pairs(true, noisy, 8))]
    assert off[0] < (1.3 if own_way else 0.6) * off[1]


def test_few_pairs_without_a_wrong_label_or_an_example():
    labels = np.arange(4).repeat(3)
    np.testing.assert_array_equal(transitions.from_few_pairs(labels, labels, 4), np.eye(4))
    np.testing.assert_array_equal(transitions.from_few_pairs(labels[:0], labels[:0], 4), np.eye(4))
    none_of_3 = transitions.from_few_pairs(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 0, 2, 1]), 4)
    np.testing.assert_allclose(none_of_3[3, 3], 0.5, rtol=1e-6)  # as often right as the others


def test_anchors_are_the_most_confident_examples():
    probs = np.array([[0.9, 0.05, 0.05], [0.1, 0.6, 0.3], [0.2, 0.7, 0.1], [0.25, 0.25, 0.5]], np.float32)
    np.testing.assert_allclose(transitions.from_anchors(probs), probs[[0, 2, 3]], rtol=1e-6)
    # Of four examples, the 0.67 quantile stands at the second highest score of each class.
    np.testing.assert_allclose(transitions.from_anchors(probs, quantile=0.67), probs[[3, 1, 1]], rtol=1e-6)


def test_anchors_recover_the_matrix_and_a_quantile_passes_over_outliers():
    t = np.asarray(transitions.symmetric(4, 0.3))
    clean = RNG.dirichlet(np.full(4, 0.1), 4000)
    clean[:4] = np.eye(4)
    probs = (clean @ t).astype(np.float32)
    np.testing.assert_allclose(transitions.from_anchors(probs), t, atol=1e-3)
    probs[5:9] = np.eye(4)
    np.testing.assert_allclose(transitions.from_anchors(probs), np.eye(4))
    robust = transitions.from_anchors(probs, quantile=0.97)
    np.testing.assert_allclose(robust, t, atol=0.01)
    np.testing.assert_allclose(
        jax.jit(transitions.from_anchors, static_argnames="quantile")(probs, quantile=0.97), robust
    )


@pytest.mark.parametrize("quantile", [1.0, 0.9])
@pytest.mark.parametrize("wrong", [np.nan, 3.0, -2.0])
def test_anchors_without_probabilities_are_refused_or_seen(quantile, wrong):
    probs = RNG.dirichlet(np.ones(3), 40).astype(np.float32)
    probs[:] = np.where(np.arange(40)[:, None] % 4 == 0, wrong * np.array([1, 0.5, 2], np.float32), probs)
    probs = -probs if wrong == -2 else probs
    with pytest.raises(ValueError, match=r"pred_probs at the anchors, row . is no distribution"):
        transitions.from_anchors(probs, quantile=quantile)
    hidden = jax.jit(transitions.from_anchors, static_argnames="quantile")(probs, quantile=quantile)
    assert not np.isnan(wrong) or np.isnan(hidden).any()
    joint = np.array([[3, 1], [np.nan, 2]])
    assert np.isnan(transitions.from_confident_joint(joint, np.array([0, 1]))).any()


def test_bad_input_is_named():
    labels, probs = np.array([0, 1]), np.full((2, 2), 0.5, np.float32)
    with pytest.raises(TypeError, match="labels must be integers"):
        transitions.from_pairs(labels, labels.astype(float), 2)
    with pytest.raises(ValueError, match="vectors of the same length"):
        transitions.from_pairs(labels, labels[:1], 2)
    with pytest.raises(ValueError, match="smoothing must be at least 0"):
        transitions.from_pairs(labels, labels, 2, smoothing=-1.0)
    with pytest.raises(TypeError, match="pred_probs must be floating"):
        transitions.from_anchors(labels[None])
    with pytest.raises(ValueError, match=r"pred_probs must be \[n, K\]"):
        transitions.from_anchors(probs[0])
    with pytest.raises(ValueError, match="quantile must lie"):
        transitions.from_anchors(jnp.asarray(probs), quantile=0.0)
