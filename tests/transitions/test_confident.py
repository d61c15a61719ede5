import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.kernels.programs import facts_of
from nlx import transitions
from nlx.training.mesh import by_example, make_mesh
from nlx.transitions import confident

RNG = np.random.default_rng(0)


def naive_joint(probs, labels, thresholds=None):
    """The definition one example at a time, thresholds in float64."""
    k = probs.shape[1]
    if thresholds is None:
        own = [probs[labels == c, c].astype(np.float64) for c in range(k)]
        thresholds = [max(p.mean(), 2e-6) if len(p) else 2.0 for p in own]
    joint = np.zeros((k, k), int)
    for row, label in zip(probs, labels, strict=True):
        sure = [c for c in range(k) if row[c] >= np.float32(thresholds[c] - 1e-6)]
        if sure:
            joint[label, sure[0] if len(sure) == 1 else int(np.argmax(row))] += 1
    np.fill_diagonal(joint, np.maximum(np.diag(joint), 1))
    return joint


def problem(n, k, case):
    """Probabilities and labels with some truth to find, and what each case is about."""
    true = RNG.integers(0, k, n)
    probs = RNG.dirichlet(np.full(k, 0.3), n)
    probs[np.arange(n), true] += RNG.uniform(0, 2, n)
    labels = np.where(RNG.uniform(size=n) < 0.3, RNG.integers(0, k, n), true)
    if case == "ties":
        probs = np.round(probs * 4) + 1.0
    if case == "rare":
        labels = np.where(labels % 3 == 1, 0, labels)
    probs = probs / probs.sum(1, keepdims=True)
    if case == "one-hot":
        probs = np.eye(k)[true]
    return probs.astype(np.float32), labels


