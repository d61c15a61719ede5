"""Outliers: inputs from elsewhere, or made of the data set itself, with random labels."""

import numpy as np
import pytest

from benchmarks.miniatures import Maker
from nlx.data import load
from nlx.data import noise as noise_module
from nlx.data.noise import NoiseSpec, with_noise
from tests.data.test_noise import FEATURES_SET, IMAGES, LABELS, K, N, dataset_of, z_score


def test_outliers_from_elsewhere_replace_inputs_and_are_marked():
    other = dataset_of(
        np.full((7, 8, 8, 1), 9, np.uint8) + np.arange(7, dtype=np.uint8)[:, None, None, None], LABELS[:7]
    )
    before = IMAGES.copy()
    result = with_noise(dataset_of(IMAGES, LABELS), NoiseSpec("outlier", 0.3), 3, elsewhere=other)
    train = result.train
    assert result.name == "mine/outlier:0.3+mine"
    assert z_score(train.outlier.sum(), N, 0.3) < 4
    np.testing.assert_array_equal(train.inputs[~train.outlier], IMAGES[~train.outlier])
    taken = train.inputs[train.outlier]
    assert (taken == taken[:, :1, :1]).all()
    assert set(np.unique(taken)) == set(range(9, 16))
    np.testing.assert_array_equal(IMAGES, before)
    # An outlier's label is its random one; the others keep theirs.
    np.testing.assert_array_equal(train.label, train.noisy_label)
    np.testing.assert_array_equal(train.label[~train.outlier], LABELS[~train.outlier])
    assert max(z_score(c, train.outlier.sum(), 1 / K) for c in np.bincount(train.label[train.outlier])) < 4


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 14, 3), (2, 3, 1)])
def test_outliers_without_elsewhere_are_scrambled_images(shape):
    images = np.random.default_rng(4).integers(0, 256, (300, *shape), dtype=np.uint8)
    train = with_noise(dataset_of(images, LABELS[:300]), NoiseSpec("outlier", 0.5), 0).train
    np.testing.assert_array_equal(train.inputs[~train.outlier], images[~train.outlier])
    changed = (train.inputs != images).any(axis=(1, 2, 3))
    assert (changed == train.outlier).mean() > 0.99
    np.testing.assert_array_equal(np.sort(train.inputs.reshape(300, -1)), np.sort(images.reshape(300, -1)))


def test_scrambling_moves_tiles_whole():
    tiles = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4), 7, axis=0), 7, axis=1)
    scrambled = noise_module._scrambled(np.random.default_rng(0), np.tile(tiles[None, :, :, None], (50, 1, 1, 1)))
    corners = scrambled[:, ::7, ::7, 0]
    np.testing.assert_array_equal(np.repeat(np.repeat(corners, 7, axis=1), 7, axis=2), scrambled[..., 0])
    assert len(np.unique(corners.reshape(50, 16), axis=0)) == 50


def test_outlying_features_are_put_together_from_many_examples():
    train = with_noise(FEATURES_SET, NoiseSpec("outlier", 0.5), 0).train
    for column in range(2):
        assert np.isin(train.inputs[:, column], FEATURES_SET.train.inputs[:, column]).all()
    # A class says where on the line its examples lie; of an outlier neither its old class nor its random one does.
    assert np.corrcoef(train.inputs[~train.outlier, 0], train.label[~train.outlier])[0, 1] > 0.9
    for label in (LABELS, train.label):
        assert abs(np.corrcoef(train.inputs[train.outlier, 0], label[train.outlier])[0, 1]) < 0.1


def test_a_set_whose_outliers_are_its_own_for_want_of_another_says_why(tmp_path):
    Maker(tmp_path).cifar()
    (tmp_path / "cifar-100-python" / "train").unlink()
    data = load("cifar10", data_dir=tmp_path, noise="outlier:0.5")
    assert data.name == "cifar10/outlier:0.5"
    missing = f"{tmp_path}/cifar-100-python/train: no such file"
    assert data.notes[-1].startswith(f"outliers are made of cifar10 itself, for cifar100 cannot be read: {missing}")
    Maker(tmp_path).cifar()
    data = load("cifar10", data_dir=tmp_path, noise="outlier:0.5")
    assert data.name == "cifar10/outlier:0.5+cifar100"
    assert not any("outliers" in note for note in data.notes)
