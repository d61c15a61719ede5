"""scikit-learn's own checks of the classifier, and what it adds to an estimator."""

import pickle

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

import nlx
from nlx.methods.noise_layer import noise_layer

NOT_MET: dict[str, str] = {}
"""Checks that do not apply, with the reason."""


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


CHECKS = [
    (check, getattr(check, "func", check).__name__)
    for _, check in estimator_checks_generator(nlx.NoisyLabelClassifier(folds=2))
]


@pytest.mark.slow
@pytest.mark.parametrize(("check", "name"), CHECKS, ids=[f"{name}-{i}" for i, (_, name) in enumerate(CHECKS)])
def test_scikit_learns_checks(check, name):
    if name in NOT_MET:
        pytest.skip(NOT_MET[name])
    check(clone(nlx.NoisyLabelClassifier(folds=2)))


def test_checks_were_collected_and_exceptions_are_few():
    names = {name for _, name in CHECKS}
    assert len(names) > 35
    assert set(NOT_MET) <= names
    assert len(NOT_MET) <= 3


def clusters(seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, 300)
    x = 4 * np.eye(3, 6)[true] + rng.normal(size=(300, 6))
    wrong = rng.uniform(size=300) < 0.2
    return x, np.array(["ant", "bee", "cat"])[np.where(wrong, (true + 1) % 3, true)], true, wrong


def test_labels_are_cleaned_in_the_users_own_words():
    x, noisy, true, wrong = clusters()
    classifier = nlx.NoisyLabelClassifier().fit(x, noisy)
    names = np.array(["ant", "bee", "cat"])
    assert np.mean(classifier.cleaned_labels_ == names[true]) > 0.97
    assert np.mean(classifier.predict(x) == names[true]) > 0.97
    assert classifier.label_score_[wrong].max() < classifier.label_score_[~wrong].mean()
    np.testing.assert_allclose(classifier.predict_proba(x).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(classifier.table_.label_score, classifier.label_score_)


def test_a_method_trains_behind_a_small_network():
    x, noisy, true, _ = clusters(1)
    classifier = nlx.NoisyLabelClassifier(noise_layer(3, learn_from=20)).fit(x, noisy)
    assert classifier.table_.method == "noise_layer"
    assert np.mean(classifier.predict(x) == np.array(["ant", "bee", "cat"])[true]) > 0.9


@pytest.mark.slow
def test_a_methods_network_and_seed_are_options():
    x, noisy, true, _ = clusters(2)
    plain = nlx.NoisyLabelClassifier("generalized_ce", hidden=(8, 8), epochs=30, random_state=0)
    assert plain.fit(x, noisy).table_.method == "generalized_ce"
    assert np.mean(plain.predict(x) == np.array(["ant", "bee", "cat"])[true]) > 0.9
    shapes = [leaf.shape for leaf in jax.tree.leaves(plain._states[0].params["model"])]
    assert sorted(shapes) == sorted([(6, 8), (8,), (8, 8), (8,), (8, 3), (3,)])
    again = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(again.predict_proba(x), plain.predict_proba(x))
    drawn = [nlx.NoisyLabelClassifier("generalized_ce", hidden=(8, 8), epochs=1, random_state=None) for _ in range(2)]
    assert (drawn[0].fit(x, noisy).predict_proba(x) != drawn[1].fit(x, noisy).predict_proba(x)).any()
    short = nlx.NoisyLabelClassifier(epochs=1).fit(x, noisy)
    assert (short.table_.posterior != nlx.NoisyLabelClassifier(epochs=2).fit(x, noisy).table_.posterior).any()


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        nlx.NoisyLabelClassifier().fit(np.ones((4, 2)), ["a"] * 4)
