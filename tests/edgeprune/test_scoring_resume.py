"""A scoring run that was interrupted, killed or damaged on the disk."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from scoring_runs import (
    STEPS,
    TINY,
    Crash,
    assert_same_scores,
    at_report,
    crash,
    interrupt,
    names,
    score,
    start_process,
    write_source,
)

from edgeprune.scoring import run as scoring
from edgeprune.work.temporary import work_folder
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError, TrainingError
from edgeprune_runtime.training import TrainingInterrupted


@pytest.fixture
def report_each_step(monkeypatch):
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)


@pytest.mark.slow
@pytest.mark.usefixtures("report_each_step")
@pytest.mark.parametrize(
    ("step", "number"),
    [
        (1, signal.SIGTERM),
        (2, signal.SIGINT),
        (3, signal.SIGTERM),
        (4, signal.SIGTERM),
        (5, signal.SIGINT),
        (6, signal.SIGINT),
        (8, signal.SIGTERM),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, spec, whole, step, number):
    path = tmp_path / "s.h5"
    handler = signal.getsignal(number)
    epoch = step // STEPS + 1
    words = f"interrupted in epoch {epoch} of 3; run the same command again to go on"
    with pytest.raises(TrainingInterrupted, match=words):
        score(path, spec, report=at_report(step, interrupt(number)))
    assert signal.getsignal(number) is handler
    assert names(tmp_path) == ["s.h5.work"]
    score(path, spec)
    assert names(tmp_path) == ["s.h5"]
    assert_same_scores(path, whole.path)


@pytest.mark.slow
@pytest.mark.usefixtures("report_each_step")
def test_a_run_may_be_interrupted_again_and_again(tmp_path, spec, whole):
    path = tmp_path / "s.h5"
    for _ in range(3 * STEPS - 1):
        with pytest.raises(TrainingInterrupted):
            score(path, spec, report=at_report(1, interrupt()))
    score(path, spec)
    assert_same_scores(path, whole.path)


@pytest.mark.slow
@pytest.mark.usefixtures("report_each_step")
def test_a_signal_in_the_last_step_leaves_nothing_but_the_file_to_do(tmp_path, spec, whole):
    with pytest.raises(TrainingInterrupted, match="in epoch 3 of 3"):
        score(tmp_path / "s.h5", spec, report=at_report(3 * STEPS, interrupt()))
    assert not (tmp_path / "s.h5").exists()
    score(tmp_path / "s.h5", spec, report=lambda event: crash())
    assert_same_scores(tmp_path / "s.h5", whole.path)


@pytest.mark.slow
@pytest.mark.usefixtures("report_each_step")
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("step", [1, 3, 5, 9])
def test_a_crash_at_any_step(tmp_path, spec, whole, monkeypatch, step, kept):
    path = tmp_path / "s.h5"
    with monkeypatch.context() as patch:
        if kept:
            patch.setattr("edgeprune.work.resumable.ResumableRun.checkpoint_seconds", -1)
        with pytest.raises(Crash):
            score(path, spec, report=at_report(step, crash))
    score(path, spec)
    assert_same_scores(path, whole.path)
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
def test_a_crash_between_the_last_epoch_and_the_file(tmp_path, spec, whole, monkeypatch):
    path = tmp_path / "s.h5"
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_publish", lambda *_: crash())
        with pytest.raises(Crash):
            score(path, spec)
    assert names(tmp_path) == ["s.h5.work"]
    score(path, spec, report=lambda event: crash())
    assert_same_scores(path, whole.path)


def test_a_crash_between_the_file_and_the_removal_of_the_work_folder(tmp_path, spec, whole, monkeypatch):
    path, remove = tmp_path / "s.h5", shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(
            shutil, "rmtree", lambda at, **how: crash() if at == work_folder(path) else remove(at, **how)
        )
        with pytest.raises(Crash):
            score(path, spec)
    assert_same_scores(path, whole.path)
    score(path, spec, report=lambda event: crash())


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path, tmp_path_factory, spec):
    path = tmp_path / "s.h5"
    # So long that four kills, each some steps after the line it waits for, come before the end.
    config = replace(TINY, epochs=20)
    whole = score(tmp_path_factory.mktemp("whole") / "s.h5", spec, config)
    moments = random.Random(0)
    with start_process(path, spec, config) as process:
        for steps in (2, 1, 3, 2):
            for _ in range(steps):
                child = int(process.stdout.readline())
            time.sleep(moments.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            while (line := process.stdout.readline()) != "killed\n":
                assert int(line) == child
            assert not path.exists()
        process.stdout.read()
    assert process.returncode == 0
    assert names(tmp_path) == ["s.h5"]
    assert_same_scores(path, whole.path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, spec):
    """The folder of a run that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
        with pytest.raises(TrainingInterrupted):
            score(folder / "s.h5", spec, report=at_report(STEPS + 1, interrupt()))
    return folder