# Both ways through a row: one class at a time up to 32 classes, strips of 16 above, with and without a short last one.
SIZES = [(300, 2), (200, 10), (100, 33), (150, 48), (100, 1100)]
CASES = ["plain", "ties", "rare", "one-hot"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_counts_follow_the_definition(n, k, case):
    probs, labels = problem(n, k, case)
    expected = naive_joint(probs, labels)
    np.testing.assert_array_equal(transitions.confident_joint(probs, labels), expected)
    assert case != "plain" or expected.sum() > np.trace(expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_counts_are_those_of_cleanlab(n, k, case):
    count = pytest.importorskip("cleanlab.count")
    probs, labels = problem(n, k, case)
    theirs = count.compute_confident_joint(labels, probs, calibrate=False)
    ours = transitions.confident_joint(probs, labels)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(
        transitions.confident_thresholds(probs, labels), count.get_confident_thresholds(labels, probs), rtol=1e-6
    )
    calibrated = count.compute_confident_joint(labels, probs, calibrate=True)
    assert np.abs(np.asarray(transitions.calibrate_joint(ours, labels)) - calibrated).max() < 1


def test_many_classes_sure_at_once_and_given_thresholds():
    for k in (5, 40):
        probs, labels = problem(200, k, "ties")
        thresholds = RNG.uniform(0, 0.2, k).astype(np.float32)
        np.testing.assert_array_equal(
            transitions.confident_joint(probs, labels, thresholds=thresholds), naive_joint(probs, labels, thresholds)
        )
        nowhere = transitions.confident_joint(probs, labels, thresholds=np.full(k, 1.5, np.float32))
        np.testing.assert_array_equal(nowhere, np.eye(k))


def test_the_likeliest_class_wins_only_where_several_are_sure():
    probs = np.array([[0.6, 0.3, 0.1], [0.6, 0.2, 0.2], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]], np.float32)
    labels, thresholds = np.array([0, 0, 2, 2]), np.array([0.9, 0.3, 0.2], np.float32)
    # Row 0: class 1 alone is sure. Row 1: class 2 alone. Row 2: 1 and 2 are, and 0 is the first of the likeliest.
    expected = np.array([[1, 1, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(transitions.confident_joint(probs, labels, thresholds=thresholds), expected)


@pytest.mark.parametrize("n", [2**20 // 600 + 37, 3528])
def test_blocks_of_rows_agree_with_the_whole(n):
    k = 600
    probs, labels = RNG.dirichlet(np.full(k, 0.05), n).astype(np.float32), RNG.integers(0, k, n)
    thresholds = np.full(k, 0.1, np.float32)
    sure = probs >= thresholds - np.float32(1e-6)
    guess = np.where(sure.sum(1) == 1, sure.argmax(1), probs.argmax(1))
    expected = np.zeros((k, k), int)
    np.add.at(expected, (labels[sure.any(1)], guess[sure.any(1)]), 1)
    np.fill_diagonal(expected, np.maximum(np.diag(expected), 1))
    np.testing.assert_array_equal(transitions.confident_joint(probs, labels, thresholds=thresholds), expected)


def test_no_device_sees_the_others_probabilities():
    mesh = make_mesh(jax.devices())
    n, k = 3528, 600  # two blocks
    probs, labels = RNG.dirichlet(np.full(k, 0.05), n).astype(np.float32), RNG.integers(0, k, n)
    spread = [jax.device_put(x, by_example(mesh)) for x in (probs, labels)]
    compiled = jax.jit(transitions.confident_joint).lower(*spread).compile()
    np.testing.assert_array_equal(compiled(*spread), transitions.confident_joint(probs, labels))
    assert facts_of(compiled).received < probs.nbytes / 4  # labels, thresholds and counts


def test_thresholds_of_a_million_examples_keep_their_digits():
    n = 1_000_000
    probs = RNG.uniform(size=(n, 2)).astype(np.float32)
    ours = transitions.confident_thresholds(probs, np.zeros(n, int))
    np.testing.assert_allclose(ours, [probs[:, 0].mean(dtype=np.float64), 2.0], rtol=1e-7)


def test_labels_that_are_no_class_do_not_count_and_the_order_of_examples_does_not_matter():
    probs, labels = problem(200, 6, "plain")
    odd = np.where(np.arange(200) % 5 == 0, np.where(np.arange(200) % 2 == 0, -1, 6), labels)
    kept = np.arange(200) % 5 != 0
    joint = transitions.confident_joint(probs, odd)
    np.testing.assert_array_equal(joint, transitions.confident_joint(probs[kept], labels[kept]))
    order = RNG.permutation(200)
    np.testing.assert_array_equal(joint, transitions.confident_joint(probs[order], odd[order]))
    np.testing.assert_array_equal(joint, jax.jit(transitions.confident_joint)(probs, odd))


def test_the_joint_recovers_the_matrix():
    n, k = 40_000, 4
    t = np.asarray(transitions.symmetric(k, 0.3), np.float64)
    true = RNG.integers(0, k, n)
    noisy = (RNG.uniform(size=(n, 1)) > np.cumsum(t, axis=1)[true]).sum(1)
    clean = np.full((n, k), 0.02) + 0.92 * np.eye(k)[true]
    probs = ((clean + RNG.uniform(0, 0.02, (n, k))) @ t).astype(np.float32)
    joint = transitions.confident_joint(probs, noisy)
    # 10,000 examples a row: four standard errors of 0.7 are 0.018; uncounted examples add a little.
    np.testing.assert_allclose(transitions.from_confident_joint(joint, noisy), t, atol=0.03)


def test_calibration_by_hand_and_a_class_nobody_is_sure_of():
    joint, labels = np.array([[1, 3, 0], [0, 4, 0], [0, 0, 1]]), np.array([0] * 8 + [1] * 4)
    calibrated = transitions.calibrate_joint(joint, labels)
    np.testing.assert_allclose(calibrated, [[2, 6, 0], [0, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(
        transitions.from_confident_joint(joint, labels), [[1, 0, 0], [0.6, 0.4, 0], [0, 0, 1]], rtol=1e-6
    )


def test_half_precision_is_counted_as_it_stands():
    probs, labels = problem(100, 5, "plain")
    half = jnp.asarray(probs).astype(jnp.bfloat16)
    np.testing.assert_array_equal(
        transitions.confident_joint(half, labels), naive_joint(np.asarray(half.astype(jnp.float32)), labels)
    )


@pytest.mark.parametrize("name", ["a row of gaps", "a gap", "logits", "percent", "signed"])
def test_predictions_that_are_no_probabilities_are_refused_or_left_out(name):
    probs, labels = problem(60, 4, "plain")
    rows = np.arange(60) % 7 == 3
    own = rows[:, None] & (np.arange(4) == labels[:, None])
    broken = {
        "a row of gaps": np.where(rows[:, None], np.nan, probs),
        "a gap": np.where(own, np.nan, probs),
        "logits": np.where(rows[:, None], np.where(own, -3, 2), probs),
        "percent": np.where(rows[:, None], 100 * (probs + 0.1), probs),
        "signed": np.where(rows[:, None], -probs - 0.1, probs),
    }[name].astype(np.float32)
    for function in (transitions.confident_thresholds, transitions.confident_joint):
        with pytest.raises(ValueError, match="pred_probs row 3 gives its label no probability"):
            function(broken, labels)
        np.testing.assert_allclose(jax.jit(function)(broken, labels), function(probs[~rows], labels[~rows]), rtol=1e-6)
        function(broken, np.where(rows, -1, labels))  # of no class, they do not count anyway


def test_bad_input_is_named():
    probs, labels = problem(10, 3, "plain")
    for function in (transitions.confident_joint, confident.confident_thresholds):
        with pytest.raises(TypeError, match="pred_probs must be floating"):
            function(labels[:, None], labels)
        with pytest.raises(TypeError, match="noisy_labels must be integers"):
            function(probs, probs[:, 0])
        with pytest.raises(ValueError, match=r"must be \[n, K\] and noisy_labels"):
            function(probs, labels[:3])
        with pytest.raises(ValueError, match="at least two classes"):
            function(probs[:, :1], labels)
    with pytest.raises(ValueError, match=r"thresholds must be \[K\]"):
        transitions.confident_joint(probs, labels, thresholds=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"joint must be \[K, K\]"):
        transitions.calibrate_joint(probs, labels)
    with pytest.raises(TypeError, match="noisy_labels must be integers"):
        transitions.calibrate_joint(np.eye(3), probs[:, 0])
    with pytest.raises(ValueError, match="one dimension"):
        transitions.from_confident_joint(np.eye(3), labels[None])
