"""Scores of predictions and posteriors, and what an evaluation adds to an epoch's row."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.data import Dataset, Split
from nlx.methods.method import Candidate, Column, Posterior, chosen_candidate
from nlx.methods.noise_layer import noise_layer
from nlx.methods.plain import cross_entropy, plain
from nlx.training.evaluation import (
    Evaluate,
    against,
    best,
    given_recovery,
    last,
    noisy_score,
    recovery,
    true_transition,
)
from nlx.training.observers import Observer
from nlx.training.stages import Stages
from tests.training.conftest import K, N

PLAIN = plain(cross_entropy)
RIGHT = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
WRONG = RIGHT[:, ::-1].copy()


def posterior(cost_right, cost_wrong, **columns):
    candidates = {
        "right": Candidate(RIGHT, np.full(2, cost_right)),
        "wrong": Candidate(WRONG, np.full(2, cost_wrong)),
    }
    return Posterior(candidates, {"classifier": Column(RIGHT, "belief"), **columns})


def test_labels_are_cleaned_with_the_cheaper_posterior_whether_right_or_not():
    labels = Split(RIGHT, None, np.array([0, 1]))
    assert recovery(posterior(1.0, 2.0), labels)["recovery"] == 1
    dear = recovery(posterior(2.0, 1.0), labels)
    assert dear == {"recovery": 0, "recovery_right": 1, "recovery_wrong": 0, "recovery_classifier": 1}
    assert "posterior_map_right" in recovery(posterior(1.0, 2.0), Split(RIGHT, None, np.eye(2, dtype=np.uint8)))


def test_what_a_method_could_look_up_is_not_recovered():
    split = Split(RIGHT, None, np.array([0, 0]))
    assert recovery(posterior(1.0, 2.0), split)["recovery"] == 0.5
    assert recovery(posterior(1.0, 2.0), replace(split, trusted=np.array([False, True])))["recovery"] == 1
    assert recovery(posterior(1.0, 2.0), replace(split, trusted=np.array([True, True]))) == {}
    score = Column(np.array([0.9, 0.1], np.float32), "outlier_score")
    row = recovery(posterior(1.0, 2.0, any_name=score), replace(split, outlier=np.array([True, False])))
    assert (row["recovery"], row["outlier_ap"]) == (0, 1)


def test_columns_are_known_by_their_kind_and_not_by_their_name():
    split = Split(RIGHT, None, np.array([0, 1]))
    label = Column(np.array([0, 0]), "label")
    row = recovery(posterior(1.0, 2.0, strange=label, some_label=Column(np.array([0, 1]))), split)
    assert row["recovery_strange"] == 0.5
    assert "recovery_some_label" not in row
    nothing_yet = recovery(posterior(1.0, 2.0, strange=Column(np.array([-1, -1]), "label")), split)
    assert "recovery_strange" not in nothing_yet


def test_wrong_labels_are_told_by_their_probability():
    q = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], np.float32)
    beliefs = Posterior({"q": Candidate(q, np.zeros(4))}, {"corrected": Column(np.array([0, -1, 1, 1]), "label")})
    split = Split(q, np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]))
    row = recovery(beliefs, split)
    assert row["issue_auc"] == 1
    assert row["recovery_corrected"] == 0.75
    given = np.array([0, 0, 0, 0])  # wrong where the true label is 1; given's q is .9 .6 .3 .2
    assert recovery(beliefs, replace(split, noisy_label=given))["issue_auc"] == 1
    mixed = replace(split, label=np.array([1, 0, 1, 1]), noisy_label=np.array([0, 0, 0, 1]))
    assert recovery(beliefs, mixed)["issue_auc"] == 0.5
    assert "issue_auc" not in recovery(beliefs, replace(split, noisy_label=split.label))


def test_scores_of_both_kinds_of_labels():
    assert against(RIGHT, np.array([0, 1])) == {"accuracy": 1, "balanced_accuracy": 1, "map": 1, "map_11_point": 1}
    assert against(RIGHT, np.eye(2, dtype=np.uint8)) == {"map": 1, "map_11_point": 1}
    assert noisy_score(RIGHT, np.array([0, 0])) == 0.5
    assert noisy_score(RIGHT, np.eye(2, dtype=np.uint8)) == 1


def test_best_knows_its_epoch_and_skips_epochs_without_a_score():
    rows = [{"epoch": 1, "test_map": 0.7}, {"epoch": 2}, {"epoch": 3, "test_map": 0.6, "train_loss": 9.0}]
    assert best(rows) == {"test_map": {"value": 0.7, "epoch": 1}}
    assert last([*rows, {"epoch": 4, "step": 9, "stage": "a", "test_map": 0.5}]) == {"test_map": 0.5}


@pytest.fixture(scope="module")
def data(split):
    rng = np.random.default_rng(0)
    test = Split(split.inputs[:30], None, rng.integers(0, K, 30).astype(np.int32))
    noisy = np.where(np.arange(N) % 4 == 0, (split.label + 1) % K, split.label).astype(np.int32)
    return Dataset("d", ("a", "b", "c"), replace(split, noisy_label=noisy), test)


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_evaluation_comes_every_so_many_epochs_and_after_the_last(data, every, evaluated):
    bare = replace(data, train=replace(data.train, label=None))
    scores = Evaluate(bare, every)
    scores.on_start(SimpleNamespace(method=PLAIN, evaluate=lambda state, split: {"map": 1.0}), Stages(5, N, N), None)
    rows = [{"epoch": epoch} for epoch in range(1, 6)]
    for row in rows:
        scores.score(None, row)
    assert [row["epoch"] for row in rows if "test_map" in row] == evaluated


def test_an_epochs_row_has_all_scores_that_the_data_allow(data, trainer_for):
    held_out = data.hold_out(0.2, 0)
    method = noise_layer(K, learn_from=0)
    seen = []
    trainer = trainer_for(held_out.train, method, observers=[Evaluate(held_out, 2), seen.append])
    fitted = trainer.fit(held_out.train, jax.random.key(0), 5)
    scored = [row["epoch"] for row in fitted.history if "test_accuracy" in row]
    assert scored == [2, 4, 5]
    row, state = fitted.history[-1], fitted.state
    assert row is seen[-1]
    accuracy = np.mean(trainer.scores(state, data.test).argmax(1) == data.test.label)
    assert row["test_accuracy"] == pytest.approx(accuracy)
    validation = held_out.validation
    correct = trainer.scores(state, validation).argmax(1) == validation.noisy_label
    assert row["validation_score"] == pytest.approx(correct.mean())
    train = held_out.train
    cleaned = trainer.posterior(state, train).candidates["bayes"].probs.argmax(1)
    assert row["recovery"] == pytest.approx(np.mean(cleaned == train.label))
    truth = true_transition(held_out)
    assert row["transition_mae"] == pytest.approx(
        np.abs(np.asarray(state.params["method"]["transition"]) - truth).mean()
    )
    assert {"test_map", "test_map_11_point", "recovery_bayes", "recovery_classifier", "issue_auc"} <= set(row)


def test_before_the_last_epoch_some_labels_count_and_then_all(data, trainer_for):
    class Keeps(Observer):
        states = ()

        def on_epoch(self, state, row):
            self.states += (jax.tree.map(jnp.copy, state),)

    method, keeps = remembering_plain(), Keeps()
    trainer = trainer_for(data.train, method, observers=[Evaluate(data, most=40), keeps])
    history = trainer.fit(data.train, jax.random.key(0), 2).history
    some = np.sort(np.random.default_rng(0).choice(N, 40, replace=False))
    for state, row, rows in zip(keeps.states, history, (some, np.arange(N)), strict=True):
        whole = trainer.posterior(state, data.train)
        belief = whole.candidates[chosen_candidate(whole)].probs
        right = belief.argmax(1) == data.train.label
        assert row["recovery"] == pytest.approx(right[rows].mean())
        part = trainer.posterior(state, data.train, rows=rows)
        np.testing.assert_allclose(part.candidates[chosen_candidate(part)].probs, belief[rows], rtol=1e-5)
        np.testing.assert_array_equal(part.columns["index"].values, rows)  # memory goes by position


def remembering_plain():
    """Plain training whose posterior shows what is kept at each row's place."""

    def init(key, outputs, num_classes, size):
        return {}, jnp.arange(size)

    def loss(key, params, memory, outputs, batch, step):
        return PLAIN.loss(key, params, (), outputs, batch, step)[0], memory, {}

    def posterior(params, memory, outputs, batch):
        given = PLAIN.posterior(params, (), outputs, batch)
        return given._replace(columns={"index": Column(memory)})

    return PLAIN._replace(init=init, loss=loss, posterior=posterior)


