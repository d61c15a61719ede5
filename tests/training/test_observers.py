"""Polling: who works for long asks between its parts whether to stop, and all processes learn it together."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from nlx.training import observers
from nlx.training.observers import Interrupted, poll, polled


class Wants:
    wanted = False


def go_on(now, wants=None):
    """Poll for a hundred seconds, a hundredth each."""
    while now[0] < 100:
        now[0] += 0.01
        if wants is not None and now[0] > 30:
            wants.wanted = True
        poll()


@pytest.fixture
def now(monkeypatch):
    """A clock in a list."""
    now = [0.0]
    monkeypatch.setattr(observers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_poll_leaves_where_a_stop_was_asked_for(now):
    wants = Wants()
    go_on(now, wants)  # nobody is asked
    assert now[0] > 99
    now[0], wants.wanted = 0.0, False
    with pytest.raises(Interrupted), polled(lambda: wants.wanted):
        go_on(now, wants)
    assert 30 < now[0] < 32
    now[0] = 0.0
    go_on(now, wants)


def test_processes_ask_each_other_about_once_a_second(now, monkeypatch):
    asked = []

    def agree(count, flag):
        asked.append(now[0])
        return count, flag or now[0] > 30  # another process wants it

    monkeypatch.setattr(observers, "agree", agree)
    with pytest.raises(Interrupted), polled(lambda: False):
        go_on(now)
    assert 30 < now[0] < 32
    assert 30 < len(asked) < 42  # the first ones as it finds out how long a part takes
    assert max(b - a for a, b in pairwise(asked)) < 1.5


def test_parts_that_take_long_are_each_asked_after(now, monkeypatch):
    asked = []
    monkeypatch.setattr(observers, "agree", lambda count, flag: (asked.append(count), (count, flag))[1])
    with polled(lambda: False):
        for _ in range(5):
            now[0] += 7.0
            poll()
    assert asked == [1] * 5
