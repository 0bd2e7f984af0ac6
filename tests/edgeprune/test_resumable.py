import errno
import json
import os
import signal

import pytest
import torch
from scoring_runs import Crash

from edgeprune.work.processes import Workers
from edgeprune.work.resumable import ResumableRun
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint, save_checkpoint

RECORD = {"config": {"lr": 1}, "versions": {"python": "3"}}


class Counting:
    """A task whose state tells which steps it has taken, in order: a chain of hashes that fit float64."""

    name, epochs, steps, images = "counting", 3, 4, 40

    def __init__(self, on_step=lambda epoch, step: None, on_end=lambda epoch: None):
        self.state = torch.zeros(1, dtype=torch.float64)
        self.taken = []
        self.on_step, self.on_end = on_step, on_end

    def run(self, epoch, first):
        for step in range(first, self.steps):
            self.state = (self.state * 31 + 7 * epoch + step + 1) % 1_000_003
            self.taken.append((epoch, step))
            self.on_step(epoch, step)
            yield step

    def end_epoch(self, epoch):
        self.on_end(epoch)
        return {"state": self.state.item()}

    def tensors(self):
        return {"state": self.state}

    def restore(self, tensors):
        self.state = tensors["state"]


def run(folder, task=None, record=RECORD, workers=None, report=None):
    return ResumableRun(task or Counting(), folder, record, workers or Workers(), report).finish()


def untimed(history):
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return untimed(run(tmp_path_factory.mktemp("whole") / "run"))


def at(epoch, step, act):
    return lambda *now: act() if now == (epoch, step) else None


def send(number):
    return lambda: os.kill(os.getpid(), number)


def crash():
    raise Crash


def test_history_and_folder(tmp_path, whole):
    history = run(tmp_path / "run")
    assert untimed(history) == whole
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert all(epoch["seconds"] >= 0 for epoch in history)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == RECORD
    assert load_checkpoint(tmp_path / "run").state == {"step": 0, "history": history}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("epoch", range(3))
def test_a_run_stopped_after_any_step_goes_on_there(tmp_path, whole, epoch, step, number):
    handler = signal.getsignal(number)
    task = Counting(at(epoch, step, send(number)))
    stopped_in = min(epoch + 1 if step < 3 else epoch + 2, 3)
    words = f"interrupted in epoch {stopped_in} of 3; run the same command again to go on"
    with pytest.raises(TrainingInterrupted, match=words):
        run(tmp_path, task)
    assert signal.getsignal(number) is handler
    assert task.taken[-1] == (epoch, step)
    again = Counting()
    assert untimed(run(tmp_path, again)) == whole
    assert len(again.taken) == 12 - len(task.taken)


def test_a_signal_at_the_end_of_an_epoch_keeps_the_epoch(tmp_path, whole):
    task = Counting(on_end=lambda epoch: send(signal.SIGTERM)() if epoch == 1 else None)
    with pytest.raises(TrainingInterrupted, match="in epoch 3 of 3"):
        run(tmp_path, task)
    assert len(load_checkpoint(tmp_path).state["history"]) == 2
    assert untimed(run(tmp_path)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("where", [(0, 0), (0, 3), (1, 0), (1, 2), (2, 3)])
def test_a_crash_costs_what_came_after_the_last_checkpoint(tmp_path, whole, monkeypatch, where, every_step):
    if every_step:
        monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.checkpoint_seconds", -1)
    with pytest.raises(Crash):
        run(tmp_path, Counting(at(*where, crash)))
    again = Counting()
    assert untimed(run(tmp_path, again)) == whole
    assert again.taken[0] == (where if every_step else (0, 0))


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "edgeprune.work.resumable.save_checkpoint", lambda folder, t, state, remedy: saved.append(state)
    )
    run(tmp_path / "a")
    assert len(saved) == 1
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.checkpoint_seconds", -1)
    saved.clear()
    run(tmp_path / "b")
    assert [state["step"] for state in saved] == [1, 2, 3, 0] * 3


def test_a_full_disk_says_to_run_the_same_command_again(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stop_on_a_full_disk():
        monkeypatch.setattr("os.fsync", refuse)
        send(signal.SIGTERM)()

    with pytest.raises(TrainingError, match=r"cannot be written .* then run the same command again") as told:
        run(tmp_path, Counting(at(0, 1, stop_on_a_full_disk)))
    assert "resume" not in str(told.value)


def test_a_finished_run_is_not_run_again(tmp_path, whole):
    run(tmp_path)
    task = Counting(on_step=lambda *_: crash())
    assert untimed(run(tmp_path, task)) == whole
    assert task.state.item() == whole[-1]["state"]


def test_a_run_with_other_settings_is_refused(tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, Counting(at(0, 1, send(signal.SIGTERM))))
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, record={"config": {"lr": 2}})
    text = str(caught.value)
    assert "lr was 1 and is now 2; resume with the former" in text
    assert text.endswith(f"or remove {tmp_path}")
    # Versions describe the run and do not decide it.
    run(tmp_path, record={**RECORD, "versions": {"python": "4"}})


