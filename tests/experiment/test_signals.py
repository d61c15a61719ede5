"""A signal is a wish to stop, in the main thread; other threads touch none."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from nlx.experiment.signals import StopOnSignal, Stopped, StopSignals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_asks_for_a_stop_and_handlers_come_back(number):
    before = [signal.getsignal(n) for n in BOTH]
    with StopSignals() as signals:
        observer = StopOnSignal(signals)
        assert not observer.stop_requested()
        os.kill(os.getpid(), number)
        assert observer.stop_requested()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a second one ends the process
    assert [signal.getsignal(n) for n in BOTH] == before


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(n) for n in BOTH]
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in BOTH] == before


def test_in_a_thread_no_handler_is_touched():
    before, seen = [signal.getsignal(n) for n in BOTH], []

    def work():
        with StopSignals() as signals:
            seen.append([signal.getsignal(n) for n in BOTH])
            seen.append(signals.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]
    assert [signal.getsignal(n) for n in BOTH] == before


def test_a_training_that_stopped_says_where():
    with pytest.raises(Stopped, match="stopped after step 7") as stop:
        StopOnSignal(StopSignals()).on_stop(SimpleNamespace(step=7))
    assert stop.value.step == 7
