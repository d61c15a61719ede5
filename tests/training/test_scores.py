from dataclasses import replace

import numpy as np
import pytest

from nlx.data import Split
from nlx.methods.method import Posterior
from nlx.training.scores import best, cheapest, clean_scores, noisy_score, over_seeds, recovery_scores

RIGHT = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
WRONG = RIGHT[:, ::-1]


def posterior(cost_right, cost_wrong):
    candidates = {"right": RIGHT, "wrong": WRONG}
    costs = {"right": np.full(2, cost_right), "wrong": np.full(2, cost_wrong)}
    return Posterior(candidates, costs, {"classifier": RIGHT})


def test_labels_are_cleaned_with_the_cheaper_posterior_whether_right_or_not():
    labels = Split(RIGHT, None, np.array([0, 1]))
    assert cheapest(posterior(1.0, 2.0)) == "right"
    assert recovery_scores(posterior(1.0, 2.0), labels)["recovery"] == 1
    dear = recovery_scores(posterior(2.0, 1.0), labels)
    assert dear == {"recovery": 0, "recovery_right": 1, "recovery_wrong": 0, "recovery_classifier": 1}
    assert "posterior_map_right" in recovery_scores(posterior(1.0, 2.0), Split(RIGHT, None, np.eye(2, dtype=np.uint8)))


def test_what_a_method_could_look_up_is_not_recovered():
    split = Split(RIGHT, None, np.array([0, 0]))
    assert recovery_scores(posterior(1.0, 2.0), split)["recovery"] == 0.5
    trusted = replace(split, trusted=np.array([False, True]))
    assert recovery_scores(posterior(1.0, 2.0), trusted)["recovery"] == 1
    outliers = replace(split, outlier=np.array([True, False]))
    found = posterior(1.0, 2.0)._replace(extras={"outlier_score": np.array([0.9, 0.1], np.float32)})
    row = recovery_scores(found, outliers)
    assert (row["recovery"], row["outlier_ap"]) == (0, 1)


def test_wrong_labels_are_told_by_their_probability():
    q = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], np.float32)
    only = Posterior({"q": q}, {"q": np.zeros(4)}, {"corrected_label": np.array([0, -1, 1, 1])})
    split = Split(q, np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]))
    row = recovery_scores(only, split)
    assert row["issue_auc"] == 1
    assert row["recovery_corrected_label"] == 0.75
    given = np.array([0, 0, 0, 0])  # wrong where the true label is 1; given's q is .9 .6 .3 .2
    assert recovery_scores(only, replace(split, noisy_label=given))["issue_auc"] == 1
    assert recovery_scores(only, replace(split, noisy_label=np.array([1, 0, 1, 0])))["issue_auc"] == 1
    mixed = replace(split, label=np.array([1, 0, 1, 1]), noisy_label=np.array([0, 0, 0, 1]))
    assert recovery_scores(only, mixed)["issue_auc"] == 0.5
    assert "issue_auc" not in recovery_scores(only, replace(split, noisy_label=split.label))


def test_scores_of_both_kinds_of_labels():
    assert clean_scores(RIGHT, np.array([0, 1])) == {"test_accuracy": 1, "test_map": 1, "test_map_11_point": 1}
    assert clean_scores(RIGHT, np.eye(2, dtype=np.uint8)) == {"test_map": 1, "test_map_11_point": 1}
    assert noisy_score(RIGHT, np.array([0, 0])) == 0.5
    assert noisy_score(RIGHT, np.eye(2, dtype=np.uint8)) == 1


def test_best_knows_its_epoch_and_skips_epochs_without_a_score():
    rows = [{"epoch": 1, "test_map": 0.7}, {"epoch": 2}, {"epoch": 3, "test_map": 0.6, "train_loss": 9.0}]
    assert best(rows) == {"test_map": {"value": 0.7, "epoch": 1}}


def test_seeds_are_summed_up_as_mean_and_sample_deviation():
    def one(seed, value):
        known = {"method": "can", "dataset": "d", "epochs": 1, "given_label_recovery": 0.6, "versions": {}}
        last, high = {"test_map": value}, {"test_map": {"value": value + 0.1, "epoch": 1}}
        return known | {"seeds": [seed], "cleaned_with": "bayes", "last": last, "best": high, "wall_seconds": 2.0}

    summary = over_seeds([one(3, 0.5), one(4, 0.7)])
    assert summary["seeds"] == [3, 4]
    assert summary["last"]["test_map"] == {"mean": pytest.approx(0.6), "std": pytest.approx(0.02**0.5)}
    assert summary["best"]["test_map"]["mean"] == pytest.approx(0.7)
    assert summary["wall_seconds"] == 4