def test_two_runs_do_not_share_a_folder(tmp_path):
    def again():
        with pytest.raises(ConfigError, match="another process trains in it"):
            run(tmp_path)

    run(tmp_path, Counting(at(1, 1, again)))


@pytest.mark.parametrize("name", ["checkpoint-0001.json", "checkpoint-0001.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damage_in_the_folder_is_one_clear_error(tmp_path, name, damage):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, Counting(at(1, 1, send(signal.SIGTERM))))
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes({"flip": data, "cut": data[:-9], "empty": b""}[damage])
    with pytest.raises((TrainingError, ConfigError)) as caught:
        run(tmp_path)
    text = str(caught.value)
    assert text.endswith(f"or remove {tmp_path}")
    assert "\n" not in text


FORGED = {
    "step as text": lambda state, tensors: state.update(step="2"),
    "step negative": lambda state, tensors: state.update(step=-1),
    "step beyond the epoch": lambda state, tensors: state.update(step=4),
    "no history": lambda state, tensors: state.pop("history"),
    "history of numbers": lambda state, tensors: state.update(history=[3]),
    "history of another epoch": lambda state, tensors: state["history"][0].update(epoch=7),
    "history too long": lambda state, tensors: state.update(history=state["history"] * 9),
    "a tensor of another type": lambda state, tensors: tensors.update(state=tensors["state"].float()),
    "a tensor of another shape": lambda state, tensors: tensors.update(state=torch.zeros(2).double()),
    "a tensor missing": lambda state, tensors: tensors.clear(),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_forged_checkpoint_is_refused_in_one_line(tmp_path, change):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, Counting(at(1, 1, send(signal.SIGTERM))))
    found = load_checkpoint(tmp_path)
    change(found.state, found.tensors)
    save_checkpoint(tmp_path, found.tensors, found.state)
    with pytest.raises(
        TrainingError, match=r"the checkpoint is not one of this run: .*, or remove"
    ) as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_has_gone(tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, Counting(at(1, 1, send(signal.SIGTERM))))
    (tmp_path / "checkpoint-0001.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"No such file.*or remove"):
        run(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match="cannot be made a folder"):
        run(tmp_path / "run")


def test_what_is_not_finite_is_never_kept(tmp_path):
    class Diverging(Counting):
        def tensors(self):
            return {"counts": torch.ones(3, dtype=torch.int64), "weight": self.state * float("nan")}

    with pytest.raises(TrainingError, match="weight is no longer finite; start again with a lower learning"):
        run(tmp_path, Diverging())
    assert not list(tmp_path.glob("checkpoint-*"))


def test_reports(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
    reports = []
    history = run(tmp_path, report=reports.append)
    assert [r["event"] for r in reports] == ["step", "step", "step", "epoch"] * 3
    assert [r["epoch"] for r in reports] == [1] * 4 + [2] * 4 + [3] * 4
    for report in reports:
        assert report["stage"] == "counting"
        assert report["epochs"] == 3
        assert report["images_per_second"] > 0
    left = [r["eta_seconds"] for r in reports]
    assert all(seconds > 0 for seconds in left[:-1])
    assert left[-1] == 0
    ends = [r for r in reports if r["event"] == "epoch"]
    assert all(end[name] == epoch[name] for end, epoch in zip(ends, history, strict=True) for name in epoch)


def test_reports_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", 1e9)
    reports = []
    run(tmp_path, report=reports.append)
    assert [r["event"] for r in reports] == ["epoch"] * 3


class Pair(Workers):
    """One of two processes, of which the other says what the test wants; counts what they ask each other."""

    asked = 0
    others = False

    def any(self, flag):
        type(self).asked += 1
        return flag or self.others

    def first(self, flag):
        type(self).asked += 1
        return flag


class LongEpochs(Counting):
    epochs, steps = 2, 20


def test_several_processes_ask_each_other_now_and_then(tmp_path):
    class Asked(Pair):
        pass

    run(tmp_path, LongEpochs(), workers=Asked(rank=0, count=2))
    # At the start, whether there is a checkpoint, and when it is read; at steps 8 and 16 of an epoch and at
    # its end, whether a checkpoint is due, but for the last end, and whether to stop; after the checkpoint.
    assert Asked.asked == 3 + 2 * (2 * 2) + 2 + 1 + 1


def test_a_process_stops_when_another_was_told_to(tmp_path):
    class Told(Pair):
        others = True

    task = LongEpochs()
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, task, workers=Told(rank=0, count=2))
    assert len(task.taken) == 8
    assert load_checkpoint(tmp_path).state["step"] == 8


def test_only_the_first_process_writes_and_reports(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
    history = run(tmp_path / "run", workers=Pair(rank=1, count=2), report=lambda event: crash())
    assert len(history) == 3
    assert not (tmp_path / "run").exists()
    run(tmp_path / "run", Counting(), workers=Workers())
    other = Counting(on_step=lambda *_: crash())
    assert len(run(tmp_path / "run", other, workers=Pair(rank=1, count=2))) == 3
    assert other.state.item() == history[-1]["state"]
