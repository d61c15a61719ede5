import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import corruption, metrics, transitions


def test_symmetric_and_pair_by_hand():
    np.testing.assert_allclose(
        transitions.symmetric(4, 0.3), [[0.7 if i == j else 0.1 for j in range(4)] for i in range(4)], rtol=1e-6
    )
    np.testing.assert_allclose(transitions.pair(3, 0.4), [[0.6, 0.4, 0], [0, 0.6, 0.4], [0.4, 0, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(
        transitions.pair(3, 0.4, targets=[2, 1, 0]), [[0.6, 0, 0.4], [0, 1, 0], [0.4, 0, 0.6]], rtol=1e-6
    )


def test_symmetric_is_what_uniform_flips_do(key):
    labels = jnp.arange(40_000) % 4
    noisy = corruption.uniform_flips(key, labels, 4, 0.3).labels
    counts = metrics.transition_counts(jax.nn.one_hot(labels, 4), jax.nn.one_hot(noisy, 4))
    # 10,000 draws a row: three standard errors of 0.7 are 0.014.
    np.testing.assert_allclose(counts / 10_000, transitions.symmetric(4, 0.3), atol=0.014)


def test_rate_zero_is_the_identity_and_rates_may_be_traced(key):
    for make in (
        lambda r: transitions.symmetric(5, r),
        lambda r: transitions.pair(5, r),
        lambda r: transitions.sparse(key, 5, r, targets=2),
    ):
        np.testing.assert_array_equal(make(0.0), np.eye(5))
        np.testing.assert_allclose(jax.jit(make)(0.35), make(0.35), rtol=1e-6)


@pytest.mark.parametrize("concentration", [None, 0.5])
def test_sparse_has_as_many_targets_as_asked(key, concentration):
    t = np.asarray(transitions.sparse(key, 60, 0.5, targets=7, concentration=concentration))
    assert t.dtype == np.float32
    np.testing.assert_allclose(np.diag(t), 0.5)
    np.testing.assert_allclose(t.sum(1), 1, rtol=1e-5)
    off = t - np.diag(np.diag(t))
    assert ((off > 0).sum(1) == 7).all() or concentration is not None
    assert ((off > 0).sum(1) <= 7).all()
    if concentration is None:
        np.testing.assert_allclose(off[off > 0], 0.5 / 7, rtol=1e-5)
    else:
        assert off[off > 0].std() > 0.02
    assert (transitions.sparse(jax.random.key(1), 60, 0.5, targets=7) != t).any()
    # Places are random: every class is somebody's target about 7 times.
    assert (off > 0).sum(0).max() < 20


def test_confusions_keep_their_direction_and_average_to_the_rate():
    counts = np.array([[80.0, 15, 5], [10, 90, 0], [0, 0, 0]])
    priors = np.array([0.5, 0.3, 0.2])
    t = np.asarray(transitions.from_confusion(counts, 0.25, priors=priors), np.float64)
    np.testing.assert_allclose(t.sum(1), 1, rtol=1e-6)
    assert priors @ (1 - np.diag(t)) == pytest.approx(0.25)
    assert t[0, 1] / t[0, 2] == pytest.approx(3)
    assert (1 - t[0, 0]) / (1 - t[1, 1]) == pytest.approx(0.2 / 0.1)
    np.testing.assert_allclose(t[2], [0.125, 0.125, 0.75], rtol=1e-6)
    t = np.asarray(transitions.from_confusion(counts, 0.25))
    assert np.mean(1 - np.diag(t)) == pytest.approx(0.25)


def test_a_perfect_model_flips_to_all_alike():
    np.testing.assert_allclose(transitions.from_confusion(np.eye(4) * 9, 0.4), transitions.symmetric(4, 0.4), rtol=1e-6)


def test_outliers_carry_the_labels_of_the_others():
    t = np.asarray(transitions.outlier(4, 0.2))
    np.testing.assert_array_equal(t[:4], np.eye(5)[:4])
    np.testing.assert_allclose(t[4], [0.2, 0.2, 0.2, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(transitions.outlier(4, 0.6)[4], [0.1, 0.1, 0.1, 0.1, 0.6], rtol=1e-6)


def test_check_names_the_first_bad_row(key):
    for good in (transitions.sparse(key, 50, 0.5), transitions.outlier(3, 0.1), np.tile(np.eye(2), (4, 1, 1))):
        transitions.check(good)
    with pytest.raises(ValueError, match=r"row 1 of the transition matrix sums to 0\.9"):
        transitions.check([[1.0, 0.0], [0.5, 0.4]])
    with pytest.raises(ValueError, match=r"row 0 .* holds -0\.5, below 0"):
        transitions.check([[-0.5, 1.5], [0.5, 0.4]])
    with pytest.raises(ValueError, match=r"row \(1, 0\) .* is not finite"):
        transitions.check([[[1.0, 0.0], [0.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]]])
    with pytest.raises(ValueError, match=r"must be \[K, K\]"):
        transitions.check(np.ones((2, 3)))


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        transitions.symmetric(1, 0.1)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\]"):
        transitions.pair(3, 1.5)
    with pytest.raises(ValueError, match="targets must be 3 classes"):
        transitions.pair(3, 0.5, targets=[0, 1, 3])
    with pytest.raises(ValueError, match=r"targets must lie in \[1, 4\]"):
        transitions.sparse(key, 5, 0.5)
    with pytest.raises(ValueError, match="concentration must be positive"):
        transitions.sparse(key, 5, 0.5, 2, concentration=0.0)
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]"):
        transitions.outlier(3, -0.1)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        transitions.outlier(0, 0.1)


def test_bad_confusions_are_named():
    counts = np.array([[50.0, 50], [1, 99]])
    with pytest.raises(
        ValueError, match=r"class 0 to flip with probability 1\.\d+; these confusions allow at most 0\.51"
    ):
        transitions.from_confusion(counts, 0.6)
    np.testing.assert_allclose(transitions.from_confusion(counts, 0.51), [[0, 1], [0.02, 0.98]], atol=1e-6)
    with pytest.raises(ValueError, match=r"counts must be \[K, K\]"):
        transitions.from_confusion(counts[:1], 0.1)
    with pytest.raises(ValueError, match="counts must be finite"):
        transitions.from_confusion(-counts, 0.1)
    with pytest.raises(ValueError, match="priors must be 2 shares"):
        transitions.from_confusion(counts, 0.1, priors=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\]"):
        transitions.from_confusion(counts, -0.1)
