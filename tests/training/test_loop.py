"""Epochs, rows, stops and what a watcher is told. That a resumed run gives the same numbers is in test_resume.py."""

import json
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.methods.plain import plain
from nlx.training import loop
from nlx.training.checkpoint import Checkpoints
from nlx.training.loop import Diverged, MetricsLog, Stopped
from nlx.training.stages import Course, Stage

N, B, STEPS = 100, 16, 6


class Clock:
    """Stands for time.perf_counter: every program takes as long as a test says."""

    def __init__(self, seconds_per_call):
        self.now, self.seconds = 0.0, seconds_per_call

    def __call__(self):
        self.now += self.seconds
        return self.now


class Tape:
    """A feed that takes no steps but writes down which ones it was asked for."""

    def __init__(self, steps_per_epoch, longest, loss=lambda step: 1.0):
        self.steps_per_epoch, self.longest, self.loss = steps_per_epoch, longest, loss
        self.asked = []

    def advance(self, state, step, count):
        self.asked.append((step, count))
        assert int(state.step) == step
        gained = sum(self.loss(i) for i in range(step, step + count))
        sums = {"train_loss": state.sums["train_loss"] + np.float32(gained)}
        return state._replace(step=jnp.int32(step + count), sums=sums)


@pytest.fixture
def taped(split, new_run):
    """Function that makes a run whose feed is a Tape."""

    def make(*args, **options):
        run = new_run(split, plain())
        return run._replace(feed=Tape(*args, **options))

    return make


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_epoch_leaves_a_row_of_means(split, remembering, new_run, train, tmp_path):
    run = new_run(split, remembering)
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    state = train(run, epochs=2, log=log, evaluate=lambda state: {"at": int(state.step), "note": None})
    rows = rows_of(tmp_path / "metrics.jsonl")
    assert rows == log.rows
    assert [list(row) for row in rows] == 2 * [
        ["epoch", "step", "seconds", "examples_per_second", *state.sums, "at", "note"]
    ]
    assert [(row["epoch"], row["step"], row["at"]) for row in rows] == [(1, 6, 6), (2, 12, 12)]
    for name, value in state.sums.items():  # the sums of the last epoch alone
        assert rows[1][name] == float(value) / STEPS
    assert rows[0]["train_loss"] != rows[1]["train_loss"]
    assert all(math.isclose(r["examples_per_second"], 96 / r["seconds"], rel_tol=0.1) for r in rows)


def test_a_row_is_the_mean_over_the_steps_however_they_are_cut(taped, train, tmp_path):
    for longest in (1, 4, 100):
        log = MetricsLog(tmp_path / f"{longest}.jsonl", 0)
        train(taped(6, longest, loss=float), epochs=2, log=log)
        assert [row["train_loss"] for row in log.rows] == [2.5, 8.5]


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_evaluation_comes_every_so_many_epochs_and_after_the_last(taped, train, tmp_path, every, evaluated):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    train(taped(2, 2), epochs=5, log=log, evaluate=lambda state: {"score": 1.0}, evaluate_every=every)
    assert [row["epoch"] for row in log.rows] == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in log.rows if "score" in row] == evaluated


