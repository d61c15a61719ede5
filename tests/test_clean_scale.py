"""How cleaning grows: the files that are made, what the rows say, and a run at a tiny size."""

import sys

import numpy as np
import pytest

from benchmarks import clean_scale
from benchmarks.clean_scale import Cleaned, Options, command_of, page_of, rows_of, run, write_embeddings

TINY = Options(sizes=(400,), dim=6, classes=4, spread=3.0)


def test_embeddings_lie_around_their_classes_and_two_labels_in_five_are_random(tmp_path):
    noisy, true = write_embeddings(tmp_path, 12_000, TINY)
    x = np.load(tmp_path / "embeddings.npy")
    assert (x.shape, x.dtype) == ((12_000, 6), np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), noisy)
    assert np.mean(noisy != true) == pytest.approx(0.4 * 3 / 4, abs=0.02)
    means = np.stack([x[true == c].mean(axis=0) for c in range(4)])
    assert np.mean(np.argmin(((x[:, None] - means) ** 2).sum(axis=2), axis=1) == true) > 0.95


def test_growth_is_that_from_one_size_to_the_next():
    runs = [Cleaned(1_000, 1.0, 10.0, 0.6, 0.9, 300, 0.95), Cleaned(3_000, 1.5, 12.0, 0.6, 0.9, 0, float("nan"))]
    first, second = rows_of(runs, Options())
    assert first == ["1,000", "0.00", "0.00", "1.00", "", "10", "", "60.0", "90.0", "300", "95.0"]
    assert second[3:7] == ["1.50", "250.0", "12", "1,000"]
    assert "| 3,000 |" in "\n".join(page_of(Options(), runs))


def test_a_page_names_the_command_that_measures_the_same():
    assert command_of(Options(record=True)) == "python benchmarks/clean_scale.py"
    assert command_of(TINY) == "python benchmarks/clean_scale.py --sizes 400 --dim=6 --classes=4 --spread=3.0"
    assert "`python benchmarks/clean_scale.py --sizes 400 --dim=6" in page_of(TINY, [])[-1]


@pytest.mark.parametrize("words", [["--sizes", "30", "--classes=4"], ["--classes=1"], ["--dim=0"]])
def test_what_cannot_be_run_is_refused(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clean_scale.py", *words])
    assert clean_scale.main() == 2
    assert "ten examples of a class" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_measured_and_one_that_fails_says_why(tmp_path):
    found = run(tmp_path, 400, TINY)
    assert found.peak > 0.1
    assert found.cleaned > found.given + 0.1
    with pytest.raises(RuntimeError, match=r"400 examples ended with 1: .*exists"):
        run(tmp_path, 400, TINY)
