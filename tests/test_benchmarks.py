"""The rules by which tables choose options and judge claims."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.protocols import common
from benchmarks.protocols.common import Entry, Runner, claim_ahead, over_seeds, paired, tune
from nlx.reporting.console import Console
from nlx.training.loop import Diverged
from recipes import baseline

ENTRY = Entry(baseline.BaselineConfig(learning_rate=0.05, epochs=9), baseline.RECIPE)


class Scripted:
    """A runner whose runs have the scores that a test gives them, and which writes down what it was asked to run."""

    def __init__(self, score, quick=False, seeds=3):
        self.score, self.quick, self.seeds, self.together = score, quick, seeds, False
        self.console, self.asked = Console("", 0, quiet=True), []

    def __call__(self, label, entry, keep=None):
        self.asked.append(entry.config)
        last = self.score(entry.config)
        best = {name: {"value": value + 1, "epoch": 1} for name, value in last.items()}
        return {"last": last, "best": best, "wall_seconds": 1, "given_label_recovery": 0.5, "cleaned_with": "q"}


def test_a_difference_has_the_interval_of_the_paired_t_test():
    a, b = [0.70, 0.73, 0.74], [0.66, 0.70, 0.69]
    found = paired(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["mean"] == pytest.approx(np.mean(a) - np.mean(b))
    assert found["verdict"] == "ahead"
    assert paired(b, a)["verdict"] == "behind"
    assert paired([0.1, 0.9, 0.5], [0.2, 0.1, 0.8])["verdict"] == "level"


def test_one_seed_has_a_difference_without_an_interval():
    found = paired([0.7], [0.6])
    assert found["mean"] == pytest.approx(0.1)
    assert math.isnan(found["low"])
    assert claim_ahead("a", found).verdict == "holds"
    assert claim_ahead("a", paired([0.6], [0.7])).verdict == "does not hold"


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.8, 0.81], [0.5, 0.511], "holds"),
        ([0.5, 0.511], [0.8, 0.81], "does not hold"),
        ([0.8, 0.5], [0.5, 0.7], "not shown"),
    ],
)
def test_a_claim_of_being_ahead_needs_an_interval_above_zero(a, b, verdict):
    assert claim_ahead("a", paired(a, b)).verdict == verdict


def test_options_are_chosen_by_noisy_validation_whatever_the_test_scores_say():
    def score(config):
        return {"validation_score": 1 - abs(config.learning_rate - 0.02), "test_accuracy": config.learning_rate}

    runner = Scripted(score)
    chosen, scores = tune(runner, "a", ENTRY, {"learning_rate": (0.05, 0.02, 0.01), "momentum": (0.5,)}, seeds=2)
    assert (chosen.config.learning_rate, chosen.config.momentum) == (0.02, 0.5)
    assert chosen.config.validation_fraction == 0
    assert {config.validation_fraction for config in runner.asked} == {0.1}
    assert len(runner.asked) == 6
    assert not {config.seed for config in runner.asked} & set(range(runner.seeds))  # seeds of their own
    assert scores["learning_rate"]["tried"]["0.05"]["test_accuracy"] == 0.05


def test_a_value_that_diverges_is_not_chosen():
    def score(config):
        if config.learning_rate > 0.01:
            raise Diverged("the loss is not finite")
        return {"validation_score": 0.1}

    assert tune(Scripted(score), "a", ENTRY, {"learning_rate": (0.05, 0.01)})[0].config.learning_rate == 0.01


def test_a_quick_table_takes_the_first_value_and_tunes_nothing():
    runner = Scripted(lambda config: {"validation_score": 0.0}, quick=True)
    assert tune(runner, "a", ENTRY, {"learning_rate": (0.02, 0.01)})[0].config.learning_rate == 0.02
    assert runner.asked == []


def test_last_and_best_stay_apart_over_seeds():
    found = over_seeds(Scripted(lambda config: {"test_accuracy": float(config.seed)}), "a", ENTRY)
    assert found["last"] == {"test_accuracy": [0, 1, 2]}
    assert found["best"] == {"test_accuracy": [1, 2, 3]}


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Runs that take no time and are counted, remembered in a folder of their own."""
    calls = []

    def run(config, recipe):
        calls.append(config)
        config.run_dir.mkdir(parents=True)
        (config.run_dir / "labels.parquet").write_bytes(b"labels")
        return {"last": {"test_accuracy": config.seed / 10}, "best": {}, "wall_seconds": 0}

    monkeypatch.setattr(common, "run", run)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return calls


def test_a_run_is_remembered_by_its_options(counted, tmp_path):
    runner = Runner(Console("", 0, quiet=True), 2, Path("shared"))
    first, again = runner("a", ENTRY), runner("another name", ENTRY)
    assert first == again
    assert len(counted) == 1
    runner("a", ENTRY.but(learning_rate=0.01))
    runner("a", ENTRY.but(seed=1))
    assert [(config.learning_rate, config.seed) for config in counted] == [(0.05, 0), (0.01, 0), (0.05, 1)]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 3
    kept = tmp_path / "kept" / "labels.parquet"
    runner("a", ENTRY, keep=kept)  # remembered, but its labels are not there
    assert kept.read_bytes() == b"labels"
    assert len(counted) == 4


def test_a_quick_run_is_shorter_and_remembered_apart(counted):
    quick = Runner(Console("", 0, quiet=True), 5, Path("shared"), quick=True)
    assert quick.seeds == 1
    quick("a", ENTRY)
    Runner(Console("", 0, quiet=True), 5, Path("shared"))("a", ENTRY)
    assert [config.epochs for config in counted] == [3, 9]


def test_seeds_that_trained_together_are_remembered_apart_from_those_that_did_not(counted, monkeypatch):
    asked = []

    def run_together(config, recipe, seeds):
        asked.append(list(seeds))
        return [{"last": {"test_accuracy": 0.9}, "best": {}, "wall_seconds": 0} for _ in seeds]

    monkeypatch.setattr(common, "run_together", run_together)
    runner = Runner(Console("", 0, quiet=True), 2, Path("shared"), together=True)
    alone = runner("a", ENTRY)
    for _ in range(2):
        assert [s["last"]["test_accuracy"] for s in runner.side_by_side("a", ENTRY)] == [0.9, 0.9]
    assert asked == [[0, 1]]
    assert alone["last"]["test_accuracy"] == 0
    assert json.loads(next(iter((common.RESULTS / "runs").glob("*.json"))).read_text())["label"] == "a"
