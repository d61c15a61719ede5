"""What a user is told of data: how they were understood, and what may not be meant."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nlx.data import Dataset, ImageFiles, Split
from nlx.data.understanding import doubts, understood

X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
Y = np.arange(6, dtype=np.int32) % 3
NAMES = ("a", "b", "c")
DATA = Dataset("x", NAMES, Split(X, Y, None), Split(X + 1, None, Y))


def test_sound_data_are_told_in_one_line():
    assert understood(DATA) == "6 examples, 3 classes, one label each, 2 to 2 a class"
    assert doubts(DATA) == []
    partly = replace(DATA, train=replace(DATA.train, label=np.where(Y > 0, Y, -1)))
    assert understood(partly).endswith("true labels of 4 are known")
    trusted = replace(partly, train=partly.train.partly_trusted())
    assert understood(trusted).endswith("true labels of 4 are known and trusted")


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (Split(X, np.eye(3, dtype=np.uint8)[Y], None), "exactly one label: if there is one class to each, give class"),
        (Split(X, np.eye(4, 3, dtype=np.uint8)[Y + (Y > 1)], None), "no example has more than one label: if there is"),
        *(
            (Split(X, labels, None), "all examples are labelled alike")
            for labels in (Y * 0, Y * 0 + 2, *(np.full((6, 3), bits, np.uint8) for bits in (0, 1, (0, 1, 0))))
        ),
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


@pytest.mark.parametrize(
    ("shades", "told"),
    [
        ((0, 0, 0), "every pixel is 0"),
        ((0, 1, 15), "no pixel is above 15 of 255"),
        ((90, 90, 90), "every pixel is 90"),
        ((90, 90, 91), ""),
    ],
)
def test_pictures_that_stay_on_disk_are_looked_at_as_well(tmp_path, shades, told):
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(len(shades)))
    for path, shade in zip(paths, shades, strict=True):
        Image.new("L", (4, 4), shade).save(path)
    said = doubts(replace(DATA, train=Split(ImageFiles(paths, 4), np.arange(3, dtype=np.int32), None), test=None))
    assert told in " ".join(said)
    assert bool(said) == bool(told)


def test_files_that_are_in_both_parts_are_found_under_any_name(tmp_path):
    def file(name, shade, size=4):
        Image.new("L", (size, size), shade).save(tmp_path / name)
        return str(tmp_path / name)

    train = ImageFiles((file("a.png", 10), file("b.png", 20), file("c.png", 30, 40)), 4)
    test = ImageFiles((file("d.png", 20), file("e.png", 99), file("f.png", 30, 40), file("g.png", 20)), 4)
    data = Dataset("x", NAMES, Split(train, Y[:3], None), Split(test, None, Y[:4]))
    assert doubts(data) == ["up to 3 of 4 test inputs are training inputs as well"]
    apart = replace(data, test=Split(replace(test, paths=test.paths[1:2]), None, Y[1:2]))
    assert doubts(apart) == []
    assert doubts(replace(data, test=Split(np.zeros((1, 4, 4, 3), np.uint8), None, Y[:1]))) == []
