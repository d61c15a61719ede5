"""The noisy digits: one split for ever, noise on the training part alone."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nlx.data import DataError
from nlx.data.sources.digits import digits, real_digits


def test_every_digit_is_in_exactly_one_part():
    data = real_digits()
    np.testing.assert_array_equal(np.sort(np.concatenate([data.train, data.test])), np.arange(1797))
    per_class = np.bincount(data.label[data.test]) / np.bincount(data.label)
    assert np.abs(per_class - 0.2).max() < 0.005


def test_pictures_are_the_scans():
    bunch = load_digits()
    image = real_digits().image
    assert image.shape == (1797, 8, 8, 1)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[..., 0] * (16 / 255), bunch.images, atol=0.05)


def test_split_is_fixed():
    data = real_digits()
    assert data.test[:8].tolist() == [9, 11, 25, 29, 43, 54, 55, 60]
    np.testing.assert_array_equal(real_digits().test, data.test)


def test_noise_touches_training_labels_alone():
    data = real_digits()
    for noise, seed, share in (("none", 0, 0.0), ("symmetric:0.4", 0, 0.4), ("shuffle:0.4", 5, 0.4 * 0.9)):
        dataset = digits(noise, seed)
        assert dataset.name == f"digits/{noise}"
        assert dataset.num_classes == 10
        assert not dataset.multi_label
        np.testing.assert_array_equal(dataset.train.inputs, data.image[data.train])
        np.testing.assert_array_equal(dataset.train.label, data.label[data.train])
        np.testing.assert_array_equal(dataset.test.inputs, data.image[data.test])
        np.testing.assert_array_equal(dataset.test.label, data.label[data.test])
        assert dataset.test.noisy_label is None
        wrong = (dataset.train.noisy_label != dataset.train.label).mean()
        assert abs(wrong - share) <= 4 * np.sqrt(share * (1 - share) / len(data.train))


def test_defaults_and_errors():
    assert digits().name == "digits/shuffle:0.4"
    assert (digits(seed=0).train.noisy_label != digits(seed=1).train.noisy_label).any()
    with pytest.raises(DataError, match="unknown noise 'pairs'"):
        digits("pairs:0.1")
    with pytest.raises(DataError, match=r"'tags:0.1' is not for digits"):
        digits("tags:0.1")


def test_outliers_are_scrambled_digits():
    data = real_digits()
    train = digits("outlier:0.3").train
    assert 0.25 < train.outlier.mean() < 0.35
    changed = (train.inputs != data.image[data.train]).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, train.outlier)
    np.testing.assert_array_equal(train.label[~changed], data.label[data.train][~changed])
