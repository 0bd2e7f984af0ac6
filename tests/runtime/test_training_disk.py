"""Training onto a disk that is full, or fails."""

import contextlib
import errno
import os
import re
import signal

import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
from training_runs import assert_same_run, run

from edgeprune_formats.files import replacing
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.output_files import DiskFullError
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.run_folder.checkpoint import has_checkpoint, load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


class FullDisk:
    """Finds the disk full for some writes of checkpoints, from the `first` on."""

    def __init__(self, monkeypatch, first, times):
        self.calls, self.first, self.times = 0, first, times
        monkeypatch.setattr("edgeprune_runtime.training.run_folder.full_disk._RETRY_SECONDS", 0.0)
        monkeypatch.setattr("edgeprune_runtime.output_files.save_file", self.save_file)

    def save_file(self, *arguments):
        self.calls += 1
        if self.first <= self.calls < self.first + self.times:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(*arguments)


@pytest.mark.slow
def test_a_full_disk_pauses_the_run(tmp_path, monkeypatch, whole_run):
    FullDisk(monkeypatch, first=2, times=3)
    events = []
    run(tmp_path, on_event=events.append)
    names = [event["event"] for event in events if event["event"] != "step"]
    assert names == ["start", "epoch", "paused", "continued", "epoch", "epoch"]
    (paused,) = [event for event in events if event["event"] == "paused"]
    assert "checkpoint-0002.safetensors: cannot be written" in paused["reason"]
    assert "No space left" in paused["reason"]
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
def test_a_full_disk_at_the_very_end(tmp_path, monkeypatch, whole_run):
    FullDisk(monkeypatch, first=4, times=2)
    events = []
    run(tmp_path, on_event=events.append)
    assert [event["event"] for event in events][-2:] == ["paused", "continued"]
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
def test_a_signal_ends_the_wait_for_a_full_disk(tmp_path, monkeypatch, whole_run):
    FullDisk(monkeypatch, first=2, times=10**9)

    def on_event(event):
        if event["event"] == "paused":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=r"while the disk was full: .* complete before is kept"):
        run(tmp_path, on_event=on_event)
    assert load_checkpoint(tmp_path).state["step"] == 4
    monkeypatch.undo()
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


def test_a_full_disk_without_anybody_to_tell(tmp_path, monkeypatch):
    FullDisk(monkeypatch, first=2, times=1)
    with pytest.raises(DiskFullError):
        run(tmp_path)
    assert load_checkpoint(tmp_path).state["step"] == 4


@pytest.mark.first_are_quick
@pytest.mark.parametrize(
    ("at", "when", "made"),
    [
        (1, "before the name", True),
        (1, "after the name", False),
        (2, "before the name", False),
        (2, "after the name", True),
        (3, "before the name", True),
        (3, "before the name", False),
        (3, "after the name", False),
    ],
)
def test_a_disk_that_fails_before_the_first_checkpoint_leaves_a_folder_to_begin_in(
    tmp_path, monkeypatch, whole_run, at, when, made
):
    """The first three files are the record, and the two of the first checkpoint."""
    folder, calls = tmp_path / "run", []
    if made:
        folder.mkdir()

    @contextlib.contextmanager
    def failing(path, temporary):
        calls.append(path)
        broken = len(calls) >= at
        if broken and when == "before the name":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        with replacing(path, temporary):
            yield
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("edgeprune_runtime.output_files.replacing", failing)
        with pytest.raises(TrainingError, match=re.escape(os.strerror(errno.EIO))):
            run(folder)
    run(folder, resume=has_checkpoint(folder))
    assert_same_run(folder, whole_run.run_dir)
