"""Splits and data sets: rows are taken with their labels, and held-out examples leave the training part."""

import numpy as np
import pytest

from nlx.data import Dataset, ImageFiles, Split

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
