"""The rules by which tables choose options and judge claims, and the README made from them."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from benchmarks import readme
from benchmarks.protocols import can, defaults, leaderboard, peers, pictures
from benchmarks.protocols.common import (
    all_over_seeds,
    claim_ahead,
    claim_within,
    compare,
    interval,
    over_seeds,
    paired,
    spread,
    tune,
)
from benchmarks.protocols.runner import Entry
from nlx.data import load
from nlx.experiment.console import Console
from nlx.training.loop import Diverged
from recipes import baseline

ENTRY = Entry(baseline.BaselineOptions(learning_rate=0.05, epochs=9), baseline.train)


class Scripted:
    """A runner whose runs have the scores that a test gives them, and which writes down what it was asked to run."""

    def __init__(self, score, quick=False, seeds=3):
        self.score, self.quick, self.seeds = score, quick, seeds
        self.console, self.asked = Console("", quiet=True), []

    def __call__(self, label, entry, keep=None):
        self.asked.append(entry.options)
        last = self.score(entry.options)
        best = {name: {"value": value + 1, "epoch": 1} for name, value in last.items()}
        return {"last": last, "best": best, "wall_seconds": 1, "given_label_recovery": 0.5, "cleaned_with": "q"}

    def map(self, function, items):
        return [function(item) for item in items]


def test_a_difference_has_the_interval_of_the_paired_t_test():
    a, b = [0.70, 0.73, 0.74], [0.66, 0.70, 0.69]
    difference = paired(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (difference["low"], difference["high"]) == pytest.approx((interval.low, interval.high))
    assert difference["mean"] == pytest.approx(np.mean(a) - np.mean(b))
    assert difference["verdict"] == "ahead"
    assert paired(b, a)["verdict"] == "behind"
    assert paired([0.1, 0.9, 0.5], [0.2, 0.1, 0.8])["verdict"] == "level"


def test_one_seed_has_a_difference_without_an_interval():
    difference = paired([0.7], [0.6])
    assert difference == {"mean": pytest.approx(0.1), "low": None, "high": None, "verdict": "ahead"}
    assert claim_ahead("a", {"one": difference}).verdict == "holds"
    assert claim_ahead("a", {"one": difference}, margin=0.2).verdict == "does not hold"
    assert claim_ahead("a", {"one": paired([0.6], [0.7])}).verdict == "does not hold"
    assert interval(difference) == "+10.0, one seed"


def test_to_be_as_good_takes_the_whole_interval():
    def of(low, high):
        return {"a - b": {"mean": (low + high) / 2, "low": low, "high": high, "verdict": ""}}

    ends = (-0.009, 0.009), (-0.02, 0.005), (0.011, 0.03)
    assert [claim_within("a", of(*pair), 0.01).verdict for pair in ends] == ["holds", "not shown", "does not hold"]
    assert claim_within("a", of(-0.03, -0.011), 0.01).verdict == "does not hold"
    assert claim_within("a", of(0, 0.005) | {"a - c": of(0, 0.02)["a - b"]}, 0.01).verdict == "not shown"
    assert claim_within("a", {"one": paired([0.705], [0.7])}, 0.01).verdict == "holds"
    assert claim_within("a", {"one": paired([0.7], [0.72])}, 0.01).verdict == "does not hold"


def test_a_seed_that_diverged_does_not_count():
    assert paired([0.7, math.nan, 0.75], [0.6, 0.6, 0.66])["mean"] == pytest.approx(0.095)
    assert spread([0.7, math.nan, 0.8]) == "75.0 ± 7.1, 1 diverged"


AHEAD, BEHIND, LEVEL = ([0.8, 0.81], [0.5, 0.511]), ([0.5, 0.511], [0.8, 0.81]), ([0.8, 0.5], [0.5, 0.7])


@pytest.mark.parametrize(
    ("sides", "margin", "verdict"),
    [
        ([AHEAD], 0.0, "holds"),
        ([BEHIND], 0.0, "does not hold"),
        ([LEVEL], 0.0, "not shown"),
        ([AHEAD, AHEAD], 0.0, "holds"),
        ([AHEAD, LEVEL], 0.0, "not shown"),
        ([AHEAD, LEVEL, BEHIND], 0.0, "does not hold"),
        ([AHEAD], 0.2, "holds"),
        ([AHEAD], 0.4, "does not hold"),
        ([LEVEL], -0.01, "not shown"),
        ([([0.500, 0.501], [0.503, 0.505])], -0.02, "holds"),
    ],
)
def test_a_claim_needs_every_interval_above_its_margin(sides, margin, verdict):
    differences = {str(i): paired(*side) for i, side in enumerate(sides)}
    assert claim_ahead("a", differences, margin).verdict == verdict


def test_options_are_chosen_by_noisy_validation_whatever_the_test_scores_say():
    def score(options):
        return {"validation_score": 1 - abs(options.learning_rate - 0.02), "test_accuracy": options.learning_rate}

    runner = Scripted(score)
    chosen, scores = tune(runner, "a", ENTRY, {"learning_rate": (0.05, 0.02, 0.01), "momentum": (0.5,)}, seeds=2)
    assert (chosen.options.learning_rate, chosen.options.momentum) == (0.02, 0.5)
    assert chosen.options.validation_fraction == 0
    assert {options.validation_fraction for options in runner.asked} == {0.1}
    assert len(runner.asked) == 6
    assert not {options.seed for options in runner.asked} & set(range(runner.seeds))  # seeds of their own
    assert scores["learning_rate"]["tried"]["0.05"]["test_accuracy"] == 0.05


@pytest.mark.parametrize("bad_seeds", [(1000,), (1001,), (1000, 1001)])
def test_a_value_that_diverges_is_not_chosen(bad_seeds):
    def score(options):
        if options.learning_rate > 0.01 and options.seed in bad_seeds:
            raise Diverged("the loss is not finite")
        return {"validation_score": 0.5 if options.learning_rate > 0.01 else 0.1, "test_accuracy": 0.5}

    chosen, scores = tune(Scripted(score), "a", ENTRY, {"learning_rate": (0.05, 0.01)}, seeds=2)
    assert chosen.options.learning_rate == 0.01
    assert scores["learning_rate"]["tried"]["0.05"]["validation_score"] == -1


def test_a_table_goes_on_after_a_seed_that_diverged():
    def score(options):
        if options.seed == 1:
            raise Diverged("the loss is not finite")
        return {"test_accuracy": 0.5}

    last = over_seeds(Scripted(score), "a", ENTRY)["last"]["test_accuracy"]
    assert last[0] == last[2] == 0.5
    assert math.isnan(last[1])
    with pytest.raises(Diverged, match="every seed diverged"):
        over_seeds(Scripted(lambda options: score(replace(options, seed=1))), "a", ENTRY)


def test_a_quick_table_takes_the_first_value_and_tunes_nothing():
    runner = Scripted(lambda options: {"validation_score": 0.0}, quick=True)
    assert tune(runner, "a", ENTRY, {"learning_rate": (0.02, 0.01)})[0].options.learning_rate == 0.02
    assert runner.asked == []


def test_last_and_best_stay_apart_over_seeds():
    scores = over_seeds(Scripted(lambda options: {"test_accuracy": float(options.seed)}), "a", ENTRY)
    assert scores["last"] == {"test_accuracy": [0, 1, 2]}
    assert scores["best"] == {"test_accuracy": [1, 2, 3]}


def test_the_rules_of_the_tables():
    def sides(ahead, behind):
        return {name: {"last": {"test_map": values}} for name, values in ((can.BINARY, behind), (can.CAN, ahead))}

    def case(name, ahead, behind):
        difference = {"test_map": paired(ahead, behind)}
        return {"case": name, "methods": sides(ahead, behind), "differences": {f"CAN - {can.BINARY}": difference}}

    cases = [case("digits, shuffle 0.0", *BEHIND), case("digits, shuffle 0.2", *AHEAD), case("web/sample", *LEVEL)]
    assert [c.verdict for c in can.claims_of_can_6(cases)] == ["holds", "holds", "not shown"]

    rows = {f"lambda {v}": {"test_map": [0.9, 0.91]} for v in can.LAMBDAS}
    rows["lambda 0.3"], rows["lambda 10.0"] = {"test_map": [0.95, 0.96]}, {"test_map": [0.5, 0.51]}
    rows |= {name: {"test_map": [0.8, 0.81]} for name in (can.BINARY, "Bootstrap", "LearnQ", "ICNM")}
    rows[can.FROZEN] = {"test_map": [0.96, 0.97]}
    assert [c.verdict for c in can.claims_of_can_5(rows)] == ["holds", "holds", "holds", "does not hold"]
    rows["lambda 2.0"] = {"test_map": [0.99, 1.0]}
    assert can.claims_of_can_5(rows)[0].verdict == "does not hold"


def test_the_claims_of_the_defaults():
    def row(test, cleaned, verdict="better", own=None, missed=()):
        scores = {"test": [test] * 3, "given": [0.7] * 3, "cleaned": [cleaned] * 3, "auc": [0.9] * 3}
        scores["missed"] = [list(missed)] * 3
        return scores | {"verdict": [verdict] * 3, "own_verdict": [own or verdict] * 3, "joined": [own is not None] * 3}

    good = {defaults.OURS: row(0.75, 0.8), defaults.PLAIN: row(0.7, 0.7), "CAN": row(0.74, 0.8)}
    assert [c.verdict for c in defaults.claims_of({"a": good}, {})] == ["holds"] * 3
    assert defaults.claims_of({"a": good | {"CAN": row(0.74, 0.71)}}, {})[2].verdict == "does not hold"
    bad = {"a": good | {"CAN": row(0.6, 0.6, "open")}, "b": good | {"CAN": row(0.6, 0.6, "worse")}}
    bad["c"] = good | {"CAN": row(0.6, 0.6, "better", own="worse")}  # labels were joined, and the run has told
    below, behind, _ = defaults.claims_of(bad, {})
    assert (below.evidence, behind.evidence) == (
        "CAN on c -10.0",
        "CAN on a -10.0",
    )  # `open` says that nothing is shown
    missed = good | {"CAN": row(0.6, 0.8, missed=["cat"])}
    assert defaults.claims_of({"a": missed}, {})[1].verdict == "holds"
    assert defaults.shown_of(missed["CAN"], "test") == "60.0 ± 0.0 (m)"
    for theirs, verdict in ((0.89, "holds"), (0.91, "does not hold")):
        peer = {"a": {"recovery": [0.8] * 3, "issue_auc": [theirs] * 3}}
        assert defaults.claims_of({"a": good}, peer)[-1].verdict == verdict
    assert defaults.shown_of(bad["c"]["CAN"], "cleaned") == "60.0 ± 0.0 (j)"
    assert defaults.shown_of(bad["b"]["CAN"], "cleaned") == "60.0 ± 0.0 (!)"
    assert (defaults.shown_of(bad["c"]["CAN"], "test"), defaults.shown_of(None, "test")) == ("60.0 ± 0.0", "")


def board(**accuracy):
    """The rows of a leaderboard: every system at 70 % but for those named, plain training at 57 %, ours at 75 %."""
    others = {leaderboard.PLAIN: 0.57, leaderboard.CLEAN: 0.8, leaderboard.OURS: 0.75}
    return {
        name: {
            "last": {
                "test_accuracy": [value, value + 0.01],
                "recovery": [value, value],
                "issue_auc": [value, value + 0.01],
                "seconds": [1.0, 2.0],
            },
            "best": {"test_accuracy": [value, value]},
        }
        for name, value in (dict.fromkeys(leaderboard.SYSTEMS, 0.7) | others | accuracy).items()
    }


def test_the_claims_of_the_pictures():
    def rows(**accuracy):
        told = {pictures.PLAIN: 0.4, pictures.CLEAN: 0.8, pictures.OURS: 0.7, "ELR": 0.5, "DivideMix": 0.6} | accuracy
        scores = {n: {"test_accuracy": [a, a + 0.01], "recovery": [a + 0.3] * 2} for n, a in told.items()}
        del scores[pictures.CLEAN]["recovery"]  # its labels are not cleaned
        return {n: {"last": s, "given_label_recovery": 0.6} for n, s in scores.items()}

    no, yes = "does not hold", "holds"
    assert [c.verdict for c in pictures.claims_of(rows())] == [yes, yes, yes, yes]
    assert [c.verdict for c in pictures.claims_of(rows(ELR=0.3))] == [no, yes, yes, no]
    assert [c.verdict for c in pictures.claims_of(rows(ELR=0.75))] == [yes, no, no, yes]
    quick = {n: row for n, row in rows().items() if n in ("DivideMix", "ELR", pictures.PLAIN)}
    assert [c.verdict for c in pictures.claims_of(quick)] == [yes, yes, yes]


def test_the_leaderboards_claims():
    def verdicts(given, rows, peer=None):
        about = {name: {**row, "given_label_recovery": given} for name, row in rows.items()}
        theirs = None if peer is None else {"recovery": [peer] * 2, "issue_auc": [peer, peer + 0.01]}
        return [c.verdict for c in leaderboard.claims_of({"worst": about}, {"worst": theirs})]

    no, yes = "does not hold", "holds"
    assert verdicts(0.6, board(CAN=0.74)) == [yes] * 7
    assert verdicts(0.6, board(CAN=0.55)) == [no, no, no, no, yes, yes, yes]
    assert verdicts(0.6, board(CAN=0.64)) == [yes, yes, no, no, yes, yes, yes]
    assert verdicts(0.6, board(CAN=0.76)) == [yes, yes, yes, yes, no, no, no]
    assert verdicts(0.6, board(CAN=0.74), peer=0.72) == [yes] * 7
    assert verdicts(0.6, board(CAN=0.74), peer=0.78) == [yes, yes, yes, yes, yes, no, no]
    assert verdicts(0.69, board(CAN=0.74)) == [yes, yes, no, yes, yes, yes, yes]
    assert verdicts(0.81, board(**dict.fromkeys(leaderboard.SYSTEMS, 0.82)))[:3] == [yes, yes, yes]


def test_a_method_that_diverges_everywhere_loses_its_row_and_nothing_else():
    def score(options):
        if options.learning_rate == 1:
            raise Diverged("the loss is not finite")
        return {"test_accuracy": 0.5 + options.seed / 10}

    entries = {"good": ENTRY, "lost": ENTRY.but(learning_rate=1.0)}
    for rows in (all_over_seeds(Scripted(score), "a", entries), compare(Scripted(score), "a", entries, {})):
        assert rows["good"]["last"]["test_accuracy"] == [0.5, 0.6, 0.7]
        assert np.isnan(rows["lost"]["last"]["test_accuracy"]).all()
        assert spread(rows["lost"]["last"]["test_accuracy"]) == "diverged"
    assert rows["lost"]["learning_rate"] == 1.0
    with pytest.raises(Diverged, match="lost"):
        all_over_seeds(Scripted(score), "a", {"lost": entries["lost"]})


def test_one_seed_left_of_several_shows_nothing():
    difference = paired([0.9, math.nan, math.nan], [0.5, 0.5, 0.5])
    assert difference["verdict"] == "level"
    assert claim_ahead("a", {"a - b": difference}).verdict == "not shown"
    assert paired([math.nan, math.nan], [0.5, 0.5])["verdict"] == "level"


def test_the_readmes_blocks_are_made_from_results(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr("sys.argv", ["readme.py"])
    assert readme.main() == 1  # nothing is there yet
    claims = [{"verdict": "holds"}, {"verdict": "not shown"}, {"verdict": "holds"}]
    results = {case: board(CAN=0.74) for case in leaderboard.CASES}
    row = {"name": "a kernel", "ours_s": 0.002, "ratio": 0.5, "limit": 0.75, "met": "yes"}
    rates = {rate: board() | {"learned T": board()["CAN"], "true T": board()["CAN"]} for rate in ("0.0", "0.5")}
    for name, content in {
        "leaderboard-small.json": {"claims": claims, "results": results},
        "layer-fig3-small.json": {"claims": [], "dataset": "digits", "results": rates},
        "speed-cpu.json": {"sections": {"a": {"rows": [row, row | {"name": "no target", "limit": None}]}}},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    page = (
        "before\n"
        + "".join(f"<!-- {name} -->\noutdated\n<!-- end of {name} -->\n" for name in readme.BLOCKS)
        + "after\n"
    )
    readme.README.write_text(page)
    assert readme.main() == 0
    written = readme.README.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "outdated" not in written
    assert "| **CAN** | 74.5 ± 0.7 |" in written
    assert "leaderboard-small.md) | 2 | 1 | 0 |  |" in written
    assert "| a kernel | 2 ms | 0.50 | 0.75 | yes |" in written
    assert "no target" not in written
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("leaderboard.png", "layer-fig3.png"))
    monkeypatch.setattr("sys.argv", ["readme.py", "--check"])
    assert readme.main() == 0
    readme.README.write_text(written.replace("74.5", "94.5"))
    assert readme.main() == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_a_peer_judges_the_labels_that_a_run_is_given(fresh, monkeypatch, tmp_path):
    seen = []

    def scripted(x, given, seed):
        seen.append((seed, given))
        return {"cleanlab": (given, np.linspace(0, 1, len(given)))}

    monkeypatch.setattr(peers, "RESULTS", tmp_path)
    monkeypatch.setattr(peers, "peers", scripted)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: True)
    (tmp_path / "runs").mkdir()
    runner = SimpleNamespace(seeds=2, shared=tmp_path, console=SimpleNamespace(say=lambda text: None))
    data = {"dataset": "digits", "noise": "symmetric:0.4"}
    found = peers.cleanlab(runner, "digits", data, fresh_noise=fresh)
    for seed, given in seen:
        noisy = load("digits", noise="symmetric:0.4", noise_seed=seed if fresh else 0).train.noisy_label
        np.testing.assert_array_equal(given, noisy)
    assert (len(found["recovery"]), found["recovery"][0] == found["recovery"][1]) == (2, not fresh)
    assert peers.cleanlab(runner, "digits", data, fresh_noise=fresh) == found  # remembered
    assert len(seen) == 2
    monkeypatch.setattr(peers, "measured", lambda *_: (100.0, np.nan))
    for _ in range(2):  # where none is wrong there is nothing to rank, also when it is remembered
        assert np.isnan(peers.cleanlab(runner, "digits", {"dataset": "digits", "noise": "none"})["issue_auc"]).all()
    assert peers.cleanlab(runner, "pictures", {"dataset": "fashion_mnist"}) is None
