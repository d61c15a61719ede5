"""The guard: what models that have not seen the labels say of them, against the truth that it never sees."""

import jax.numpy as jnp
import numpy as np
import pytest

from nlx.cleaning.guard import beliefs_of, best_belief, guard_of, guarded, interval_of, some_of, unpredicted
from nlx.cleaning.held_out import Discriminant, judge, rows_to_judge
from nlx.cleaning.table import label_table
from nlx.methods.method import Candidate, Column, Posterior

RNG = np.random.default_rng(0)
N, K = 600, 3
TRUE = np.repeat([0, 1, 2], [450, 100, 50]).astype(np.int32)
NOISY = np.where(RNG.uniform(size=N) < 0.2, (TRUE + RNG.integers(1, K, N)) % K, TRUE).astype(np.int32)
X = (4 * np.eye(K, 6)[TRUE] + RNG.normal(size=(N, 6))).astype(np.float32)
WRONG = float(np.mean(NOISY != TRUE))


@pytest.fixture(scope="module")
def judged():
    return judge(rows_to_judge(N), X, NOISY, K)


def guard(judged, labels, given=NOISY):
    probs = np.eye(K)[labels] if labels.ndim == 1 else labels.astype(float)
    return guard_of(judged, label_table(probs, given))


def test_a_discriminant_judges_a_fold_by_the_others():
    """Closed form, against a float64 loop over the folds."""
    models, labels = Discriminant(X, NOISY), np.eye(K)[NOISY]
    scores = models.scores(labels, True)
    x = models._x
    for fold in models.rows_of_folds[::7]:
        rest, out, own = (np.delete(x, fold, axis=0), x[fold], np.delete(labels, fold, axis=0))
        means = np.stack([rest[own[:, c] == 1].mean(0) for c in range(K)])
        within = sum(
            (r - means[c])[:, None] * (r - means[c])[None, :] for r, c in zip(rest, own.argmax(1), strict=True)
        )
        covariance, d, n = within / len(rest), x.shape[1], len(rest)
        covariance = n / (n + d) * covariance + d / (n + d) * np.trace(covariance) / d * np.eye(d)
        weights = np.linalg.solve(covariance, means.T)
        expected = out @ weights - 0.5 * np.sum(means.T * weights, axis=0) + np.log(own.mean(0))
        np.testing.assert_allclose(scores[fold], expected, rtol=1e-5, atol=1e-5)


def test_two_classes_of_one_label_and_two_labels_say_the_same():
    """Log-odds of a column are those of its two classes; shrinkage alone differs a little."""
    given = (NOISY == 0).astype(np.uint8)
    models = Discriminant(X, given)
    both = models.scores(np.stack([1 - given, given], axis=1), True)
    odds = models.scores(given[:, None], False)[:, 0]
    assert np.abs(both[:, 1] - both[:, 0] - odds).max() < 0.1 * np.abs(odds).max()


def test_the_estimates_are_near_the_truth(judged):
    found = guard(judged, TRUE)
    assert found.noise.low < WRONG < found.noise.high
    assert found.gain.value == pytest.approx(WRONG, abs=0.05)
    assert found.verdict == "better"
    assert found.classes == (np.bincount(NOISY).tolist(), [450, 100, 50])
    assert found.lost == []


def test_worse_labels_are_told_as_such(judged):
    shifted = np.where(np.arange(N) % 3 == 0, (NOISY + 1) % K, NOISY)
    found = guard(judged, shifted)
    assert found.verdict == "worse"
    assert abs(found.gain.value - (np.mean(shifted == TRUE) - np.mean(NOISY == TRUE))) < 0.03
    assert found.hits[1] < found.hits[0]
    assert found.difference.high < 0
    assert "WORSE" in found.line
    assert guard(judged, NOISY).verdict == "open"
    # Most labels may be right and a class gone: that is no gain.
    found = guard(judged, np.where(TRUE == 2, 0, TRUE))
    assert found.gain.low > 0
    assert (found.verdict, found.lost) == ("worse", ["2"])
    assert "WORSE than the given ones: classes nearly LOST: 2" in found.line


