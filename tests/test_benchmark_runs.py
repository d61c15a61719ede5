"""Runs of the tables: remembered by their options, the same with workers as without, ended with their table."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.protocols import runner as runs
from benchmarks.protocols.common import all_over_seeds
from benchmarks.protocols.runner import Entry, Runner
from nlx.experiment.console import Console
from recipes import baseline, noise_layer

ROOT = Path(__file__).resolve().parents[1]
ENTRY = Entry(baseline.BaselineOptions(learning_rate=0.05, epochs=9), baseline.train)


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Runs that take no time and are counted, remembered in a folder of their own."""
    calls = []

    def run_recipe(options, train, pictures):
        assert train in (baseline.train, noise_layer.train)
        assert not pictures
        calls.append(options)
        options.run_dir.mkdir(parents=True)
        (options.run_dir / "labels.parquet").write_bytes(b"labels")
        return {"last": {"test_accuracy": options.seed / 10}, "best": {}, "wall_seconds": 0}

    monkeypatch.setattr(runs, "run_recipe", run_recipe)
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    return calls


def test_a_run_is_remembered_by_its_options(counted, tmp_path):
    runner = Runner(Console("", quiet=True), 2, Path("shared"))
    first, again = runner("a", ENTRY), runner("another name", ENTRY)
    assert first == again
    assert len(counted) == 1
    runner("a", ENTRY.but(learning_rate=0.01))
    runner("a", ENTRY.but(seed=1))
    assert [(options.learning_rate, options.seed) for options in counted] == [(0.05, 0), (0.01, 0), (0.05, 1)]
    assert len(list((tmp_path / "runs").glob("*.json"))) == 3
    kept = tmp_path / "kept" / "labels.parquet"
    runner("a", ENTRY, keep=kept)  # remembered, but its labels are not there
    assert kept.read_bytes() == b"labels"
    assert len(counted) == 4


def test_a_run_is_remembered_apart_from_another_recipes(counted):
    runner = Runner(Console("", quiet=True), 1, Path("shared"))
    runner("a", ENTRY)
    runner("a", Entry(ENTRY.options, noise_layer.train))
    assert len(counted) == 2


def test_a_quick_run_is_shorter_and_remembered_apart(counted):
    quick = Runner(Console("", quiet=True), 5, Path("shared"), quick=True)
    assert quick.seeds == 1
    quick("a", ENTRY)
    Runner(Console("", quiet=True), 5, Path("shared"))("a", ENTRY)
    assert [options.epochs for options in counted] == [3, 9]


@pytest.mark.slow
@pytest.mark.usefixtures("on_one_device")
def test_workers_give_what_one_run_after_the_other_gives(tmp_path, monkeypatch, of_one_device):
    for name, value in of_one_device.items():  # of the workers, which begin anew
        monkeypatch.setenv(name, value)
    entry = Entry(
        baseline.BaselineOptions(
            dataset="digits", widths=(8,), epochs=2, training_fraction=0.2, batch_size=40, schedule="constant"
        ),
        baseline.train,
    )
    entries = {"plain": entry, "smaller rate": entry.but(learning_rate=0.001)}
    tables = []
    for workers in (1, 2):
        monkeypatch.setattr(runs, "RESULTS", tmp_path / str(workers))
        with Runner(Console("", quiet=True), 2, Path("shared"), workers=workers) as runner:
            rows = all_over_seeds(runner, "a", entries)
            tables.append(
                {name: {k: v for k, v in row["last"].items() if "second" not in k} for name, row in rows.items()}
            )
    assert tables[0] == tables[1]
    assert len(set(tables[0]["plain"]["test_map"])) == 2
    assert len(list((tmp_path / "2" / "runs").glob("*.json"))) == 4


def test_one_run_that_two_ask_for_at_a_time_is_run_once(counted):
    with Runner(Console("", quiet=True), 1, Path("shared")) as runner, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: runner("a", ENTRY), range(4)))
    assert len(counted) == 1


def test_what_fails_first_is_told_and_not_what_it_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    ended = threading.Event()
    with Runner(Console("", quiet=True), 1, Path("."), workers=2) as runner:
        monkeypatch.setattr(runner, "_end_workers", ended.set)

        def run(item):
            if item == 1:
                raise ValueError("the cause")
            assert ended.wait(60)
            raise CancelledError

        with pytest.raises(ValueError, match="the cause"):
            runner.map(run, range(3))
        assert runner.map(lambda item: 2 * item, range(3)) == [0, 2, 4]


STOPPED = """
import sys
from pathlib import Path

from benchmarks.protocols import runner as runs
from nlx.experiment.console import Console
from recipes import baseline

if __name__ == "__main__":
    runs.RESULTS = Path(sys.argv[1])
    options = baseline.BaselineOptions(dataset="digits", widths=(8,), epochs=100_000)
    entry = runs.Entry(options, baseline.train)
    with runs.Runner(Console("", quiet=True), 1, Path("."), workers=2) as runner:
        runner.map(lambda seed: runner("a", entry.but(seed=seed)), range(6))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_table(number, tmp_path, of_one_device):
    script, scratch = tmp_path / "stopped.py", tmp_path / "scratch"
    script.write_text(STOPPED)
    scratch.mkdir()
    environment = {**of_one_device, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    table = subprocess.Popen([sys.executable, script, tmp_path], env=environment, start_new_session=True)
    try:
        wait_until(lambda: len(list(scratch.glob("*/run/config.json"))) == 2)  # both train
        table.send_signal(number)
        table.wait(60)
        wait_until(lambda: not alive(table.pid))
    finally:
        if alive(table.pid):
            os.killpg(table.pid, signal.SIGKILL)
    assert not list((tmp_path / "runs").glob("*.json"))


def wait_until(holds, seconds=120):
    """Look until something holds, for so long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def alive(group):
    """Whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
