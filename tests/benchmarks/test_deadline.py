"""Stopping long work after some minutes."""

import pytest

from edgeprune_benchmarks.harness.deadline import Deadline, OutOfTimeError


def test_a_deadline_asks_training_to_stop_as_a_signal_does():
    import signal

    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append(True))
    try:
        seen = []
        for minutes, expected in ((None, 0), (60, 0), (0, 1)):
            Deadline(minutes).watched(seen.append)({"event": "step"})
            assert len(caught) == expected
        Deadline(0).watched(seen.append)({"event": "epoch"})
        # However often it is told of a step: a second signal would end the process.
        watched = Deadline(0).watched(seen.append)
        for _ in range(3):
            watched({"event": "step"})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(caught) == 2
    assert len(seen) == 7


def test_a_deadline_leaves_time_for_what_took_longest(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("edgeprune_benchmarks.harness.deadline.time.monotonic", lambda: now[0])
    deadline = Deadline(1)
    for second in (5, 10):
        now[0] = second
        deadline.check()
    with deadline.stopping():
        now[0] = 40
    # What can stop in between does not count; after the next batch, of 16 s, another would end too late.
    deadline.check()
    now[0] = 56
    with pytest.raises(OutOfTimeError):
        deadline.check()
