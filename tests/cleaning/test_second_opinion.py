"""Second opinions: taken where a system's own belief does not help, and left alone where it does."""

import numpy as np
import pytest
from scipy.special import softmax

from nlx.cleaning.estimates import Interval
from nlx.cleaning.evidence import joined, weigh
from nlx.cleaning.guard import Belief, guard_of
from nlx.cleaning.held_out import judge, rows_to_judge
from nlx.cleaning.second_opinion import Opinion, settled
from nlx.cleaning.table import label_table, with_trusted
from nlx.data.dataset import Split

RNG = np.random.default_rng(0)
N, K = 600, 3
TRUE = np.repeat([0, 1, 2], 200).astype(np.int32)
NOISY = np.where(RNG.uniform(size=N) < 0.2, (TRUE + RNG.integers(1, K, N)) % K, TRUE).astype(np.int32)
X = (4 * np.eye(K, 6)[TRUE] + RNG.normal(size=(N, 6))).astype(np.float32)
JUDGED = judge(rows_to_judge(N), X, NOISY, K)
SPLIT = Split(X, NOISY, TRUE)


JUDGED_TABLE = Opinion(None, guard_of(JUDGED, label_table(np.eye(K)[TRUE], NOISY)))


def sure_of(labels, surest=0.9):
    return np.where(np.eye(K)[labels] == 1, surest, (1 - surest) / (K - 1)).astype(np.float32)


EVIDENCE = softmax(2 * X[:, :K], axis=1)  # from the inputs alone


def by(own, evidence=lambda: EVIDENCE, split=SPLIT, judged=JUDGED):
    def built(probs, chosen):
        return label_table(with_trusted(probs, split), split.observed, chosen=chosen, true_label=TRUE)

    return settled(judged, Belief("classifier", own, {}), split, built, evidence)


def right(table):
    return np.mean(table.cleaned_label == TRUE)


def never():
    raise AssertionError("nobody was to be asked")


def test_what_is_good_stands_and_asks_nobody():
    table = by(sure_of(TRUE), never)
    assert (table.chosen, table.guard["verdict"], "own" in table.guard) == ("classifier", "better", False)


@pytest.mark.parametrize(
    ("labels", "least"), [(NOISY, 0.95), ((NOISY + (np.arange(N) % 5 == 0)) % K, 0.9)], ids=["copied", "worse"]
)
def test_what_does_not_help_is_joined(labels, least):
    own = sure_of(labels, 0.8)
    table = by(own)
    assert (table.chosen, table.guard["verdict"]) == ("classifier_joined", "better")
    assert right(table) > max(least, np.mean(NOISY == TRUE))
    np.testing.assert_array_equal(table.extras["classifier_posterior"], own)
    assert table.guard["own"]["verdict"] in ("worse", "open")


def test_what_is_stubbornly_wrong_is_set_aside():
    wrong = np.where(np.arange(N) % 2 == 0, (TRUE + 1) % K, TRUE)
    modest = softmax(X[:, :K], axis=1)
    table = by(sure_of(wrong, 1 - 1e-9), lambda: modest)
    assert (table.chosen, table.guard["own"]["verdict"]) == ("second_opinion", "worse")
    assert table.guard["asked"] == ["classifier", "classifier_joined", "second_opinion"]
    np.testing.assert_allclose(table.posterior, weigh(modest, NOISY).posterior, atol=1e-6)


def test_what_joined_is_no_better_than_given_gives_way_to_what_is():
    """The belief is so sure of the given labels that half of its weight brings them back."""
    table = by(sure_of(NOISY, 1 - 1e-7), lambda: softmax(X[:, :K], axis=1))
    assert table.guard["asked"] == ["classifier", "classifier_joined", "second_opinion"]
    assert (table.chosen, table.guard["verdict"], table.guard["own"]["verdict"]) == ("second_opinion", "better", "open")
    assert right(table) > np.mean(NOISY == TRUE) + 0.1


def test_of_few_examples_evidence_alone_is_for_labels_that_look_worse():
    few = np.arange(0, N, 10)
    split = Split(X[few], NOISY[few], TRUE[few])
    wide = np.hstack([X[few], RNG.normal(size=(len(few), 14)).astype(np.float32)])
    judged = judge(rows_to_judge(len(few)), wide, NOISY[few], K)
    assert judged.sparse
    assert not JUDGED.sparse

    def asked(labels):
        def built(probs, chosen):
            return label_table(with_trusted(probs, split), split.observed, chosen=chosen)

        own = Belief("classifier", sure_of(labels, 1 - 1e-7), {})
        return settled(judged, own, split, built, lambda: softmax(X[few, :K], axis=1)).guard.get("asked")

    assert asked(NOISY[few]) == ["classifier", "classifier_joined"]
    assert "second_opinion" in asked((NOISY[few] + 1) % K)


def test_right_labels_count_before_a_class_that_may_be_lost():
    def opinion(gain, lost):
        guard = JUDGED_TABLE.guard._replace(gain=Interval(gain, gain, gain), lost=lost)
        return JUDGED_TABLE._replace(guard=guard)

    order = [opinion(-0.05, ["a"]), opinion(-0.05, []), opinion(0.01, ["a"]), opinion(0.01, []), opinion(0.02, [])]
    assert sorted([*order[2:], *order[:2]], key=lambda o: o.standing) == order


def test_bad_evidence_does_not_displace_what_is_less_bad():
    table = by(sure_of(NOISY), lambda: sure_of((TRUE + 1) % K, 1 - 1e-9))
    assert (table.chosen, "own" in table.guard) == ("classifier", False)
    assert len(table.guard["asked"]) == 3


def test_without_evidence_a_belief_stands_as_it_is():
    wrong = (TRUE + 1) % K
    table = by(sure_of(wrong), None)
    assert (table.chosen, table.guard["verdict"]) == ("classifier", "worse")
    np.testing.assert_array_equal(table.cleaned_label, wrong)


def test_several_labels_to_an_example_ask_nobody():
    given = np.eye(K, dtype=np.uint8)[NOISY]
    split = Split(X, given, None)
    judged = judge(rows_to_judge(N), X, given, K)

    def built(probs, chosen):
        return label_table(probs, given, chosen=chosen)

    own = Belief("classifier", 1 - sure_of(TRUE), {})
    assert settled(judged, own, split, built, never).chosen == "classifier"


def test_trusted_labels_stay_certain():
    trusted = np.arange(N) % 10 == 0
    split = Split(X, NOISY, TRUE, trusted)
    table = by(sure_of((NOISY + (np.arange(N) % 3 == 1)) % K, 0.8), split=split)
    assert table.chosen == "classifier_joined"
    np.testing.assert_allclose(table.posterior[trusted], np.eye(K)[TRUE[trusted]])


def test_joined_is_the_formula():
    own = softmax(RNG.normal(size=(N, K)), axis=1)
    found = weigh(EVIDENCE, NOISY)
    logs = (np.log(own) + found.power * np.log(np.maximum(EVIDENCE.astype(float), 1e-12))) / 2
    expected = softmax(logs + np.log(found.transition.astype(float)).T[NOISY], axis=1)
    np.testing.assert_allclose(joined(own, EVIDENCE, NOISY), expected, atol=2e-5)


def test_joined_is_finite_where_both_are_certain_of_different_classes():
    q = joined(np.eye(K)[TRUE], np.eye(K)[(TRUE + 1) % K], NOISY)
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(axis=1), 1, atol=1e-5)
