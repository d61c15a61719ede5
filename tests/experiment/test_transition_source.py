"""A matrix that is estimated from another run is estimated from predictions, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from nlx import transitions
from nlx.arguments import ArgumentError
from nlx.cleaning.table import label_table, write_labels
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


def test_out_of_fold_predictions_go_before_the_posterior(of):
    one_hot = np.eye(3, dtype=np.float32)[NOISY]
    np.testing.assert_array_equal(
        of(posterior=one_hot, chosen="bayes", out_of_fold=PREDICTED), expected(np.ones(N, bool))
    )


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
