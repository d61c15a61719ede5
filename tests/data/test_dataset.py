"""Splits and data sets: rows are taken with their labels, and held-out examples leave the training part."""

from dataclasses import replace

import numpy as np
import pytest

from nlx.data import DataError, Dataset, ImageFiles, Split, split_of, with_upsampled
from nlx.data.words import said_of_classes

N = 50
LABEL = np.arange(N, dtype=np.int32) % 3
ARRAY = Split(np.arange(N, dtype=np.float32)[:, None], LABEL, LABEL + 10)
FILES = Split(ImageFiles(tuple(f"{i}.png" for i in range(N)), 8), LABEL, None)


def rows_of(split):
    if isinstance(split.inputs, ImageFiles):
        return [int(p.removesuffix(".png")) for p in split.inputs.paths]
    return split.inputs[:, 0].astype(int).tolist()


@pytest.mark.parametrize("split", [ARRAY, FILES])
def test_take_keeps_rows_together(split):
    rows = np.array([7, 3, 3])
    taken = split.take(rows)
    assert rows_of(taken) == [7, 3, 3]
    assert taken.noisy_label.tolist() == LABEL[rows].tolist()
    assert (taken.label is None) == (split.label is None)
    if split.label is not None:
        assert taken.label.tolist() == (LABEL[rows] + 10).tolist()


def test_what_a_data_set_says_of_itself():
    assert (FILES.inputs.shape, FILES.inputs.dtype) == ((N, 8, 8, 3), np.uint8)
    assert len(FILES) == N
    dataset = Dataset("x", ("a", "b", "c"), ARRAY, None)
    assert dataset.num_classes == 3
    assert dataset.input_shape == (1,)
    assert replace(dataset, train=FILES).input_shape == (8, 8, 3)
    assert not dataset.multi_label
    assert Dataset("x", ("a",), Split(ARRAY.inputs, np.zeros((N, 1), np.uint8), None), None).multi_label
    assert ARRAY.observed is LABEL
    with pytest.raises(DataError, match="there are no noisy labels"):
        replace(ARRAY, noisy_label=None).observed  # noqa: B018


@pytest.mark.parametrize("split", [ARRAY, FILES])
def test_hold_out_parts_the_training_split(split):
    dataset = Dataset("x", ("a", "b", "c"), split, None)
    parted = dataset.hold_out(0.2, seed=1)
    held = rows_of(parted.validation)
    assert len(held) == 10
    assert sorted(rows_of(parted.train) + held) == list(range(N))
    assert held == sorted(held)
    np.testing.assert_array_equal(parted.validation.noisy_label, LABEL[held])
    assert rows_of(dataset.hold_out(0.2, seed=1).validation) == held
    assert rows_of(dataset.hold_out(0.2, seed=2).validation) != held
    assert len(dataset.hold_out(1e-6, seed=1).validation) == 1
    assert dataset.validation is None
    assert len(dataset.train) == N


def test_trusted_labels_are_negative_where_they_are_not_to_be_known():
    label = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    split = Split(np.zeros((3, 1), np.float32), label, label, trusted=np.array([True, False, True]))
    np.testing.assert_array_equal(split.trusted_label, [[1, 0], [-1, -1], [1, 1]])
    assert split.trusted_label.dtype == np.int32
    classes = replace(split, label=np.array([2, 1, 0], np.int32), outlier=np.array([False, True, True]))
    np.testing.assert_array_equal(classes.trusted_label, [2, -1, -2])
    np.testing.assert_array_equal(classes.scored, [False, False, False])
    assert replace(split, trusted=None).trusted_label is None
    np.testing.assert_array_equal(split.take(np.array([1, 2])).trusted, [False, True])


def test_another_vocabulary_is_translated_by_name():
    noisy = np.array([[1, 0, 1], [0, 1, 1]], np.uint8)
    train = Split(np.zeros((2, 1), np.float32), noisy, np.eye(2, dtype=np.uint8))
    data = Dataset("x", ("cat", "dog"), train, None, noisy_names=("big", "nice", "cat"))
    np.testing.assert_array_equal(data.given(train), [[1, 0], [1, 0]])
    same = data.in_classes()
    assert same.noisy_names is None
    np.testing.assert_array_equal(same.train.noisy_label, [[1, 0], [1, 0]])
    assert same.in_classes() is same
    held_out = replace(data, validation=train.take(np.array([1]))).in_classes()
    np.testing.assert_array_equal(held_out.given(held_out.validation), [[1, 0]])


def test_a_class_is_said_by_any_of_its_words_and_by_all_words_of_a_long_one():
    noisy = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]], np.uint8)
    names = ("fire", "puppy", "hydrant", "dog")
    classes = ("dog", "fire hydrant", "hydrant", "cat", "hot dog")
    said = said_of_classes(noisy, names, classes, {"dog": ("dog", "puppy", "hound")})
    assert said.dtype == np.uint8
    np.testing.assert_array_equal(said, [[0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0]])
    data = Dataset(
        "x", classes, Split(np.zeros((3, 1), np.float32), noisy, None), None, names, words={"cat": ("puppy",)}
    )
    np.testing.assert_array_equal(data.in_classes().train.noisy_label[:, 3], [0, 1, 0])