def test_without_truth_and_test_set_there_is_nothing_to_add(data, trainer_for):
    bare = replace(data, train=replace(data.train, label=None), test=None)
    trainer = trainer_for(bare.train, PLAIN, observers=[Evaluate(bare)])
    row = trainer.fit(bare.train, jax.random.key(0), 1).history[0]
    assert set(row) == {"epoch", "step", "seconds", "examples_per_second", "train_loss"}


def test_what_is_given_and_how_it_came_about(data):
    assert given_recovery(data) == pytest.approx(0.75)
    truth = true_transition(data)
    np.testing.assert_allclose(truth.sum(axis=1), 1, rtol=1e-6)
    for i, j in np.ndindex(K, K):
        own = data.train.label == i
        assert truth[i, j] == pytest.approx(np.mean(data.train.noisy_label[own] == j))
    unknown = replace(data, train=replace(data.train, label=None))
    assert given_recovery(unknown) is None
    assert true_transition(unknown) is None
    vectors = np.eye(K, dtype=np.uint8)
    several = replace(
        data,
        train=replace(data.train, noisy_label=vectors[data.train.noisy_label], label=vectors[data.train.label]),
    )
    assert true_transition(several).shape == (K, 2, 2)


def test_evaluate_compares_with_true_labels_where_there_are_some(data, trainer_for):
    trainer = trainer_for(data.train, PLAIN)
    state = trainer.init(jax.random.key(0), data.train)
    guess = trainer.scores(state, data.train).argmax(1)
    assert trainer.evaluate(state, data.train)["accuracy"] == pytest.approx(np.mean(guess == data.train.label))
    pair = (data.train.inputs, data.train.noisy_label)
    assert trainer.evaluate(state, pair)["accuracy"] == pytest.approx(np.mean(guess == data.train.noisy_label))
    with pytest.raises(ArgumentError, match="no labels to compare"):
        trainer.evaluate(state, Split(data.train.inputs, None, None))
    assert jnp.isfinite(trainer.evaluate(state, data.test)["map"])
