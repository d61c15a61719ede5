"""metrics.jsonl holds each epoch once, whatever a run was interrupted by."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from nlx.experiment.log import MetricsLog


def start(path, step, sums=()):
    log = MetricsLog(path)
    log.on_start(None, None, SimpleNamespace(step=jnp.int32(step), sums=dict.fromkeys(sums, jnp.float32(0))))
    return log


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    """The log of a run that has had two epochs of six steps."""
    path = tmp_path / "metrics.jsonl"
    log = start(path, 0)
    for epoch in (1, 2):
        log.on_epoch(None, {"epoch": epoch, "step": 6 * epoch, "train_loss": 0.1 * epoch})
    return path


def test_a_row_is_on_disk_when_its_epoch_is_over(path):
    log = MetricsLog(path)
    log.on_epoch(None, {"epoch": 3, "step": 18})
    assert [row["epoch"] for row in read(path)] == [1, 2, 3]
    assert read(path)[1] == {"epoch": 2, "step": 12, "train_loss": 0.2}


def test_a_training_that_goes_on_knows_the_rows_of_before(path):
    log = start(path, 12)
    assert [row["epoch"] for row in log.rows] == [1, 2]
    log.on_epoch(None, {"epoch": 3, "step": 18})
    assert log.rows == read(path)


def test_rows_after_the_checkpoint_are_dropped(path):
    log = start(path, 6)
    assert [row["epoch"] for row in log.rows] == [row["epoch"] for row in read(path)] == [1]


def test_the_row_of_an_epoch_whose_scores_are_to_come_is_dropped(path):
    """It was written before a kill, and comes again."""
    steps = [row["step"] for row in read(path)]
    assert start(path, steps[1], ["train_loss"]).rows == read(path)
    assert [row["step"] for row in read(path)] == steps[:1]


def test_a_training_from_the_start_drops_all_rows(path):
    assert start(path, 0).rows == read(path) == []


@pytest.mark.parametrize("half", ['{"epoch": 3, "st', '{"epoch": 3'])
def test_half_a_row_that_a_kill_left_is_dropped(path, half):
    with path.open("a") as file:
        file.write(half)
    log = start(path, 99)
    assert [row["epoch"] for row in log.rows] == [row["epoch"] for row in read(path)] == [1, 2]
    assert path.read_text().endswith("\n")


def test_a_log_that_is_right_is_not_written_again(path):
    before = path.stat()
    start(path, 12)
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "damage", ["\x00\x00\x00\n", "[1]\n", '{"epoch": 3}\n', '{"epoch": 3, "step": "x"}\n', "\udcff\n"]
)
def test_what_is_no_row_is_left_out(path, damage):
    path.write_bytes(damage.encode("utf-8", "surrogateescape") + path.read_bytes())
    assert [row["epoch"] for row in start(path, 99).rows] == [row["epoch"] for row in read(path)] == [1, 2]


def test_a_whole_last_row_that_lost_its_newline_is_mended(path):
    path.write_text(path.read_text().rstrip("\n"))
    log = start(path, 12)
    log.on_epoch(None, {"epoch": 3, "step": 18, "test_map": float("nan")})
    assert [(row["epoch"], row.get("test_map")) for row in read(path)] == [(1, None), (2, None), (3, None)]
    assert "NaN" not in path.read_text()
