"""Which runs linear models in folds can help, and with what."""

from dataclasses import replace

import numpy as np
import pytest

import nlx
from nlx.data import Dataset, Split
from nlx.experiment import first_answer

N = 120
RNG = np.random.default_rng(0)
TRUE = np.arange(N, dtype=np.int32) % 3
NOISY = np.where(RNG.random(N) < 0.2, (TRUE + 1) % 3, TRUE).astype(np.int32)
X = (3 * np.eye(3, 5)[TRUE] + RNG.normal(size=(N, 5))).astype(np.float32)
DATA = Dataset("mine", ("a", "b", "c"), Split(X, NOISY, TRUE), None)


def of(**changes):
    return replace(DATA, train=replace(DATA.train, **changes))


def test_it_is_the_evidence_of_clean_with_what_is_trusted():
    trusted = np.arange(N) % 4 == 0
    found = first_answer.evidence_for(of(trusted=trusted))()
    known = {int(row): int(TRUE[row]) for row in np.flatnonzero(trusted)}
    table = nlx.clean(X, NOISY, trusted=known, class_names=DATA.class_names)
    np.testing.assert_array_equal(found, table.extras["evidence"])
    assert not np.array_equal(found, first_answer.evidence_for(DATA)())


@pytest.mark.parametrize(
    "changes",
    [
        {"noisy_label": np.eye(3, dtype=np.uint8)[NOISY], "label": None},
        {"trusted": np.ones(N, bool)},
        {"inputs": np.zeros((N, 40, 40, 3), np.uint8)},
        {"inputs": X[:1], "noisy_label": NOISY[:1], "label": TRUE[:1]},
    ],
    ids=["several labels", "all trusted", "large pictures", "one example"],
)
def test_where_they_cannot_judge_nobody_is_asked(changes):
    assert first_answer.evidence_for(of(**changes)) is None


def test_inputs_that_would_fill_the_memory_are_left(monkeypatch):
    monkeypatch.setattr(first_answer, "memory", lambda: 39 * X.size)
    assert first_answer.evidence_for(DATA) is None
    monkeypatch.setattr(first_answer, "memory", lambda: 40 * X.size)
    assert first_answer.evidence_for(DATA) is not None


def test_fewer_examples_than_folds():
    few = of(inputs=X[:4], noisy_label=NOISY[:4], label=TRUE[:4])
    assert first_answer.evidence_for(few)().shape == (4, 3)