def test_trust_keep_and_known_outliers():
    n = 1000
    train = Split(
        np.zeros((n, 1), np.float32), np.zeros(n, np.int32), np.zeros(n, np.int32), outlier=np.arange(n) < 400
    )
    data = Dataset("x", ("a", "b"), train, None)
    trusted = data.trust(0.1, 0).train.trusted
    assert trusted.sum() == 100
    np.testing.assert_array_equal(trusted, data.trust(0.1, 0).train.trusted)
    assert (trusted != data.trust(0.1, 1).train.trusted).any()
    known = data.know_outliers(0.25, 0).train
    assert known.trusted.sum() == 100
    assert known.outlier[known.trusted].all()
    assert data.trust(0.1, 0).know_outliers(0.25, 0).train.trusted.sum() >= 160
    kept = [np.flatnonzero(data.keep(share, 0).train.outlier) for share in (0.2, 0.5)]
    assert len(data.keep(0.2, 0).train) == 200
    assert len(kept[0]) < len(kept[1])
    with pytest.raises(DataError, match="x has no known outliers"):
        replace(data, train=replace(train, outlier=None)).know_outliers(0.1, 0)
    with pytest.raises(DataError, match="x has no true training labels to trust"):
        replace(data, train=replace(train, label=None)).trust(0.1, 0)


def test_trusted_examples_are_upsampled_to_half_the_number_of_the_others():
    trusted = np.random.default_rng(0).uniform(size=200) < 0.1
    counts = np.bincount(with_upsampled(trusted, 0), minlength=200)
    np.testing.assert_array_equal(counts[~trusted], 1)
    assert counts[trusted].sum() == (~trusted).sum() // 2
    assert np.ptp(counts[trusted]) <= 1
    np.testing.assert_array_equal(with_upsampled(trusted, 0), with_upsampled(trusted, 0))
    assert (with_upsampled(trusted, 0) != with_upsampled(trusted, 1)).any()
    # Where most are trusted, each still comes once.
    np.testing.assert_array_equal(np.sort(with_upsampled(~trusted, 0)), np.arange(200))
    for none in (np.zeros(5, bool), np.ones(5, bool)):
        with pytest.raises(DataError, match="choose `clean_fraction` between 0 and 1"):
            with_upsampled(none, 0)
    with pytest.raises(DataError, match=r"`trusted` must be bool \[n\], got int64 \[200\]"):
        with_upsampled(trusted.astype(int), 0)


@pytest.mark.parametrize("inputs", [np.ones((4, 2), np.float16), np.ones((4, 5, 2)), np.zeros((4, 8, 8, 1), np.uint8)])
@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 1], np.arange(4, dtype=np.uint8), np.eye(4, dtype=int), np.eye(4, dtype=bool), None]
)
def test_a_split_of_plain_arrays(inputs, labels):
    split = split_of(inputs, labels)
    np.testing.assert_array_equal(split.inputs, inputs)
    assert split.inputs.dtype == (np.uint8 if inputs.dtype == np.uint8 else np.float32)
    assert split.label is None
    if labels is None:
        assert split.noisy_label is None
    else:
        np.testing.assert_array_equal(split.noisy_label, labels)
        assert split.noisy_label.dtype == (np.int32 if np.ndim(labels) == 1 else np.uint8)


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.ones((2, 3), int), [0, 1], r"`inputs` has dtype int64: features must be floating point"),
        (np.ones(2), [0, 1], r"`inputs` has shape \(2,\): features must be \[n, F\]"),
        (np.ones((2, 3, 4), np.uint8), [0, 1], r"add a channel axis"),
        (np.ones((2, 4, 4, 2), np.uint8), [0, 1], "the last axis must be 1 or 3 channels"),
        (np.array([[0.0], [np.nan]]), [0, 1], "`inputs` row 1 is not finite, nan in column 0"),
        (np.array([[[0.0, 1.0]], [[np.inf, 0.0]]]), [0, 1], "`inputs` row 1 is not finite, inf in column 0, 0"),
        (np.ones((0, 3)), [], r"`inputs` is empty"),
        (np.ones((2, 3)), [0, 1, 1], "`labels` has 3 rows but `inputs` has 2"),
        (np.ones((2, 3)), [0.0, 1.0], "`labels` has dtype float64: labels must be integers"),
        (np.ones((2, 3)), [0, -1], "`labels` row 1 is -1, no class number"),
        (np.ones((2, 3)), [[0, 2], [1, 0]], "`labels` row 0 holds 2: a label matrix"),
    ],
)
def test_plain_arrays_that_cannot_be_trained_on_are_named(inputs, labels, message):
    with pytest.raises(DataError, match=message):
        split_of(inputs, labels)