def test_every_step_is_taken_once_in_order_and_none_crosses_an_epoch(taped, train):
    run = taped(7, 3)
    train(run, epochs=3)
    assert [step for first, count in run.feed.asked for step in range(first, first + count)] == list(range(21))
    assert all(first // 7 == (first + count - 1) // 7 and count <= 3 for first, count in run.feed.asked)


def test_last_layers_are_drawn_anew_where_a_stage_wants_it(taped, train):
    run = taped(2, 2)
    course = Course([Stage("first", np.arange(2 * B), 2), Stage("second", np.arange(2 * B), 2, fresh_heads=True)], B)
    drawn = []
    train(run, course=course, redraw=lambda state: drawn.append(int(state.step)) or state)
    assert drawn == [4]


def test_a_run_stopped_where_a_stage_begins_draws_its_last_layers_when_it_goes_on_and_only_then(taped, train):
    run = taped(2, 1)
    course = Course([Stage("first", np.arange(2 * B), 2), Stage("second", np.arange(2 * B), 2, fresh_heads=True)], B)
    drawn = []
    options = {"course": course, "redraw": lambda state: drawn.append(int(state.step)) or state}
    with pytest.raises(Stopped, match="after step 4"):
        train(run, should_stop=lambda: len(run.feed.asked) == 4, **options)
    assert drawn == []
    train(run, state=run.state._replace(step=jnp.int32(4)), **options)
    assert drawn == [4]
    train(run, state=run.state._replace(step=jnp.int32(5)), **options)  # within the stage, whose heads have learnt
    assert drawn == [4]


def test_a_run_that_is_done_takes_no_step(taped, train):
    run = taped(4, 4)
    assert train(run, run.state._replace(step=jnp.int32(8)), epochs=2) is not None
    assert run.feed.asked == []


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [
        (0.001, [1, 2, 4, 8, 16, 32, 37, 64, 36]),  # twice as long each time; what is left of an epoch
        (0.25, [1, 2, 4, 8, 16, 32, 37, 64, 36]),
        (10.0, [1] * 200),  # longer than half a second with a single step
    ],
)
def test_programs_grow_until_they_take_half_a_second(taped, train, monkeypatch, seconds, counts):
    run = taped(100, 64)
    monkeypatch.setattr(loop.time, "perf_counter", Clock(seconds))
    train(run, epochs=2)
    assert [count for _, count in run.feed.asked] == counts


def test_programs_shrink_again_when_steps_become_slow(taped, train, monkeypatch):
    run = taped(100, 64)
    clock = Clock(0.001)
    monkeypatch.setattr(loop.time, "perf_counter", clock)
    run.feed.loss = lambda step: setattr(clock, "seconds", 2.0 if step >= 60 else 0.001) or 1.0
    train(run, epochs=1)
    assert [count for _, count in run.feed.asked] == [1, 2, 4, 8, 16, 32, 8, 2, *[1] * 27]


def test_programs_of_all_lengths_are_compiled_once(split, remembering, new_run, train, monkeypatch, caplog):
    run = new_run(split, remembering, devices=2)  # no other test's, so that nothing is compiled yet
    monkeypatch.setattr(loop.time, "perf_counter", Clock(0.001))
    lengths = []
    advance = run.feed.advance
    run.feed.advance = lambda state, step, count: lengths.append(count) or advance(state, step, count)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(run, epochs=3)
    assert set(lengths) == {1, 2, 3, 6}
    assert len(run.traces) == 1
    compiled = [record.getMessage() for record in caplog.records if "XLA compilation of jit(run)" in record.message]
    assert len(compiled) == 1


