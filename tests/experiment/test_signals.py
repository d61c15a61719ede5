"""A signal is a wish to stop, in the main thread; other threads touch none."""

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.experiment.signals import StopOnSignal, Stopped, StopSignals
from nlx.training import observers
from nlx.training.observers import Interrupted, poll

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


def test_processes_that_work_together_leave_at_a_poll(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(observers, "agree", lambda count, flag: (1, flag))
    with StopSignals() as signals:
        observer = StopOnSignal(signals)
        observer.on_start(None, None, None)
        with observer.interruptible():
            poll()
            os.kill(os.getpid(), signal.SIGTERM)  # not at once
            with pytest.raises(Interrupted):
                poll()
        poll()


def test_what_one_process_does_for_all_is_left_at_once(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with StopSignals() as signals:
        signals.defer(False)
        with pytest.raises(Interrupted), signals.alone():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted), signals.alone():
            pytest.fail("a stop was asked for before")
        signals.defer(False)  # together they do not leave one by one


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


def test_what_is_compiled_is_left_at_once():
    """Python's handlers run while XLA compiles; nothing of the state is consumed by then."""

    @jax.jit
    def slow(x):
        for i in range(60):
            x = jnp.sin(x @ x) + i
        return x

    main = threading.get_ident()

    def stop():
        while "backend_compile" not in sys._current_frames()[main].f_code.co_name:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    with StopSignals() as signals:
        observer = StopOnSignal(signals)
        observer.on_start(None, None, None)
        watcher = threading.Thread(target=stop)
        watcher.start()
        with pytest.raises(Interrupted), observer.interruptible(lambda: True):
            slow(np.eye(8, dtype=np.float32))
    watcher.join()


def test_a_step_under_way_is_not_left():
    with StopSignals() as signals:
        observer = StopOnSignal(signals)
        observer.on_start(None, None, None)
        with observer.interruptible(lambda: False):
            os.kill(os.getpid(), signal.SIGTERM)
        assert observer.stop_requested()


def test_a_stop_that_comes_up_where_python_drops_exceptions_is_asked_for_again(monkeypatch):
    class Garbage:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def work():
        Garbage()
        time.sleep(10)

    with pytest.raises(Interrupted), StopSignals():
        work()
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))
    with StopSignals():
        type("Other", (), {"__del__": lambda self: 1 / 0})()
    assert dropped == [ZeroDivisionError]
