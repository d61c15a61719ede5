import jax
import numpy as np
import pytest

from nlx import transitions
from nlx.transitions import label_posterior

RNG = np.random.default_rng(0)


def test_it_is_what_pairs_of_labels_say():
    t = np.asarray(transitions.sparse(jax.random.key(0), 4, 0.4, targets=2), np.float64)
    true = RNG.choice(4, 200_000, p=[0.1, 0.2, 0.3, 0.4])
    noisy = (RNG.uniform(size=(len(true), 1)) > np.cumsum(t, axis=1)[true]).sum(1)
    table = np.asarray(label_posterior(t, noisy))
    np.testing.assert_allclose(table, transitions.from_pairs(noisy, true, 4), atol=0.01)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-6)


def test_by_hand():
    t = np.array([[0.8, 0.2], [0.4, 0.6]])
    noisy = np.repeat([0, 1], [6, 4])  # so that both classes are equally frequent
    np.testing.assert_allclose(label_posterior(t, noisy), [[2 / 3, 1 / 3], [1 / 4, 3 / 4]], rtol=1e-5)


def test_matrices_at_the_limit_give_distributions():
    moved = np.eye(3)[[1, 2, 0]]
    np.testing.assert_allclose(label_posterior(moved, np.arange(3)), moved.T, atol=1e-5)
    uniform = np.asarray(label_posterior(np.full((3, 3), 1 / 3), np.array([0, 0, 1])))
    np.testing.assert_allclose(uniform.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(uniform, np.tile(uniform[0], (3, 1)), rtol=1e-6)  # the noisy label says nothing
    never = np.asarray(label_posterior(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 0])))
    np.testing.assert_allclose(never[1], 0.5)


def test_frequencies_that_no_classes_give_are_projected():
    t = np.array([[0.7, 0.3], [0.3, 0.7]])
    table = np.asarray(label_posterior(t, np.zeros(9, int)))  # at most 70 % of labels could be 0
    np.testing.assert_allclose(table, [[1, 0], [1, 0]], atol=1e-5)


@pytest.mark.parametrize(
    ("t", "labels", "message"),
    [
        (np.ones((2, 3)) / 3, [0], r"transition must be \[K, K\], got \(2, 3\)"),
        (np.eye(2), [2, 255], r"classes in \[0, 2\)"),
        (np.eye(2), [-1], r"classes in \[0, 2\)"),
        (np.eye(2), [], "at least one"),
    ],
)
def test_bad_input(t, labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        label_posterior(t, np.array(labels, int))
