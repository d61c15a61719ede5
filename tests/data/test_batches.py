"""Batches from disk: the same as from memory, the same after a restart, and never with the truth in them."""

from dataclasses import replace
from itertools import islice

import chex
import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, ImageFiles, Split
from nlx.data.batches import eval_batches, train_batches
from nlx.data.decode import decode_all

N, SIZE = 23, 6


def rows_of_step(step):
    """Four rows that only this step visits together."""
    return np.random.default_rng(step).permutation(N)[:4]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = tuple(str(folder / f"{i}.png") for i in range(N))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(path)
    return ImageFiles(paths, SIZE)


@pytest.fixture
def split(files):
    return Split(files, (np.arange(N) % 5).astype(np.int32), (np.arange(N) % 7).astype(np.int32))


@pytest.fixture
def in_memory(split):
    return Split(decode_all(split.inputs.paths, SIZE), split.noisy_label, split.label)


def assert_same(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        chex.assert_trees_all_equal(batch, other, strict=True)


def test_batch_holds_the_rows_of_its_step_and_no_truth(split, in_memory):
    for step, batch in enumerate(islice(train_batches(split, rows_of_step), 8)):
        assert set(batch) == {"inputs", "noisy_label", "index"}
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["index"], rows_of_step(step))
        np.testing.assert_array_equal(batch["inputs"], in_memory.inputs[batch["index"]])
        np.testing.assert_array_equal(batch["noisy_label"], split.noisy_label[batch["index"]])


def test_trusted_labels_come_along(in_memory):
    trusting = replace(in_memory, trusted=np.arange(N) % 3 == 0)
    for batch in (next(train_batches(trusting, rows_of_step)), next(eval_batches(trusting, 4))[0]):
        np.testing.assert_array_equal(batch["trusted_label"], trusting.trusted_label[batch["index"]])


@pytest.mark.parametrize("start", [0, 1, 13, 1000])
@pytest.mark.parametrize("threads", [0, 1, 5])
def test_files_give_from_any_step_what_memory_gives_from_the_start(split, in_memory, start, threads):
    expected = list(islice(train_batches(in_memory, rows_of_step), start, start + 9))
    assert_same(islice(train_batches(split, rows_of_step, start, threads=threads), 9), expected)


@pytest.mark.parametrize("threads", [0, 1, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 23, 30])
def test_evaluation_goes_from_front_to_back_and_pads_the_last_batch(split, in_memory, batch_size, threads):
    for source in (split, in_memory):
        batches = list(eval_batches(source, batch_size, threads=threads))
        chex.assert_shape([b["inputs"] for b, _ in batches], (batch_size, SIZE, SIZE, 3))
        assert sum(count for _, count in batches) == N
        index = np.concatenate([b["index"][:count] for b, count in batches])
        np.testing.assert_array_equal(index, np.arange(N))
        inputs = np.concatenate([b["inputs"][:count] for b, count in batches])
        np.testing.assert_array_equal(inputs, in_memory.inputs)
        last, count = batches[-1]
        assert last["index"][count:].tolist() == [N - 1] * (batch_size - count)


def test_a_test_split_gives_inputs_alone(split):
    batch, _ = next(eval_batches(Split(split.inputs, None, split.label), 4))
    assert set(batch) == {"inputs", "index"}


def test_features_and_label_vectors():
    vectors = np.eye(4, dtype=np.uint8)[np.arange(N) % 4]
    split = Split(np.arange(3 * N, dtype=np.float32).reshape(N, 3), vectors, None)
    batch = next(train_batches(split, rows_of_step))
    expected = {"inputs": split.inputs, "noisy_label": vectors, "index": np.arange(N, dtype=np.int32)}
    assert_same([batch], [{name: array[rows_of_step(0)] for name, array in expected.items()}])


def test_broken_picture_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    split = Split(ImageFiles((str(path),), 4), np.zeros(1, np.int32), None)
    for batches in (train_batches(split, lambda step: np.array([0])), eval_batches(split, 1)):
        with pytest.raises(DataError, match=r"broken.png: not a readable picture"):
            next(batches)


def test_a_row_that_a_batch_has_again_is_the_same_picture(split, in_memory):
    rows = np.array([7, 2, 2, 9, 7, 9])
    again, expected = (next(train_batches(s, lambda step: rows)) for s in (split, in_memory))
    np.testing.assert_array_equal(again["inputs"], expected["inputs"])


def test_bad_arguments(in_memory):
    with pytest.raises(ValueError, match="start_step must not be negative, got -1"):
        train_batches(in_memory, rows_of_step, -1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        eval_batches(in_memory, 0)