def test_the_watcher_is_told_of_every_program_and_every_epoch(taped, train, quiet, monkeypatch):
    monkeypatch.setattr(loop.time, "perf_counter", Clock(0.5))
    train(taped(3, 2, loss=float), epochs=2, watcher=quiet)
    rate = B / 0.5
    assert quiet.told[:-1] == [
        ("progress", 1, 1, 3, 0.0, rate),
        ("progress", 1, 2, 3, 0.5, rate),
        ("progress", 1, 3, 3, 1.0, rate),
        quiet.told[3],
        ("progress", 2, 1, 3, 3.0, rate),
        ("progress", 2, 2, 3, 3.5, rate),
        ("progress", 2, 3, 3, 4.0, rate),
    ]
    rows = [row for kind, row in (quiet.told[3], quiet.told[7]) if kind == "epoch"]
    assert [row["train_loss"] for row in rows] == [1.0, 4.0]
    assert [row["seconds"] for row in rows] == [1.5, 1.5]
    assert [row["examples_per_second"] for row in rows] == [32.0, 32.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(taped, train, quiet, tmp_path, bad):
    run = taped(6, 1, loss=lambda step: bad if step == 8 else 1.0)
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    with (
        Checkpoints(tmp_path / "checkpoints") as checkpoints,
        pytest.raises(
            Diverged, match=r"^the loss is not finite after step 9: take a lower --learning_rate and another --run_dir$"
        ),
    ):
        train(run, log=log, checkpoints=checkpoints, checkpoint_seconds=0.0, watcher=quiet)
    assert run.feed.asked[-1] == (8, 1)
    assert [row["epoch"] for row in rows_of(log.path)] == [1]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["6"]  # the one from before stays


def test_real_training_that_diverges_is_caught(split, remembering, new_run, train):
    run = new_run(split, remembering)
    broken = jax.tree.map(lambda x: x * jnp.inf, run.state.params)
    with pytest.raises(Diverged, match="take a lower --learning_rate"):
        train(run, run.state._replace(params=broken))


def test_a_stop_within_an_epoch_leaves_no_row_and_saves(taped, train, tmp_path):
    run = taped(6, 1)
    calls = []
    with Checkpoints(tmp_path / "checkpoints") as checkpoints, pytest.raises(Stopped) as stop:
        train(run, checkpoints=checkpoints, should_stop=lambda: calls.append(1) or len(calls) == 4)
    assert stop.value.step == 4
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["4"]
    assert run.feed.asked == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_stop_needs_no_checkpoints(taped, train):
    with pytest.raises(Stopped, match="after step 1"):
        train(taped(6, 1), should_stop=lambda: True)


def test_a_stop_after_the_last_step_finds_the_run_done(taped, train, tmp_path):
    run = taped(3, 1)
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        state = train(run, epochs=2, checkpoints=checkpoints, log=log, should_stop=lambda: len(run.feed.asked) == 6)
    assert int(state.step) == 6
    assert len(log.rows) == 2
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["6"]


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, [1, 2, 3, 4, 5, 6, 7, 8]), (25.0, [3, 6, 8]), (1e9, [8])])
def test_checkpoints_are_written_at_epochs_ends_when_due_and_always_at_the_end(
    taped, train, monkeypatch, seconds, epochs
):
    class Book:
        def __init__(self):
            self.steps = []

        def save(self, step, state):
            assert int(state.step) == step
            self.steps.append(step)

    book = Book()
    monkeypatch.setattr(loop.time, "monotonic", Clock(10.0))  # told once at the start, after each save and epoch
    train(taped(3, 3), epochs=8, checkpoints=book, checkpoint_seconds=seconds)
    assert book.steps == [3 * epoch for epoch in epochs]


def test_the_log_drops_rows_after_the_step_a_run_resumes_from(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "step": 6 * epoch, "train_loss": 1 / epoch})
    before = path.read_bytes()
    assert MetricsLog(path, 18).rows == log.rows
    assert path.read_bytes() == before
    resumed = MetricsLog(path, 13)  # in the middle of epoch 3
    assert [row["epoch"] for row in resumed.rows] == [1, 2]
    assert rows_of(path) == resumed.rows
    resumed.append({"epoch": 3, "step": 18})
    assert [row["epoch"] for row in rows_of(path)] == [1, 2, 3]
    assert MetricsLog(path, 5).rows == []
    assert path.read_text() == ""
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("half", ['{"epoch": 2, "st', '{"epoch": 2, "step": 12}', "\x00\x00"])
def test_the_log_drops_half_a_row(tmp_path, half):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "step": 6}\n' + half)
    log = MetricsLog(path, 12)
    log.append({"epoch": 2, "step": 12})
    assert rows_of(path) == [{"epoch": 1, "step": 6}, {"epoch": 2, "step": 12}]


def test_a_row_is_on_disk_before_the_watcher_hears_of_it(taped, train, tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)

    class Looker:
        def progress(self, *args):
            pass

        def epoch(self, row):
            assert rows_of(log.path)[-1] == row

    train(taped(3, 3), epochs=2, log=log, watcher=Looker())
    assert len(rows_of(log.path)) == 2
