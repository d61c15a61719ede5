"""Splits and data sets: rows are taken with their labels, and held-out examples leave the training part."""

from dataclasses import replace

import numpy as np
import pytest

from nlx.data import DataError, Dataset, ImageFiles, Split

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


def test_shapes_and_names():
    assert FILES.inputs.shape == (N, 8, 8, 3)
    assert len(FILES) == N
    assert (FILES.input_name, ARRAY.input_name) == ("image", "features")
    dataset = Dataset("x", ("a", "b", "c"), ARRAY, None)
    assert dataset.num_classes == 3
    assert not dataset.multi_label
    assert Dataset("x", ("a",), Split(ARRAY.inputs, np.zeros((N, 1), np.uint8), None), None).multi_label


@pytest.mark.parametrize("split", [ARRAY, FILES])
def test_hold_out_parts_the_training_split(split):
    dataset = Dataset("x", ("a", "b", "c"), split, None)
    rest, held = dataset.hold_out(0.2, seed=1)
    assert len(held) == 10
    assert sorted(rows_of(rest.train) + rows_of(held)) == list(range(N))
    assert rows_of(held) == sorted(rows_of(held))
    assert rows_of(dataset.hold_out(0.2, seed=1)[1]) == rows_of(held)
    assert rows_of(dataset.hold_out(0.2, seed=2)[1]) != rows_of(held)
    assert len(dataset.hold_out(1e-6, seed=1)[1]) == 1
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
