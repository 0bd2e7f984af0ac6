import sys

import pytest

from edgeprune.work.progress import EpochLines, progress_bars

EVENT = {
    "stage": "learning masks",
    "event": "epoch",
    "epoch": 2,
    "epochs": 30,
    "images_per_second": 1234.4,
    "eta_seconds": 3671.2,
    "loss": 0.51234,
    "entropy": None,
    "accuracy": 0.98765,
}


@pytest.fixture
def terminal(monkeypatch):
    def set_to(value):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: value)

    return set_to


def test_an_epoch_is_a_line(capsys, terminal):
    terminal(False)
    lines = EpochLines()
    lines({**EVENT, "event": "step"})
    lines(EVENT)
    out, err = capsys.readouterr()
    expected = "learning masks, epoch 2/30  1,234 images/s  ETA 61:11  loss 0.5123  accuracy 98.77%\n"
    assert (out, err) == ("", expected)


def test_a_terminal_has_a_live_line_that_the_next_one_clears(capsys, terminal):
    terminal(True)
    lines = EpochLines()
    lines({**EVENT, "event": "step"})
    lines(EVENT)
    _, err = capsys.readouterr()
    live, line = err.split("\r\x1b[K")[1:]
    assert live == "learning masks, epoch 2/30  1,234 images/s  ETA 61:11"
    assert line.startswith(live)
    assert line.endswith("%\n")


def test_quiet_is_quiet(capsys):
    EpochLines(quiet=True)(EVENT)
    with progress_bars(quiet=True) as tell:
        tell("checking", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_each_stage_has_a_bar_that_ends_on_a_line_of_its_own(capsys, terminal):
    terminal(True)
    with progress_bars() as tell:
        for done in (10, 20):
            tell("checking", done, 20)
        tell("encoding", 5, 5)
    _, err = capsys.readouterr()
    assert "20/20" in err
    assert "5/5" in err
    assert err.index("checking") < err.index("encoding")
    assert err.endswith("\n")


def test_a_log_gets_a_line_now_and_then_and_no_bar(capsys, terminal):
    terminal(False)
    now = [0.0]
    with progress_bars(clock=lambda: now[0]) as tell:
        for done in range(0, 5001, 100):
            now[0] = done / 50
            tell("checking", done, 5000)
        now[0] += 4
        tell("encoding", 200, 200)
    _, err = capsys.readouterr()
    assert err.splitlines() == [
        "checking: 1,500 of 5,000 images, 50 images/s, ETA 1:10",
        "checking: 3,000 of 5,000 images, 50 images/s, ETA 0:40",
        "checking: 4,500 of 5,000 images, 50 images/s, ETA 0:10",
        "checking: 5,000 of 5,000 images, 50 images/s",
        "encoding: 200 of 200 images, 50 images/s",
    ]


def test_a_stage_that_comes_again_has_a_rate_of_its_own(capsys, terminal):
    terminal(False)
    now = [0.0]
    with progress_bars(clock=lambda: now[0]) as tell:
        for seconds in (10, 20):
            for done in (50, 100):
                now[0] += seconds / 2
                tell("encoding", done, 100)
    _, err = capsys.readouterr()
    assert err.splitlines() == [
        "encoding: 100 of 100 images, 10 images/s",
        "encoding: 100 of 100 images, 5 images/s",
    ]


def test_a_stage_that_comes_again_has_a_bar_of_its_own(capsys, terminal):
    terminal(True)
    with progress_bars() as tell:
        for _ in range(2):
            for done in (10, 20):
                tell("encoding", done, 20)
    _, err = capsys.readouterr()
    assert err.count("20/20") == 2
