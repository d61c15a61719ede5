"""Small npz files of a user's own."""

import numpy as np

IMAGES = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)
FEATURES = np.linspace(-1, 1, 6 * 4).reshape(6, 4)
NOISY = np.array([0, 1, 2, 0, 1, 2])
TRUE = np.array([0, 1, 2, 0, 1, 1])
MATRIX = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])


def save(tmp_path, **arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return path


def with_value(array, position, value):
    array = np.array(array)
    array[position] = value
    return array
