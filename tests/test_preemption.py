"""One of two processes is killed, or asked to stop: nothing hangs, and the run goes on as if nothing had been."""

import json
import os
import signal
import subprocess
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
from tests.compiling import QUICK
from tests.test_two_processes import ROOT, TIMEOUT, free_port

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


def begin(folder, *, phase="", resume=False):
    """The recipe in two processes of two devices each; in a phase they wait, once they have said that it has come."""
    address = f"localhost:{free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK, "JAX_NUM_CPU_DEVICES": "2"}
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), f"{address},{i},2", phase, "--resume" if resume else "--no_resume"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


def ended(processes, seconds=TIMEOUT):
    """Exit codes and what was said, once all have ended within so many seconds."""
    try:
        said = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [process.returncode for process in processes], said


def wait_for(mark, processes):
    until = time.monotonic() + TIMEOUT
    while not mark.exists():
        assert time.monotonic() < until, "the phase never came"
        assert [process.poll() for process in processes] == [None, None], ended(processes)
        time.sleep(0.05)


def rows(folder):
    """What was logged of each epoch, but for times."""
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in logged]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    codes, said = ended(begin(folder))
    assert codes == [0, 0], "\n".join(said)[-4000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "writing"])
def test_what_happens_to_one_of_two_processes_costs_no_result(phase, how, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    processes = begin(folder, phase=phase)
    wait_for(tmp_path / "mark-1", processes)
    began = time.monotonic()
    processes[1].send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    codes, said = ended(processes, HEARTBEAT + TIMEOUT)
    took = time.monotonic() - began
    print(f"{phase}, {how}: {codes} after {took:.1f} s")
    if how == "stopped":
        assert codes == [143, 143], "\n".join(said)[-4000:]
        assert all("go on with --resume" in text for text in said)
        assert took < 30  # on a busy machine; 5 seconds are wanted
    else:
        assert 0 not in codes
        assert took < HEARTBEAT
    codes, said = ended(begin(folder, resume=True))
    assert codes == [0, 0], "\n".join(said)[-4000:]
    assert rows(folder) == rows(uninterrupted)
    again, once = (read_labels(f / "labels.parquet") for f in (folder, uninterrupted))
    np.testing.assert_array_equal(again.cleaned_label, once.cleaned_label)
    np.testing.assert_array_equal(again.posterior, once.posterior)


@pytest.mark.slow
def test_the_first_process_may_be_stopped_while_it_writes_for_all(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    processes = begin(folder, phase="writing")
    wait_for(tmp_path / "mark-0", processes)
    began = time.monotonic()
    processes[0].send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    print(f"writing, stopped: {codes} after {time.monotonic() - began:.1f} s")
    assert codes == [143, 0], "\n".join(said)[-4000:]
    assert not (folder / "summary.json").exists()
    codes, said = ended(begin(folder, resume=True))
    assert codes == [0, 0], "\n".join(said)[-4000:]
    assert rows(folder) == rows(uninterrupted)


def work(folder, distributed, phase, resume):
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

    options = [*OPTIONS, *MORE, f"--run_dir={folder}", f"--distributed={distributed}"]
    if resume == "--resume":
        options.append(resume)
    if not phase:
        return main(self_learning.SelfLearningOptions, self_learning.train, options)
    where, name = PHASES[phase]
    with mock.patch.object(where, name, waiting(getattr(where, name))):
        return main(self_learning.SelfLearningOptions, self_learning.train, options)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), *sys.argv[2:]))
