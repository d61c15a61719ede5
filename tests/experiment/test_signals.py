"""A signal is a wish to stop, in the main thread; other threads touch none."""

import os
import signal
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from nlx.experiment.signals import StopOnSignal, Stopped, StopSignals
from nlx.training.observers import Interrupted

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_asks_for_a_stop_and_handlers_come_back(number):
    before = [signal.getsignal(n) for n in ALL]
    with StopSignals() as signals:
        observer = StopOnSignal(signals)
        observer.on_start(None, None, None)
        assert not observer.stop_requested()
        os.kill(os.getpid(), number)
        assert observer.stop_requested()
        assert {signal.getsignal(n) for n in ALL} == {signal.SIG_DFL}  # a second one ends the process
        with pytest.raises(Interrupted), observer.interruptible():
            pass
        with pytest.raises(Interrupted):
            observer.close(None)  # what follows a training is left as well
    assert [signal.getsignal(n) for n in ALL] == before


@pytest.mark.parametrize("section", ["before a training", "at an epoch's end"])
def test_what_takes_long_is_left_at_once(section):
    with StopSignals() as signals:
        observer = StopOnSignal(signals)
        if section == "before a training":
            work = nullcontext()
        else:
            observer.on_start(None, None, None)
            work = observer.interruptible()
        with pytest.raises(Interrupted), work:
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(n) for n in ALL]
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in ALL] == before


def test_in_a_thread_no_handler_is_touched():
    before, seen = [signal.getsignal(n) for n in ALL], []

    def work():
        with StopSignals() as signals:
            seen.append([signal.getsignal(n) for n in ALL])
            seen.append(signals.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]
    assert [signal.getsignal(n) for n in ALL] == before


def test_a_training_that_stopped_says_where():
    with pytest.raises(Stopped, match="stopped after step 7") as stop:
        StopOnSignal(StopSignals()).on_stop(SimpleNamespace(step=7))
    assert stop.value.step == 7
