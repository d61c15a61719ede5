"""A matrix that is estimated from another run is estimated from predictions, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from nlx import transitions
from nlx.arguments import ArgumentError
from nlx.cleaning.held_out import noise_rate
from nlx.cleaning.label_files import write_labels
from nlx.cleaning.table import label_table
from nlx.data import Dataset, Split
from nlx.experiment.transition_source import read_transition

N = 60
RNG = np.random.default_rng(0)
NOISY = RNG.integers(0, 3, N).astype(np.int32)
PREDICTED = RNG.dirichlet(np.ones(3), N).astype(np.float32)
DATA = Dataset("mine", ("a", "b", "c"), Split(np.zeros((N, 2), np.float32), NOISY, NOISY), None)
FEW = np.arange(N) % 4 == 0


@pytest.fixture
def of(tmp_path):
    """Function that gives T of a table with changes."""

    def call(kind="confident", *, posterior=PREDICTED, chosen="classifier", noisy=NOISY, **extras):
        table = label_table(PREDICTED, noisy, chosen=chosen, extras=extras)
        write_labels(tmp_path / "labels.parquet", replace(table, posterior=posterior))
        return read_transition(f"{kind}:{tmp_path}/labels.parquet", DATA)

    return call


def expected(rows):
    joint = transitions.confident_joint(PREDICTED[rows], NOISY[rows])
    return np.asarray(transitions.from_confident_joint(joint, NOISY[rows]))


def test_predictions_count_and_rows_that_were_trusted_do_not(of):
    np.testing.assert_array_equal(of(), expected(np.ones(N, bool)))
    certain = np.where(FEW[:, None], np.eye(3, dtype=np.float32)[NOISY], PREDICTED)
    np.testing.assert_array_equal(of(posterior=certain, trusted=FEW), expected(~FEW))
    excluded = np.where(FEW[:, None], 0.5 - 0.5 * np.eye(3, dtype=np.float32)[NOISY], PREDICTED)
    np.testing.assert_array_equal(of(posterior=excluded, known_wrong=FEW), expected(~FEW))


def test_noise_is_not_counted_on_labels_that_were_only_verified():
    some = np.arange(N) % 2 == 0
    split = Split(np.zeros((N, 2), np.float32), NOISY, np.where(some, NOISY, -1), some)
    np.testing.assert_allclose(np.diagonal(read_transition("trusted", replace(DATA, train=split))), 1, atol=0.1)
    for wrong in (~some, np.zeros(N, bool)):  # that only right ones were kept tells of no noise either
        with pytest.raises(ArgumentError, match="noise cannot be counted on labels that were verified as right or"):
            read_transition("trusted", replace(DATA, train=replace(split, wrong=wrong)))


def test_out_of_fold_predictions_go_before_the_posterior(of):
    one_hot = np.eye(3, dtype=np.float32)[NOISY]
    np.testing.assert_array_equal(
        of(posterior=one_hot, chosen="bayes", out_of_fold=PREDICTED), expected(np.ones(N, bool))
    )


@pytest.mark.parametrize("chosen", ["classifier_joined", "second_opinion"])
def test_a_classifier_that_others_had_to_help_still_predicts(of, chosen):
    """What labels were cleaned with has seen them; what the classifier itself predicts stands beside it."""
    one_hot = np.eye(3, dtype=np.float32)[NOISY]
    found = of(posterior=one_hot, chosen=chosen, classifier_posterior=PREDICTED)
    np.testing.assert_array_equal(found, expected(np.ones(N, bool)))
    with pytest.raises(ArgumentError, match=f"holds the posterior {chosen}"):
        of(posterior=one_hot, chosen=chosen)


@pytest.mark.parametrize("kind", ["anchors", "confident"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"chosen": "bayes"}, "holds the posterior bayes, which has seen the noisy labels"),
        ({"chosen": "additive"}, "holds the posterior additive, which has seen the noisy labels"),
        ({"noisy": (NOISY + 1) % 3}, "is of other noisy labels than those here"),
        ({"posterior": np.full((N, 3), np.nan, np.float32)}, "holds rows that are no probabilities"),
        ({"posterior": PREDICTED * 0.9}, "holds rows that are no probabilities"),
        ({"trusted": np.ones(N, bool)}, "holds true labels in place of predictions"),
    ],
)
def test_anything_else_is_refused(of, kind, changes, told):
    with pytest.raises(ArgumentError, match=told):
        of(kind, **changes)


def test_there_is_no_default():
    with pytest.raises(ArgumentError, match="say by `transition` where the matrix comes from"):
        read_transition(None, DATA)


def flipped_points(n=1200, k=4):
    """Classes apart, of which a third of each carries the label of the next one, but for the last."""
    rng = np.random.default_rng(1)
    true = rng.integers(0, k, n)
    noisy = np.where((rng.random(n) < 1 / 3) & (true < k - 1), true + 1, true).astype(np.int32)
    inputs = (8 * np.eye(k)[true] + rng.normal(size=(n, k))).astype(np.float32)
    return Dataset("points", tuple("abcd"), Split(inputs, noisy, None), None)


def test_linear_models_that_have_not_seen_a_label_find_the_matrix():
    wanted = np.eye(4)
    wanted[[0, 1, 2], [0, 1, 2]], wanted[[0, 1, 2], [1, 2, 3]] = 2 / 3, 1 / 3
    np.testing.assert_allclose(
        read_transition("held_out", flipped_points()), wanted, atol=0.1
    )  # the identity is off by 0.33


def test_they_find_the_share_of_wrong_labels_too():
    data = flipped_points()
    assert noise_rate(data.train.inputs, data.train.observed, 4) == pytest.approx(0.25, abs=0.05)


def test_held_out_models_need_inputs_that_say_something_and_every_class():
    data = flipped_points()
    images = replace(data, train=replace(data.train, inputs=np.zeros((1200, 64, 64, 1), np.uint8)))
    with pytest.raises(ArgumentError, match="for features and small images, but points has inputs of"):
        read_transition("held_out", images)
    with pytest.raises(ArgumentError, match="labels of every class, but none is c"):
        read_transition("held_out", replace(data, train=data.train.take(data.train.noisy_label != 2)))
