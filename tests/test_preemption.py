"""One of two processes is killed, or asked to stop: nothing hangs, and the run goes on as if nothing had been."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from nlx.cleaning.label_files import read_labels
from nlx.experiment import run
from nlx.experiment.main import main
from nlx.experiment.run import Run
from nlx.training.evaluation import Evaluate
from nlx.training.feed import DeviceFeed
from nlx.training.passes import Passes
from recipes import self_learning
from tests.processes import TIMEOUT, assert_well, outcome, two

OPTIONS = ("--dataset=digits", "--noise=symmetric:0.4", "--model=mlp", "--widths=16", "--epochs=4", "--batch_size=128")
MORE = ("--members=64", "--prototypes=2", "--start_epoch=1", "--checkpoint_seconds=0")
PHASES: dict[str, tuple[Any, str]] = {
    "training": (DeviceFeed, "advance"),
    "refresh": (Passes, "refresh"),
    "evaluation": (Evaluate, "score"),
    "export": (Run, "export"),
    "writing": (run, "write_products"),
}
CALLS = {"training": 3, "refresh": 3, "evaluation": 3, "export": 1, "writing": 1}
HEARTBEAT = 120.0  # seconds, within which the others hear of a process that died


def begun(folder, *, phase="", resume=False):
    """The recipe in two processes; in a phase they wait, once they have said that it has come."""
    more = ["--resume"] if resume else []
    return two(__file__, lambda address, i: (folder, f"{address},{i},2", phase, *more))


def whole(folder, *, resume=False):
    """The recipe to its end."""
    with begun(folder, resume=resume) as processes:
        assert_well(outcome(processes))
    return folder


def wait_for(mark, processes):
    until = time.monotonic() + TIMEOUT
    while not mark.exists():
        assert time.monotonic() < until, "the phase never came"
        assert [process.poll() for process in processes] == [None, None], outcome(processes)
        time.sleep(0.05)


def after(processes, number, kind, seconds=TIMEOUT):
    """What comes of both once one has got a signal, and after how many seconds."""
    began = time.monotonic()
    processes[number].send_signal(kind)
    return outcome(processes, seconds), time.monotonic() - began


def rows(folder):
    """What was logged of each epoch, but for times."""
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in logged]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("two") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "writing"])
def test_what_happens_to_one_of_two_processes_costs_no_result(phase, how, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    with begun(folder, phase=phase) as processes:
        wait_for(tmp_path / "mark-1", processes)
        kind, seconds = (signal.SIGKILL, HEARTBEAT + TIMEOUT) if how == "killed" else (signal.SIGTERM, TIMEOUT)
        found, took = after(processes, 1, kind, seconds)
    print(f"{phase}, {how}: {found.codes} after {took:.1f} s")
    if how == "stopped":
        assert found.codes == [143, 143], "\n".join(found.err)[-4000:]
        assert all("go on with --resume" in text for text in found.err)
        assert took < 30  # on a busy machine; 5 seconds are wanted
    else:
        assert 0 not in found.codes
        assert took < HEARTBEAT
    whole(folder, resume=True)
    assert rows(folder) == rows(uninterrupted)
    again, once = (read_labels(f / "labels.parquet") for f in (folder, uninterrupted))
    np.testing.assert_array_equal(again.cleaned_label, once.cleaned_label)
    np.testing.assert_array_equal(again.posterior, once.posterior)


@pytest.mark.slow
def test_the_first_process_may_be_stopped_while_it_writes_for_all(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    with begun(folder, phase="writing") as processes:
        wait_for(tmp_path / "mark-0", processes)
        found, took = after(processes, 0, signal.SIGTERM)
    print(f"writing, stopped: {found.codes} after {took:.1f} s")
    assert found.codes == [143, 0], "\n".join(found.err)[-4000:]
    assert not (folder / "summary.json").exists()
    whole(folder, resume=True)
    assert rows(folder) == rows(uninterrupted)


def work(folder, distributed, phase, *more):
    """A process; in its phase it leaves a mark, and waits for what is to happen."""
    calls = []

    def waiting(function):
        def call(*args, **options):
            calls.append(None)
            if len(calls) == CALLS[phase]:
                (folder.parent / f"mark-{distributed[-3]}").touch()
                time.sleep(1.0)
            return function(*args, **options)

        return call

    options = [*OPTIONS, *MORE, f"--run_dir={folder}", f"--distributed={distributed}", *more]
    if not phase:
        return main(self_learning.SelfLearningOptions, self_learning.train, options)
    where, name = PHASES[phase]
    with mock.patch.object(where, name, waiting(getattr(where, name))):
        return main(self_learning.SelfLearningOptions, self_learning.train, options)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), *sys.argv[2:]))
