import io
from types import SimpleNamespace

import pytest

from nlx.experiment.console import Console
from nlx.training.observers import Progress

ROW = {
    "epoch": 2,
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
    """Function that makes a console of a training of three epochs."""

    def make(stream, **options):
        console = Console("can on digits", stream=stream, **options)
        console.on_start(None, SimpleNamespace(epochs=3), None)
        return console

    return make


def test_an_epoch_is_one_line_of_what_is_known(started):
    stream = io.StringIO()
    console = started(stream)
    console.on_progress(Progress(2, 1, 4, 0.7, 500.0))
    console.on_epoch(None, ROW)
    expected = "can on digits  epoch 2/3  loss 0.5000, test accuracy 87.5%  (1.3 s, 10,000 examples/s)\n"
    assert stream.getvalue() == expected


def test_a_terminal_gets_a_bar_with_rate_and_loss(started):
    stream = Terminal()
    console = started(stream)
    console.on_progress(Progress(2, 1, 4, 0.7, 512.0))
    console.on_progress(Progress(2, 3, 4, 0.6, 512.0))
    console.close(None)
    assert "epoch 2/3" in stream.getvalue()
    assert "512 examples/s, loss 0.6000" in stream.getvalue()
    assert "3/4" in stream.getvalue()


def test_every_epoch_has_a_bar_of_its_own(started):
    stream = Terminal()
    console = started(stream)
    for epoch in (1, 2):
        console.on_progress(Progress(epoch, 1, 4, 0.7, 512.0))
        console.on_epoch(None, ROW | {"epoch": epoch})
    console.on_progress(Progress(3, 1, 4, 0.7, 512.0))
    console.close(KeyboardInterrupt())
    assert all(f"epoch {i}/3:" in stream.getvalue() for i in (1, 2, 3))


def test_a_quiet_console_writes_nothing(started):
    stream = Terminal()
    console = started(stream, quiet=True)
    console.on_progress(Progress(2, 1, 4, 0.7, 512.0))
    console.on_epoch(None, ROW)
    console.say("done")
    assert stream.getvalue() == ""
