import numpy as np
import pytest

from nlx.data import DataError
from nlx.training.stages import Course, Place, Stage


def test_stages_follow_each_other_and_the_last_goes_on():
    course = Course([Stage("a", np.arange(10), 2), Stage("skipped", np.arange(9), 0), Stage("b", np.arange(7), 3)], 3)
    assert (course.total, course.epochs, course.longest, course.boundaries) == (12, 5, 10, (0, 6))
    assert [course.at(step)[:3] for step in (0, 2, 3, 5, 6, 7, 8, 11)] == [
        (0, 0, 0), (0, 0, 2), (0, 1, 0), (0, 1, 2), (1, 2, 0), (1, 2, 1), (1, 3, 0), (1, 4, 1),
    ]  # fmt: skip
    assert course.at(12) == Place(1, 5, 0, 2)


def test_fresh_heads_are_wanted_where_their_stage_begins_and_nowhere_else():
    rows = np.arange(6)
    course = Course([Stage("a", rows, 1), Stage("b", rows, 2, fresh_heads=True), Stage("c", rows, 1)], 3)
    assert [step for step in range(9) if course.starts_afresh(step)] == [2]


def test_a_stage_smaller_than_a_batch_is_told():
    with pytest.raises(DataError, match=r"--batch_size=56 is more than the 50 training examples; take a smaller one"):
        Course.whole(50, 56, 1)
    with pytest.raises(DataError, match=r"more than the 5 clean stage's examples"):
        Course([Stage("clean", np.arange(5), 1), Stage("all", np.arange(50), 1)], 8)
    assert Course([Stage("clean", np.arange(5), 0), Stage("all", np.arange(50), 1)], 8).total == 6  # it is not visited
