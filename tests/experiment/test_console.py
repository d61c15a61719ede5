import io
import sys
import time
from types import SimpleNamespace

import pytest

from nlx.experiment.console import Console, Status
from nlx.training.observers import Progress
from nlx.training.stages import Stages

ROW = {
    "epoch": 2,
    "step": 8,
    "train_loss": 0.5,
    "test_accuracy": 0.875,
    "recovery": None,
    "seconds": 1.26,
    "examples_per_second": 1e4,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def started():
    """Function that makes a console of a training of three epochs of four steps."""

    def make(stream, step=0, **options):
        console = Console("can on digits", stream=stream, **options)
        console.on_start(None, Stages(3, 8, 2), SimpleNamespace(step=step))
        return console

    return make


def test_an_epoch_is_one_line_of_what_is_known(started):
    stream = io.StringIO()
    console = started(stream)
    console.on_progress(Progress(2, 1, 4, 0.7, 500.0))
    console.on_epoch(None, ROW)
    console.close(None)
    expected = "can on digits  epoch 2/3  loss 0.5000, test accuracy 87.5%  (1.3 s, 10,000 examples/s)\n"
    assert stream.getvalue() == expected


def test_a_terminal_sees_all_that_is_done_how_far_it_is_and_what_is_left(started):
    stream = Terminal()
    console = started(stream, step=5)
    assert stream.getvalue().lstrip("\r").startswith("compiling  00:00")
    console.on_progress(Progress(2, 2, 4, 0.7, 512.0))
    console.on_progress(Progress(2, 4, 4, 0.6, 512.0))
    console.on_epoch(None, ROW)
    console.on_progress(Progress(3, 1, 4, 0.6, 512.0))
    console.close(None)
    told = stream.getvalue()
    assert "training" in told
    assert "6/12 [00:00<" in told
    assert "epoch 2/3, scoring, loss 0.6000, 512 examples/s" in told
    assert "9/12" in told
    assert told.index("8/12") < told.index("can on digits  epoch 2/3") < told.index("9/12")
    assert told.rstrip(" ").endswith("\r")  # nothing of it stays


def test_time_goes_on_while_nothing_is_told(monkeypatch):
    monkeypatch.setattr("nlx.experiment.console._TICK", 0.01)
    stream = Terminal()
    status, until = Status(stream), time.monotonic() + 10
    status.begin("loading")
    while stream.getvalue().count("loading") < 3 and time.monotonic() < until:
        time.sleep(0.01)
    status.end()
    assert stream.getvalue().count("loading") >= 3


def test_a_notebook_sees_one_line_and_the_last_epoch(started, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    stream = io.StringIO()
    console = started(stream)
    console.on_progress(Progress(2, 4, 4, 0.7, 512.0))
    console.on_epoch(None, ROW)
    console.on_epoch(None, ROW | {"epoch": 3, "step": 12})
    console.close(None)
    assert "training" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
    assert "epoch 3/3  loss 0.5000" in stream.getvalue()


def test_a_quiet_console_writes_nothing(started):
    stream = Terminal()
    console = started(stream, quiet=True)
    console.on_progress(Progress(2, 1, 4, 0.7, 512.0))
    console.on_epoch(None, ROW)
    console.say("done")
    assert stream.getvalue() == ""
