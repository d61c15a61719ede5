"""Epochs, rows, stops, and what observers are told when. That a resumed training is the same is in test_resume.py."""

import jax
import jax.numpy as jnp
import pytest

from nlx.training import loop
from nlx.training.loop import Diverged
from nlx.training.observers import Interrupted, Observer, Progress
from nlx.training.stages import Stage
from tests.training.conftest import REMEMBERING, STEPS, Clock, Tape, Told, assert_same, taped


def test_an_epoch_leaves_a_row_of_means(split, trainer_for):
    fitted = trainer_for(split).fit(split, jax.random.key(0), 2)
    rows = fitted.history
    assert [list(row)[:5] for row in rows] == 2 * [["epoch", "step", "seconds", "examples_per_second", "train_loss"]]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, STEPS), (2, 2 * STEPS)]
    for name, value in fitted.state.sums.items():  # the sums of the last epoch alone
        assert rows[1][name] == float(value) / STEPS
    assert {"objective", "rho"} < set(rows[0])
    assert "stage" not in rows[0]


@pytest.mark.parametrize("longest", [1, 4, 100])
def test_a_row_is_the_mean_over_the_steps_however_they_are_cut(longest):
    history = taped(Tape(longest, float), 2, 6).history
    assert [row["train_loss"] for row in history] == [2.5, 8.5]


def test_every_step_is_taken_once_in_order_and_none_crosses_an_epoch():
    feed = Tape(3)
    taped(feed, 3, 7)
    assert [step for first, count in feed.asked for step in range(first, first + count)] == list(range(21))
    assert all(first // 7 == (first + count - 1) // 7 and count <= 3 for first, count in feed.asked)


def test_an_epoch_begins_where_it_begins_and_not_where_a_training_goes_on():
    stages = [Stage(2, "a"), Stage(1, "b")]
    begun = []
    taped(Tape(), None, 3, stages=stages, begun=begun)
    assert begun == [(0, 0), (3, 0), (6, 1)]
    begun.clear()
    taped(Tape(), None, 3, stages=stages, begun=begun, step=4)
    assert begun == [(6, 1)]


def test_a_training_that_is_done_takes_no_step():
    feed, told = Tape(), Told()
    assert taped(feed, 2, 4, [told], step=8).history == []
    assert feed.asked == []
    assert told.events == [("end", 8)]


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [
        (0.001, [1, 2, 4, 8, 16, 32, 37, 64, 36]),  # twice as long each time; what is left of an epoch
        (0.25, [1, 2, 4, 8, 16, 32, 37, 64, 36]),
        (10.0, [1] * 200),  # longer than half a second with a single step
    ],
)
def test_programs_grow_until_they_take_half_a_second(monkeypatch, seconds, counts):
    feed = Tape(64)
    monkeypatch.setattr(loop.time, "perf_counter", Clock(seconds))
    taped(feed, 2, 100)
    assert [count for _, count in feed.asked] == counts


def test_programs_shrink_again_when_steps_become_slow(monkeypatch):
    clock, feed = Clock(0.001), Tape(64)
    monkeypatch.setattr(loop.time, "perf_counter", clock)
    feed.loss = lambda step: setattr(clock, "seconds", 2.0 if step >= 60 else 0.001) or 1.0
    taped(feed, 1, 100)
    assert [count for _, count in feed.asked] == [1, 2, 4, 8, 16, 32, 8, 2, *[1] * 27]


def test_observers_are_told_in_order_of_every_program_and_every_epoch(monkeypatch):
    monkeypatch.setattr(loop.time, "perf_counter", Clock(0.5))
    told, rows, progress = Told(), [], []

    class Looker(Observer):
        def on_progress(self, seen):
            progress.append(seen)

        def on_epoch(self, state, row):
            row["score"] = 10 * row["epoch"]  # for those that follow

    fitted = taped(Tape(2, float), 2, 3, [told, Looker(), rows.append])
    assert told.events == [
        *[("progress", 1, done) for done in (1, 2, 3)],
        ("epoch", 1),
        *[("progress", 2, done) for done in (1, 2, 3)],
        ("epoch", 2),
        ("end", 6),
    ]
    assert progress[:3] == [Progress(1, done, 3, loss, 32.0) for done, loss in ((1, 0.0), (2, 0.5), (3, 1.0))]
    assert [(row["score"], row["train_loss"], row["seconds"]) for row in rows] == [(10, 1.0, 1.5), (20, 4.0, 1.5)]
    assert rows == fitted.history


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training(bad):
    feed, told = Tape(1, lambda step: bad if step == 8 else 1.0), Told()
    with pytest.raises(Diverged, match=r"^the loss is not finite after step 9: take a lower `learning_rate`$"):
        taped(feed, 3, 6, [told])
    assert feed.asked[-1] == (8, 1)
    assert ("epoch", 1) in told.events
    assert ("epoch", 2) not in told.events


