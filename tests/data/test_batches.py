"""Batches from disk: the same as from memory, the same after a restart, and never with the truth in them."""

from itertools import islice

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, ImageFiles, Split
from nlx.data.batches import read, stream
from nlx.data.decode import decode_all
from nlx.training.stages import Course

N, SIZE = 23, 6


def whole(split, batch_size):
    return Course.whole(len(split), batch_size, 1)


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
        assert batch.keys() == other.keys()
        for key in batch:
            assert batch[key].dtype == other[key].dtype
            np.testing.assert_array_equal(batch[key], other[key])


def test_batch_holds_the_rows_it_names_and_no_truth(split, in_memory):
    for batch in islice(stream(split, whole(split, 4), seed=1), 8):
        assert set(batch) == {"image", "noisy_label", "index"}
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"], in_memory.inputs[batch["index"]])
        np.testing.assert_array_equal(batch["noisy_label"], split.noisy_label[batch["index"]])


def test_files_and_memory_give_the_same_batches(split, in_memory):
    assert_same(
        islice(stream(split, whole(split, 4), seed=1), 12),
        list(islice(stream(in_memory, whole(in_memory, 4), seed=1), 12)),
    )


def test_epochs_hold_every_example_once_but_the_remainder(in_memory):
    batches = list(islice(stream(in_memory, whole(in_memory, 5), seed=2), 4 * 50))
    epochs = np.stack([b["index"] for b in batches]).reshape(50, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 50  # a new order each epoch
    assert set(epochs.ravel()) == set(range(N))  # another remainder each epoch
    assert np.bincount(epochs.ravel()).min() > 30


def test_seed_decides_the_order(in_memory):
    first, again, other = (next(stream(in_memory, whole(in_memory, 10), seed=s))["index"].tolist() for s in (3, 3, 4))
    assert first == again != other
    next(stream(in_memory, whole(in_memory, 10), seed=-1))  # any integer will do


@pytest.mark.parametrize("start", [0, 1, 4, 5, 13, 1000])
def test_starting_late_gives_what_an_uninterrupted_run_sees(split, in_memory, start):
    expected = list(islice(stream(in_memory, whole(in_memory, 5), seed=3), start, start + 9))
    assert_same(islice(stream(split, whole(split, 5), seed=3, start_step=start), 9), expected)


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_threads_do_not_change_the_order(split, in_memory, threads):
    assert_same(
        islice(stream(split, whole(split, 4), 5, threads=threads), 12),
        list(islice(stream(in_memory, whole(in_memory, 4), 5), 12)),
    )
    orders = [batch["index"].tolist() for batch, _ in read(split, 4, threads=threads)]
    assert orders[:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("batch_size", [1, 4, 23, 30])
def test_reading_in_order_pads_the_last_batch(split, in_memory, batch_size):
    for source in (split, in_memory):
        batches = list(read(source, batch_size))
        assert {b["image"].shape for b, _ in batches} == {(batch_size, SIZE, SIZE, 3)}
        assert sum(count for _, count in batches) == N
        index = np.concatenate([b["index"][:count] for b, count in batches])
        np.testing.assert_array_equal(index, np.arange(N))
        image = np.concatenate([b["image"][:count] for b, count in batches])
        np.testing.assert_array_equal(image, in_memory.inputs)
        last, count = batches[-1]
        assert last["index"][count:].tolist() == [N - 1] * (batch_size - count)


def test_a_test_split_gives_inputs_alone(split):
    batch, _ = next(read(Split(split.inputs, None, split.label), 4))
    assert set(batch) == {"image", "index"}


def test_features_and_label_vectors():
    vectors = np.eye(4, dtype=np.uint8)[np.arange(10) % 4]
    split = Split(np.arange(30, dtype=np.float32).reshape(10, 3), vectors, None)
    batch = next(stream(split, whole(split, 3), seed=0))
    assert set(batch) == {"features", "noisy_label", "index"}
    np.testing.assert_array_equal(batch["features"], split.inputs[batch["index"]])
    np.testing.assert_array_equal(batch["noisy_label"], vectors[batch["index"]])


def test_broken_picture_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    split = Split(ImageFiles((str(path),), 4), np.zeros(1, np.int32), None)
    for batches in (stream(split, whole(split, 1), seed=0), read(split, 1)):
        with pytest.raises(DataError, match=r"broken.png: not a readable picture"):
            next(batches)


def test_bad_arguments(in_memory):
    with pytest.raises(ValueError, match="start_step must not be negative, got -1"):
        stream(in_memory, whole(in_memory, 4), seed=0, start_step=-1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        read(in_memory, 0)
