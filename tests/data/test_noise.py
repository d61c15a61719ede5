"""Noise read from text and applied to labels."""

import numpy as np
import pytest

from nlx.data import DataError
from nlx.data.noise import NoiseSpec, add_noise, parse_noise

LABELS = np.arange(4000, dtype=np.int32) % 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", NoiseSpec("none", 0.0)),
        ("uniform:0.4", NoiseSpec("uniform", 0.4)),
        ("shuffle:1", NoiseSpec("shuffle", 1.0)),
        (" shuffle:0 ", NoiseSpec("shuffle", 0.0)),
    ],
)
def test_reads_what_it_writes(text, expected):
    assert parse_noise(text) == expected
    assert parse_noise(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("pair:0.4", r"unknown noise 'pair' in 'pair:0.4': choose one of none, uniform, shuffle\.$"),
        ("", "unknown noise ''"),
        ("uniform", "has no rate: write it as 'uniform:0.4'"),
        ("uniform:", "has no rate"),
        ("shuffle:much", "has no rate: write it as 'shuffle:0.4'"),
        ("uniform:1.5", "rate 1.5: a rate must lie between 0 and 1"),
        ("uniform:-0.1", "rate -0.1"),
        ("uniform:nan", "rate nan"),
        ("none:0.4", "write 'none'"),
    ],
)
def test_unreadable_noise_is_one_sentence(text, match):
    with pytest.raises(DataError, match=match) as caught:
        parse_noise(text)
    assert str(caught.value).count("\n") == 0


def test_kinds_differ_in_what_a_touched_label_may_become():
    assert (add_noise(NoiseSpec("none", 0.0), LABELS, 4, 0) == LABELS).all()
    assert (add_noise(NoiseSpec("uniform", 1.0), LABELS, 4, 0) != LABELS).all()
    kept = (add_noise(NoiseSpec("shuffle", 1.0), LABELS, 4, 0) == LABELS).mean()
    assert abs(kept - 1 / 4) < 4 * np.sqrt(1 / 4 * 3 / 4 / len(LABELS))


@pytest.mark.parametrize("kind", ["none", "uniform", "shuffle"])
def test_seed_decides_and_the_clean_labels_stay(kind):
    noise = NoiseSpec(kind, 0.0 if kind == "none" else 0.5)
    clean = LABELS.copy()
    first, again, other = (add_noise(noise, clean, 4, seed) for seed in (1, 1, 2))
    assert first.dtype == np.int32
    np.testing.assert_array_equal(first, again)
    assert (first == other).all() == (kind == "none")
    first[:] = 0  # writable, and no view of the clean labels
    np.testing.assert_array_equal(clean, LABELS)