def test_real_training_that_diverges_is_caught_and_observers_are_closed(split, trainer_for):
    told = Told()
    trainer = trainer_for(split, observers=[told])
    state = trainer.init(jax.random.key(0), split)
    broken = state._replace(params=jax.tree.map(lambda x: x * jnp.inf, state.params))
    with pytest.raises(Diverged):
        trainer.fit(split, jax.random.key(0), 1, state=broken)
    assert told.events == [("start", 0), ("close", Diverged)]


def test_a_stop_within_an_epoch_leaves_no_row():
    told = Told(lambda events: len(events) == 4)
    fitted = taped(Tape(1), 2, 6, [told])
    assert (fitted.stopped, fitted.history, int(fitted.state.step)) == (True, [], 4)
    assert told.events[-1] == ("stop", 4)


def test_a_stop_after_an_epoch_keeps_its_row_and_one_after_the_last_step_finds_all_done():
    told = Told(lambda events: events[-1] == ("epoch", 1))
    fitted = taped(Tape(8), 2, 3, [told])
    assert (fitted.stopped, len(fitted.history), int(fitted.state.step)) == (True, 1, 3)
    late = Told(lambda events: ("epoch", 2) in events)
    fitted = taped(Tape(8), 2, 3, [late])
    assert (fitted.stopped, len(fitted.history)) == (False, 2)
    assert late.events[-1] == ("end", 6)


def test_all_observers_hear_of_a_stop_that_one_asked_for_and_are_closed(split, trainer_for):
    first, second = Told(), Told(lambda events: events[-1][0] == "progress")
    fitted = trainer_for(split, observers=[first, second]).fit(split, jax.random.key(0), 2)
    assert fitted.stopped
    for told in (first, second):
        assert told.events[0] == ("start", 0)
        assert told.events[-2:] == [("stop", 1), ("close", type(None))]


def test_every_observer_is_closed_even_behind_one_that_cannot_be(split, trainer_for):
    class Stuck(Told):
        def close(self, error):
            super().close(error)
            raise OSError("disk full")

    first, last = Stuck(), Told()
    with pytest.raises(OSError, match="disk full"):
        trainer_for(split, observers=[first, last]).fit(split, jax.random.key(0), 1)
    assert first.events[-2:] == [("end", STEPS), ("close", type(None))]
    assert last.events[-2:] == [("end", STEPS), ("close", OSError)]


@pytest.mark.parametrize("hook", ["on_start", "on_progress", "on_epoch", "stop_requested", "on_end"])
def test_an_observers_error_ends_the_training_and_closes_all(split, trainer_for, hook):
    class Faulty(Observer):
        pass

    def fail(*_):
        raise KeyError(hook)

    setattr(Faulty, hook, fail)
    before, behind = Told(), Told()
    with pytest.raises(KeyError, match=hook):
        trainer_for(split, observers=[before, Faulty(), behind]).fit(split, jax.random.key(0), 1)
    for told in (before, behind):
        assert told.events[-1] == ("close", KeyError)
        assert [event[0] for event in told.events].count("close") == 1


def test_an_epochs_end_that_was_left_is_done_again(split, trainer_for, stepwise):
    """A stop within the scores: the steps are kept, and refresh, scores and row come when the training goes on."""

    class Leaving(Told):
        def __init__(self, leave):
            super().__init__()
            self.leave = leave

        def score(self, state, row):
            self.events.append(("score", row["epoch"]))
            if self.leave:
                raise Interrupted
            row["scored"] = int(state.step)

    told, later = Leaving(True), Leaving(False)
    whole = trainer_for(split, REMEMBERING, observers=[Leaving(False)]).fit(split, jax.random.key(0), 2)
    cut = trainer_for(split, REMEMBERING, observers=[told]).fit(split, jax.random.key(0), 2)
    assert (cut.stopped, cut.history, int(cut.state.step)) == (True, [], STEPS)
    assert told.events[-3:] == [("score", 1), ("stop", STEPS), ("close", type(None))]
    rest = trainer_for(split, REMEMBERING, observers=[later]).fit(split, jax.random.key(7), 2, state=cut.state)
    assert later.events[1:3] == [("score", 1), ("epoch", 1)]
    timed = ("seconds", "examples_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in fit.history] for fit in (whole, rest)]
    assert rows[0] == rows[1]
    assert_same(rest.state, whole.state)
