"""How a run grows: the files that are made, what the rows say, and a run at a tiny size."""

import sys

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale import Grown, Options, page_of, planned, rows_of, run, write_features
from nlx.data import load
from tests.compiling import QUICK

TINY = Options(sizes=(60, 120), classes=4, dim=3, width=4, batch_size=20)


def test_features_have_every_class_and_a_fifth_wrong(tmp_path):
    write_features(tmp_path / "made.npz", 4_000, TINY)
    data = load(f"npz:{tmp_path / 'made.npz'}")
    assert (len(data.train), data.num_classes, data.input_shape) == (4_000, 4, (3,))
    assert np.mean(data.given(data.train) != data.train.label) == pytest.approx(0.2 * 3 / 4, abs=0.02)


def test_growth_is_that_from_one_size_to_the_next():
    grown = [Grown(1_000, 10.0, 500.0, None), Grown(2_000, 11.0, 502.0, 3.0), Grown(4_000, 13.0, 506.0, 4.4)]
    first, second, third = rows_of("elr", grown)
    assert first == ["elr", "1,000", "10", "500", "", "", ""]
    assert second == ["elr", "2,000", "11", "502", "3", "2,000", "1,000"]
    assert third[-2:] == ["2,000", "1,000"]


def test_the_page_has_growth_and_plans():
    grown = {"elr": [Grown(1_000, 10.0, 500.0, 1.0), Grown(2_000, 11.0, 502.0, 3.0)]}
    page = page_of(Options(sizes=(1_000, 2_000), devices=(1, 8)), grown, {"elr": [3.0, None]})
    assert "| elr | 2,000 | 11 | 502 | 3 | 2,000 | 1,000 |" in page
    assert "| elr | 3.0 |  |" in page
    assert "at 2,000 examples" in "\n".join(page)


@pytest.mark.parametrize("words", [["--only=nothing"], ["--sizes", "10", "--classes=20"]])
def test_what_cannot_be_run_is_refused(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale.py", *words])
    assert scale.main() == 2
    assert "names no recipe" in capsys.readouterr().err


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="elr with 60 examples ended with 1: "):
        run("elr", tmp_path / "none.npz", 60, TINY, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", scale.RECIPES)
def test_every_recipe_is_measured(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", QUICK)  # of one device
    write_features(tmp_path / "made.npz", 400, TINY)
    found = run(name, tmp_path / "made.npz", 400, TINY, tmp_path)
    assert found.peak > 100
    assert found.planned is not None  # MiB to one decimal place, 0 for so few examples
    assert 0 <= found.planned < found.peak
    assert planned(name, tmp_path / "made.npz", TINY, 4) is not None
