"""Folds, and that nobody is judged by a network that has seen its label."""

import jax
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.cleaning import folds
from nlx.cleaning.folds import folds_of, out_of_fold
from nlx.losses import cross_entropy
from nlx.methods.plain import per_class, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("labels", "folds"), [(RNG.integers(0, 3, 100), 5), (RNG.integers(0, 60, 61), 4)])
def test_folds_have_as_much_of_each_class(labels, folds):
    fold = folds_of(labels, folds, 0)
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 1
    for c in np.unique(labels):
        assert np.ptp(np.bincount(fold[labels == c], minlength=folds)) <= 1
    np.testing.assert_array_equal(fold, folds_of(labels, folds, 0))
    assert (fold != folds_of(labels, folds, 1)).any()


def test_vectors_are_split_as_evenly():
    fold = folds_of(RNG.integers(0, 2, (50, 4)), 5, 0)
    np.testing.assert_array_equal(np.bincount(fold), 10)


@pytest.mark.parametrize("folds", [1, 11])
def test_there_must_be_several_folds_and_not_more_than_examples(folds):
    with pytest.raises(ArgumentError, match=f"`folds` must lie between 2 and the 10 examples, got {folds}"):
        folds_of(np.zeros(10, int), folds, 0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_label_that_nothing_explains_is_not_predicted_out_of_fold(multi_label, key):
    # Features are the identity: a network can only know the examples that it was trained on.
    n = 24
    labels = RNG.integers(0, 2, n)
    loss, mesh = per_class if multi_label else cross_entropy, make_mesh(jax.devices()[:1])
    trainer = Trainer(build("mlp", (n,), 2, widths=()), plain(loss), optax.sgd(2.0), batch_size=6, mesh=mesh)
    given = np.eye(2, dtype=np.uint8)[labels] if multi_label else labels
    held_out = out_of_fold(trainer, (10 * np.eye(n), given), key, folds=4, stages=30)
    assert held_out.probs.shape == (n, 2)
    own = held_out.probs[np.arange(n), labels]
    assert own.mean() < 0.7
    member = held_out.fitted.member(0).state
    seen = trainer.predict(member, 10 * np.eye(n, dtype=np.float32), multi_label=multi_label)[np.arange(n), labels]
    assert np.sum(seen > 0.95) >= n * 3 // 4  # and each network knows its own three folds


def test_examples_are_predicted_some_at_a_time(key, monkeypatch):
    mesh = make_mesh(jax.devices()[:1])
    trainer = Trainer(build("mlp", (6,), 2, widths=()), plain(cross_entropy), optax.sgd(0.1), batch_size=6, mesh=mesh)
    data = RNG.normal(size=(24, 6)).astype(np.float32), RNG.integers(0, 2, 24)
    at_once = out_of_fold(trainer, data, key, folds=2, stages=1).probs
    counts, predict = [], trainer.predict
    monkeypatch.setattr(trainer, "predict", lambda s, x, **how: counts.append(len(x)) or predict(s, x, **how))
    monkeypatch.setattr(folds, "_ROWS", 5)
    np.testing.assert_allclose(out_of_fold(trainer, data, key, folds=2, stages=1).probs, at_once, rtol=1e-6)
    assert counts == [5, 5, 2, 5, 5, 2]
