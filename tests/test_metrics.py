import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from nlx import metrics

RNG = np.random.default_rng(0)


def voc_ap(scores, labels, points):
    """The definition, one threshold at a time, in float64."""
    curve = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        curve.append((labels[chosen].sum() / labels.sum(), labels[chosen].mean()))
    best = [max((p for r, p in curve if r >= recall - 1e-12), default=0.0) for recall, _ in curve]
    if points == 11:
        return np.mean([max((p for r, p in curve if r >= k / 10 - 1e-12), default=0.0) for k in range(11)])
    recalls = [0.0] + [r for r, _ in curve]
    return sum((recalls[i + 1] - recalls[i]) * best[i] for i in range(len(curve)))


@pytest.mark.parametrize("points", [None, 11])
@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_average_precision_follows_the_definition_with_and_without_ties(points, levels):
    for n in (1, 5, 60, 128, 300):  # a running sum goes over 128
        scores = RNG.integers(0, levels, n).astype(np.float32)
        labels = RNG.integers(0, 2, n)
        labels[0] = 1
        expected = voc_ap(scores, labels, points)
        np.testing.assert_allclose(metrics.average_precision(scores, labels, points=points), expected, rtol=1e-5)


def test_recall_of_three_tenths_reaches_the_fourth_point():
    labels = np.zeros(20, int)
    labels[[0, 1, 2, 10, 11, 12, 13, 14, 15, 16]] = 1
    scores = np.arange(20, 0, -1).astype(np.float32)
    np.testing.assert_allclose(
        metrics.average_precision(scores, labels, points=11), voc_ap(scores, labels, 11), rtol=1e-6
    )


def test_interpolation_never_lowers_average_precision():
    scores, labels = RNG.normal(size=500).astype(np.float32), RNG.integers(0, 2, 500)
    plain = average_precision_score(labels, scores)
    ours = float(metrics.average_precision(scores, labels))
    assert plain <= ours < plain + 0.05


def test_perfect_and_reversed_rankings():
    labels = np.array([1, 1, 0, 0, 0])
    scores = np.array([5.0, 4, 3, 2, 1], np.float32)
    assert metrics.average_precision(scores, labels) == 1
    np.testing.assert_allclose(metrics.average_precision(-scores, labels), 2 / 5)


def test_order_of_examples_does_not_matter_even_with_ties():
    scores, labels = RNG.integers(0, 4, 50).astype(np.float32), RNG.integers(0, 2, 50)
    order = RNG.permutation(50)
    np.testing.assert_allclose(
        metrics.average_precision(scores, labels), metrics.average_precision(scores[order], labels[order]), rtol=1e-6
    )


@pytest.mark.parametrize("points", [None, 11])
def test_masked_examples_do_not_count(points):
    scores, labels = RNG.normal(size=40).astype(np.float32), RNG.integers(0, 2, 40)
    mask = RNG.uniform(size=40) < 0.6
    np.testing.assert_allclose(
        metrics.average_precision(scores, labels, points=points, where=mask),
        metrics.average_precision(scores[mask], labels[mask], points=points),
        rtol=1e-6,
    )


def test_a_class_without_positives_is_nan_and_leaves_the_mean():
    scores = RNG.normal(size=(30, 3)).astype(np.float32)
    labels = RNG.integers(0, 2, (30, 3))
    labels[:, 1] = 0
    assert np.isnan(metrics.average_precision(scores[:, 1], labels[:, 1]))
    expected = np.mean([voc_ap(scores[:, k], labels[:, k], None) for k in (0, 2)])
    np.testing.assert_allclose(metrics.mean_average_precision(scores, labels), expected, rtol=1e-5)


def test_map_of_classes_is_one_against_the_rest_and_jits():
    scores, labels = RNG.normal(size=(30, 3)).astype(np.float32), RNG.integers(0, 3, 30)
    expected = np.mean([voc_ap(scores[:, k], (labels == k).astype(int), 11) for k in range(3)])
    jitted = jax.jit(lambda s, y: metrics.mean_average_precision(s, y, points=11))
    np.testing.assert_allclose(jitted(scores, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("most", [metrics._SCORES, 450])
def test_map_does_not_depend_on_how_many_classes_are_taken_together(most, monkeypatch):
    monkeypatch.setattr(metrics, "_SCORES", most)
    n = 150 if most == 450 else 151  # traced anew
    scores, labels = RNG.normal(size=(n, 20)).astype(np.float32), RNG.integers(0, 2, (n, 20))
    expected = np.mean([voc_ap(scores[:, k], labels[:, k], None) for k in range(20)])
    np.testing.assert_allclose(metrics.mean_average_precision(scores, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 128, 129, 1000])
def test_a_running_sum_or_maximum_is_numpys(n):
    hits, shares = RNG.integers(0, 2, n).astype(np.int32), RNG.uniform(size=n).astype(np.float32)
    running = metrics._running(jnp.add, jax.lax.cumsum, jnp.asarray(hits))
    np.testing.assert_array_equal(running, np.cumsum(hits, dtype=np.int32), strict=True)
    running = metrics._running(jnp.maximum, jax.lax.cummax, jnp.asarray(shares))
    np.testing.assert_array_equal(running, np.maximum.accumulate(shares))


def test_accuracy_and_recovery():
    probs = np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]], np.float32)
    assert metrics.accuracy(probs, np.array([0, 0, 0])) == pytest.approx(2 / 3)
    assert metrics.accuracy(probs, np.array([0, 0, 0]), where=np.array([True, False, True])) == 1
    assert metrics.recovery(probs, np.array([1, 1, 1])) == pytest.approx(1 / 3)
    assert metrics.recovery(probs, np.array([[1, 0], [1, 1], [0, 0]])) == pytest.approx(4 / 6)
    assert metrics.recovery(np.full((1, 2), 0.5, np.float32), np.array([[1, 1]])) == 1


def test_transitions_of_single_labels_are_the_confusion_matrix():
    true, noisy = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
    expected = np.zeros((4, 4))
    np.add.at(expected, (true, noisy), 1)
    np.testing.assert_array_equal(metrics.transition_counts(np.eye(4)[true], np.eye(4)[noisy]), expected)
    mask = RNG.uniform(size=200) < 0.5
    np.testing.assert_array_equal(
        metrics.transition_counts(np.eye(4)[true], np.eye(4)[noisy], where=mask),
        metrics.transition_counts(np.eye(4)[true[mask]], np.eye(4)[noisy[mask]]),
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="points must be None"):
        metrics.average_precision(np.zeros(3, np.float32), np.zeros(3, int), points=7)
    with pytest.raises(ValueError, match="vectors of the same length"):
        metrics.average_precision(np.zeros(3, np.float32), np.zeros(4, int))
    with pytest.raises(ValueError, match="must have the same shape"):
        metrics.mean_average_precision(np.zeros((3, 2), np.float32), np.zeros((3, 4), int))
    with pytest.raises(ValueError, match="must both be"):
        metrics.transition_counts(np.zeros((3, 2)), np.zeros((3, 3)))