def test_copies_of_the_given_labels_are_not_preferred(judged):
    copy, right = np.eye(K, dtype=np.float32)[NOISY], np.eye(K, dtype=np.float32)[TRUE]
    cost = {"copy": jnp.zeros(N), "forbidden": jnp.full(N, jnp.inf)}
    candidates = {"copy": Candidate(copy, cost["copy"]), "forbidden": Candidate(right, cost["forbidden"])}
    posterior = Posterior(candidates, {"classifier": Column(right, "belief"), "other": Column(right)})
    assert list(beliefs_of(posterior)) == ["copy", "classifier"]
    best = best_belief(judged, posterior)
    assert best.name == "classifier"
    assert (best.probs == right).all()
    assert best.merits["classifier"] - best.merits["copy"] == pytest.approx(WRONG, abs=0.05)
    # Of equal beliefs it is the method's own choice, whatever their order; and of several labels to an example.
    also = {"also": Column(copy, "belief"), "zero": Column(copy, "belief")}
    assert best_belief(judged, posterior._replace(columns=also)).name == "copy"
    assert best_belief(judged._replace(beliefs=None), posterior).name == "copy"


def test_several_labels_per_example():
    true = np.stack([TRUE == 0, TRUE == 2], axis=1).astype(np.uint8)
    missing = np.where(RNG.uniform(size=true.shape) < 0.3, 0, true).astype(np.uint8)
    judged = judge(rows_to_judge(N), X, missing, 2)
    found = guard_of(judged, label_table(true.astype(float), missing))
    assert (found.noise, found.gain) == (None, None)  # what is missing cannot be told from what is hard to see
    assert found.summary()["gain"] is None
    assert "mAP" in found.line
    assert found.verdict != "worse"
    empty = label_table(np.full((N, 2), 0.1), missing, extras={"trusted": np.arange(N) == 0})
    none = guard_of(judged, empty)
    assert (none.verdict, none.lost) == ("worse", ["0", "1"])
    kept = guarded(empty, none)
    assert (kept.changes == (np.arange(N) == 0) & (missing[0] == 1).any()).all()  # but for what is trusted
    np.testing.assert_allclose(kept.probability, np.where(kept.cleaned_label == 1, 0.1, 0.9))
    np.testing.assert_array_equal(kept.issue_rank, empty.issue_rank)
    assert "which are kept" in kept.guard["line"]
    assert (guarded(label_table(true * 1.0, missing), found).cleaned_label == true).all()


def test_models_that_know_nothing_do_not_overrule_labels():
    """Inputs without information: no label looks much more wrong than the next one, and none better than the given."""
    judged = judge(rows_to_judge(N), np.zeros((N, 2, 2, 1), np.uint8), NOISY, K)
    assert np.isfinite(judged.beliefs).all()
    assert guard(judged, RNG.permutation(NOISY)).verdict != "better"


@pytest.mark.parametrize("n", [60, 600])
@pytest.mark.parametrize("seed", range(5))
def test_of_labels_that_are_pure_noise_nothing_is_said(n, seed):
    rng = np.random.default_rng(seed)
    x, given = rng.normal(size=(n, 8)).astype(np.float32), np.arange(n) % 3
    found = guard(judge(rows_to_judge(n), x, given, 3), (given + (rng.uniform(size=n) < 0.5)) % 3, given)
    assert found.verdict == "open"


def test_an_interval_is_that_of_the_mean():
    values = RNG.normal(1, 2, 10_000)
    found = interval_of(values)
    assert found.low < 1 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 / 100, rel=0.05)
    assert len(rows_to_judge(50_000)) == 20_000


@pytest.mark.parametrize(
    ("predicted", "missed"),
    [(TRUE, []), (np.where(TRUE == 2, 0, TRUE), [2]), (np.zeros(N, np.int32), [1, 2])],
)
def test_classes_that_the_classifier_hardly_predicts_are_named(judged, predicted, missed):
    belief = Candidate(np.eye(K)[predicted], np.zeros(N))
    posterior = Posterior({"own": Candidate(np.eye(K)[TRUE], np.zeros(N)), "classifier": belief}, {})
    assert unpredicted(judged, posterior) == missed
    assert unpredicted(judged, Posterior({"own": belief}, {})) == []  # who has no classifier says nothing of it
    column = {"classifier": Column(jnp.asarray(belief.probs), "belief")}
    assert unpredicted(judged, Posterior({"own": posterior.candidates["own"]}, column)) == missed


def test_a_few_names_stand_for_many():
    assert some_of(["a", "b"]) == "a, b"
    assert some_of([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
