"""scikit-learn's 1,797 real handwritten digits, with synthetic label noise on the training part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlx.data.dataset import Dataset, Split
from nlx.data.noise import parse_noise, with_noise

DEFAULT_NOISE = "shuffle:0.4"
TEST_FRACTION = 0.2
SPLIT_SEED = 1797  # never to be changed: results on digits are comparable only on one split
CLASS_NAMES = tuple("0123456789")


class RealDigits(NamedTuple):
    """The digits and their one train/test split.

    Attributes:
      image: uint8 ``[1797, 8, 8, 1]``, the scan's 0 to 16 stretched to 0 to 255.
      label: int32 ``[1797]``.
      train: rows of the training part, int ``[1437]`` or so, sorted.
      test: rows of the test part, the rest, sorted.
    """

    image: np.ndarray
    label: np.ndarray
    train: np.ndarray
    test: np.ndarray


def real_digits() -> RealDigits:
    """Read the digits from scikit-learn's wheel and split them, a fifth of every class for testing."""
    from sklearn.datasets import load_digits  # takes a second to import, and other data sets do without it

    bunch = load_digits()
    image = np.round(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    label = bunch.target.astype(np.int32)
    shuffled = np.argsort(np.random.default_rng(SPLIT_SEED).random(len(label)), kind="stable")
    test = []
    for c in range(len(CLASS_NAMES)):
        rows = shuffled[label[shuffled] == c]
        test.append(rows[: round(TEST_FRACTION * len(rows))])
    test_rows = np.sort(np.concatenate(test))
    return RealDigits(image, label, np.setdiff1d(np.arange(len(label)), test_rows), test_rows)


def digits(noise: str = DEFAULT_NOISE, seed: int = 0) -> Dataset:
    """The digits with noisy training labels.

    The split is the same whatever the noise and its seed; noise never touches the test part. There is no other set of
    8 by 8 images, so outliers are digits whose tiles have changed places.

    Args:
      noise: see :func:`nlx.data.noise.parse_noise`.
      seed: seed of the noise.

    Returns:
      The data set ``digits/<noise>``, single-label, images uint8 ``[n, 8, 8, 1]``, true training labels included.

    Raises:
      DataError: a noise that cannot be read, or is not for single labels.
    """
    spec = parse_noise(noise)
    data = real_digits()
    label = data.label[data.train]
    train = Split(data.image[data.train], label.copy(), label)
    test = Split(data.image[data.test], None, data.label[data.test])
    return with_noise(Dataset("digits", CLASS_NAMES, train, test), spec, seed)