@pytest.fixture
def interrupted(stopped, tmp_path):
    """The path of that run, to go on with or to damage."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return tmp_path / "s.h5"


@pytest.mark.first_are_quick(3)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 4}, "epochs was 3 and is now 4"),
        ({"every": 3}, "every was 2 and is now 3"),
        ({"model": "resnet20"}, "model was 'resnet8' and is now 'resnet20'"),
        ({"lr": 0.1}, "lr was 0.05 and is now 0.1"),
        ({"batch_size": 8}, "batch_size was 16 and is now 8"),
        ({"seed": 2}, "seed was 1 and is now 2"),
        ({"augment": "none"}, r"augment was 'crop\+flip' and is now 'none'"),
        ({"weight_decay": 0.0}, r"weight_decay was 0.0005 and is now 0.0"),
        ({"precision": "bfloat16"}, "precision was 'float32' and is now 'bfloat16'"),
    ],
)
def test_a_run_under_way_is_not_resumed_with_other_settings(interrupted, spec, change, words):
    with pytest.raises(ConfigError, match=words) as caught:
        score(interrupted, spec, replace(TINY, **change))
    assert str(caught.value).endswith(f"or remove {work_folder(interrupted)}")
    assert "\n" not in str(caught.value)


def test_a_run_under_way_goes_on_in_its_precision(interrupted, spec, monkeypatch):
    # On another machine.
    monkeypatch.setattr("edgeprune_runtime.training.placement._bfloat16_pays", lambda *_: True)
    auto = replace(TINY, precision="auto")
    assert score(interrupted, spec, auto).provenance["config"]["precision"] == "float32"
    assert score(interrupted.with_name("new.h5"), spec, auto).provenance["config"]["precision"] == "bfloat16"


def test_a_run_under_way_is_not_resumed_with_other_images(interrupted, tmp_path):
    with pytest.raises(ConfigError, match=r"s\.h5\.work cannot be resumed: source was '[0-9a-f]{64}' and"):
        score(interrupted, write_source(tmp_path, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["records/epoch-0001.safetensors", "checkpoint-0001.json", "checkpoint-0001.safetensors"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "other"])
def test_damage_in_the_work_folder_is_one_clear_error(interrupted, spec, name, damage):
    path = work_folder(interrupted) / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    if damage == "gone":
        path.unlink()
    elif damage == "other":
        save_file({"correct": torch.zeros(3)}, path)
    else:
        path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    if (name, damage) == ("checkpoint-0001.json", "gone"):
        # Nothing says that there was a checkpoint, so the run begins again.
        score(interrupted, spec)
        return
    with pytest.raises((TrainingError, ArtifactError)) as caught:
        score(interrupted, spec)
    text = str(caught.value)
    assert f"remove {work_folder(interrupted)}" in text
    assert path.name in text
    assert "\n" not in text
    assert not interrupted.exists()
    assert not list(interrupted.parent.glob(".*partial"))


def test_an_epochs_records_lack_an_array(interrupted, spec):
    path = work_folder(interrupted) / "records" / "epoch-0001.safetensors"
    tensors = load_file(path)
    del tensors["margins"]
    save_file(tensors, path, {"crc32": json.dumps(dict.fromkeys(tensors, 0))})
    with pytest.raises(ArtifactError, match=r"epoch-0001\.safetensors: .* missing or damaged"):
        score(interrupted, spec)
