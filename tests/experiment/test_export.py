import numpy as np

from nlx.data import Split
from nlx.experiment.export import with_trusted

INPUTS = np.zeros((3, 1), np.float32)
PROBS = np.full((3, 2), 0.5, np.float32)


def test_what_is_known_is_certain():
    label = np.array([1, 0, 1], np.int32)
    split = Split(INPUTS, label, label, trusted=np.array([True, False, True]), outlier=np.array([False, False, True]))
    np.testing.assert_array_equal(with_trusted(PROBS, split), [[0, 1], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(PROBS, 0.5)
    vectors = np.array([[1, 1], [0, 1], [0, 0]], np.uint8)
    split = Split(INPUTS, vectors, vectors, trusted=np.array([True, False, True]))
    np.testing.assert_array_equal(with_trusted(PROBS, split), [[1, 1], [0.5, 0.5], [0, 0]])
    assert with_trusted(PROBS, Split(INPUTS, label, label)) is PROBS
