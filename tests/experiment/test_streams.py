"""Standard streams that are closed, broken or full end nothing."""

import os
import sys

import pytest

from nlx.experiment.streams import lasting_streams


class Broken:
    def __init__(self, number):
        self.number = number

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise OSError(28, "No space left on device")

    def fileno(self):
        return self.number


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_breaks_goes_on_as_nothing(monkeypatch, name):
    reads, writes = os.pipe()
    monkeypatch.setattr(sys, name, Broken(writes))
    with lasting_streams():
        print("lost", file=getattr(sys, name), flush=True)
        os.write(writes, b"goes nowhere")
    os.close(writes)
    assert os.read(reads, 9) == b""
    os.close(reads)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_closed_from_the_start_takes_everything(monkeypatch, stream, tmp_path):
    if stream == "closed":
        stream = (tmp_path / "gone").open("w")
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with lasting_streams():
        print("lost", file=sys.stderr, flush=True)
    assert sys.stderr is stream


@pytest.mark.parametrize(("columns", "inside"), [("4", 40), ("0", None), ("100", 100)])
def test_help_can_be_laid_out_on_a_narrow_terminal(monkeypatch, columns, inside):
    monkeypatch.setenv("COLUMNS", columns)
    with lasting_streams():
        assert inside is None or int(os.environ["COLUMNS"]) == inside
    assert os.environ["COLUMNS"] == columns
