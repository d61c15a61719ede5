import io

from nlx.experiment.console import Console

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


def test_an_epoch_is_one_line_of_what_is_known():
    stream = io.StringIO()
    console = Console("can on digits", 3, stream=stream)
    console.progress(2, 1, 4, 0.7, 500.0)
    console.epoch(ROW)
    expected = "can on digits  epoch 2/3  loss 0.5000, test accuracy 87.5%  (1.3 s, 10,000 images/s)\n"
    assert stream.getvalue() == expected


def test_a_terminal_gets_a_bar_with_rate_and_loss():
    stream = Terminal()
    console = Console("can on digits", 3, stream=stream)
    console.progress(2, 1, 4, 0.7, 512.0)
    console.progress(2, 3, 4, 0.6, 512.0)
    console.close()
    assert "epoch 2/3" in stream.getvalue()
    assert "512 images/s, loss 0.6000" in stream.getvalue()


def test_a_quiet_console_writes_nothing():
    stream = Terminal()
    console = Console("can on digits", 3, stream=stream, quiet=True)
    console.progress(2, 1, 4, 0.7, 512.0)
    console.epoch(ROW)
    assert stream.getvalue() == ""
