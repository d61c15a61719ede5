"""What a user is told of data: how they were understood, and what may not be meant."""

from dataclasses import replace

import numpy as np
import pytest

from nlx.data import Dataset, Split
from nlx.data.understanding import doubts, understood

X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
Y = np.arange(6, dtype=np.int32) % 3
NAMES = ("a", "b", "c")
DATA = Dataset("x", NAMES, Split(X, Y, None), Split(X + 1, None, Y))


def test_sound_data_are_told_in_one_line():
    assert understood(DATA) == "6 examples, 3 classes, one label each, 2 to 2 a class"
    assert doubts(DATA) == []
    partly = replace(DATA, train=replace(DATA.train, label=np.where(Y > 0, Y, -1)))
    assert understood(partly).endswith("true labels of 4 are known and trusted")


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (Split(X, np.eye(3, dtype=np.uint8)[Y], None), "exactly one label: give class numbers"),
        (Split(X, Y * 0, None), "all labels are of one class"),
        (Split(X, Y % 2, None), "1 of 3 classes have no example, as 'c'"),
        (Split(X, Y % 2, None), "the test set has 1 classes that no training label has"),
        (Split(X * 0 + 1, Y, None), "every feature is 1"),
        (Split(np.zeros((6, 4, 4, 1), np.uint8), Y, None), "every pixel is 0"),
        (Split(np.eye(6, 4, dtype=np.uint8)[:, :, None, None], Y, None), "no pixel is above 1 of 255"),
        (Split(np.repeat(X[:1], 6, axis=0), Y, None), "all inputs are the same"),
        (Split(X + 1, Y, None), "up to 6 of 6 test inputs are training inputs"),
    ],
)
def test_what_may_not_be_meant_is_told(train, told):
    assert any(told in text for text in doubts(replace(DATA, train=train)))
