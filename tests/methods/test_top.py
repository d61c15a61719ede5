"""The likeliest classes in place of all: the same labels, scores and files, in rows that need no [n, K]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.cleaning.guard import best_belief
from nlx.cleaning.held_out import judge
from nlx.cleaning.label_files import read_labels, write_labels
from nlx.cleaning.readme import write_readme
from nlx.cleaning.reasons import reasons
from nlx.cleaning.table import label_table, with_trusted
from nlx.data import Split
from nlx.methods.method import Candidate, Column, Posterior
from nlx.methods.top import COUNT, Top, likeliest, shortened, worth_shortening
from nlx.training.evaluation import recovery

RNG = np.random.default_rng(0)
N, K = 200, 50
PROBS = RNG.dirichlet(np.full(K, 0.03), N).astype(np.float32)
LABELS = RNG.integers(0, K, N).astype(np.int32)
TRUE = np.where(RNG.random(N) < 0.5, PROBS.argmax(1), LABELS).astype(np.int32)


@pytest.fixture(scope="module")
def top():
    return jax.tree.map(np.asarray, jax.jit(likeliest)(PROBS, LABELS))


def posterior(*beliefs):
    one, two = beliefs
    candidates = {"one": Candidate(one, np.zeros(N, np.float32)), "two": Candidate(two, np.ones(N, np.float32))}
    return Posterior(candidates, {"classifier": Column(two, "belief"), "kind": Column(jnp.ones((N, 3)))})


def test_rows_are_those_of_all_classes_up_to_half_precision(top):
    assert top.shape == PROBS.shape
    np.testing.assert_array_equal(np.argmax(top, axis=1), PROBS.argmax(1))
    np.testing.assert_array_equal(top.best, PROBS.max(1))
    rows = np.array([3, 0, 7])
    np.testing.assert_allclose(top[rows], PROBS[rows], atol=2e-3)
    np.testing.assert_array_equal(top[np.arange(N)].argmax(1), PROBS.argmax(1))
    np.testing.assert_allclose(top[rows].sum(1), 1, atol=2e-3)
    assert top[5, int(PROBS[5].argmax())] == PROBS[5].max()


def test_single_entries_are_those_of_the_rows(top):
    for classes in (PROBS.argmax(1), LABELS, RNG.integers(0, K, N)):
        np.testing.assert_array_equal(top.entries(classes), top[np.arange(N)][np.arange(N), classes])


def test_the_likeliest_are_found_without_sorting_all():
    text = jax.jit(likeliest).lower(PROBS, LABELS).compile().as_text()
    assert " sort(" not in text


def test_labels_scores_and_reasons_are_the_same_and_come_back_from_a_file(top, tmp_path):
    names = tuple(map(str, range(K)))
    whole, short = (label_table(p, LABELS, class_names=names, extras={"other": p}) for p in (PROBS, top))
    for column in ("cleaned_label", "probability", "label_score", "issue_rank"):
        np.testing.assert_array_equal(getattr(short, column), getattr(whole, column))
    assert reasons(short) == reasons(whole)
    some = np.array([5, 0, 9])
    assert reasons(whole, some) == [reasons(whole)[row] for row in some]
    for table, kept in ((whole, False), (short, True)):
        write_readme(tmp_path / "README.txt", table)
        assert ("the likeliest (classes, probs)" in (tmp_path / "README.txt").read_text()) == kept
    held_out = label_table(likeliest(PROBS[:9], LABELS[:9]), LABELS[:9], class_names=names)
    write_labels(tmp_path / "labels.parquet", short, {"test": held_out})
    read = read_labels(tmp_path / "labels.parquet")
    assert isinstance(read.extras["other"], Top)
    for name in ("classes", "probs", "best", "given"):
        np.testing.assert_array_equal(getattr(read.posterior, name), getattr(top, name))
    assert read.posterior.shape == (N, K)
    assert read.posterior.probs.dtype == np.float16


def test_beliefs_are_chosen_and_scored_as_whole_ones_are():
    split = Split(RNG.normal(size=(N, 4)).astype(np.float32), LABELS, TRUE)
    whole = posterior(PROBS, PROBS[::-1].copy())
    short = jax.tree.map(np.asarray, jax.jit(shortened)(whole, LABELS))
    assert isinstance(short.columns["classifier"].values, Top)
    assert short.columns["kind"].values.shape == (N, 3)
    assert recovery(short, split) == recovery(whole, split)
    judged = judge(np.arange(N), split.inputs, LABELS, K)
    chosen = [best_belief(judged, p) for p in (whole, short)]
    assert chosen[0].name == chosen[1].name
    assert chosen[0].merits == chosen[1].merits


def test_columns_that_are_no_beliefs_are_left_out_where_they_are_as_wide():
    wide = Posterior({"one": Candidate(PROBS, np.zeros(N))}, {"sigma": Column(jnp.asarray(PROBS))})
    assert not shortened(wide, jnp.asarray(LABELS)).columns
    narrow = Posterior({"one": Candidate(PROBS[:, : 4 * COUNT], np.zeros(N))}, {})
    assert shortened(narrow, jnp.asarray(LABELS)).candidates["one"].probs.shape == (N, 4 * COUNT)


def test_trusted_labels_are_certain(top):
    trusted = np.arange(N) % 3 == 0
    split = Split(np.zeros((N, 1), np.float32), LABELS, TRUE, trusted)
    whole, short = (with_trusted(p, split) for p in (PROBS, top))
    np.testing.assert_allclose(short[np.arange(N)], whole, atol=0.02)
    np.testing.assert_array_equal(short[np.flatnonzero(trusted)], whole[trusted])
    assert all(len(set(row)) == COUNT for row in short.classes)
    np.testing.assert_array_equal(short.entries(LABELS)[trusted], whole[np.arange(N), LABELS][trusted])
    np.testing.assert_array_equal(short.given, whole[np.arange(N), LABELS])


def test_labels_known_to_be_wrong_are_excluded(top):
    wrong = np.arange(N) % 3 == 0
    certain = np.where(wrong, PROBS.argmax(axis=1), LABELS).astype(np.int32)  # of the likeliest class, and of any
    for given in (LABELS, certain):
        short = jax.tree.map(np.asarray, likeliest(PROBS, given))
        split = Split(np.zeros((N, 1), np.float32), given, np.full(N, -1), np.zeros(N, bool), wrong=wrong)
        whole, short = (with_trusted(p, split) for p in (PROBS, short))
        assert (short.argmax() != given)[wrong].all()
        assert all(len(set(row)) == COUNT for row in short.classes)
        known = PROBS[np.arange(N), given] < 0.9999  # of what is left then, half precision knows no more
        np.testing.assert_allclose(short[np.flatnonzero(known)], whole[known], atol=0.02)
        assert not short.entries(given)[wrong].any()
        assert not short[np.arange(N)][np.arange(N), given][wrong].any()
        np.testing.assert_allclose(short[np.arange(N)].sum(axis=1), 1, atol=0.02)
        assert (short[np.arange(N)].argmax(axis=1) == short.argmax()).all()
        np.testing.assert_allclose(short.given[wrong], 0)


@pytest.mark.parametrize("p", [0.9, 0.9985, 0.9995, 0.99999, 1.0])
def test_what_an_excluded_class_leaves_is_shared_by_all_others(p):
    k = 1000
    probs = np.full((1, k), (1 - p) / (k - 1), np.float32)
    probs[0, 7] = p
    given = np.array([7])
    short = jax.tree.map(np.asarray, likeliest(probs, given)).without(given, np.array([True]))
    row = short[0]
    assert row[7] == 0
    np.testing.assert_allclose(np.delete(row, 7), 1 / (k - 1), rtol=0.02)


def test_few_classes_are_kept_however_many_examples():
    """As they are by what shortens: held-out rows stand beside training ones in one file."""
    for k, wide in ((4 * COUNT, False), (4 * COUNT + 1, True)):
        assert worth_shortening(10**9, k, 0) == wide
        beliefs = np.full((3, k), 1 / k, np.float32)
        short = shortened(Posterior({"one": Candidate(beliefs, np.zeros(3))}, {}), np.zeros(3, np.int32))
        assert isinstance(short.candidates["one"].probs, Top) == wide
    assert not worth_shortening(1000, 1000, 4e6)
