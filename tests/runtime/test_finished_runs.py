"""Runs that have ended, and what is done where their results are lost or damaged, or may not be written."""

import errno
import os
import re
import shutil
from dataclasses import replace

import pytest
from training_runs import TINY, run

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.normalization import Normalization
from edgeprune_runtime.training import load_model
from edgeprune_runtime.training.run_folder import opening
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

RESULTS = ("model.safetensors", "metrics.jsonl")
OPTIONS = {"resume": True, "provenance": {"pack": "digits.h5"}}


@pytest.fixture
def folder(whole_run, tmp_path):
    """A copy of a run of three epochs that has ended."""
    return shutil.copytree(whole_run.run_dir, tmp_path / "run")


def no_step(*at):
    raise AssertionError("a batch was asked for")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def remade(folder, config=TINY):
    """Resume a run that must not train; give the reason of each event of results that are made again."""
    events = []
    result = run(folder, config, on_batch=no_step, on_event=events.append, **OPTIONS)
    return result, [event["reason"] for event in events if event["event"] == "remade"]


def test_a_whole_run_says_nothing(folder):
    assert remade(folder)[1] == []


def flipped(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("model.safetensors", lambda content: content[:-1], r"is damaged \(.*\)"),
        ("model.safetensors", lambda content: content[:9], r"is damaged \(.*\)"),
        ("model.safetensors", lambda content: b"", r"is damaged \(empty\)$"),
        ("model.safetensors", lambda content: bytes(len(content)), r"is damaged \(.*\)"),
        ("model.safetensors", flipped, "is not the network of the last checkpoint"),
        ("model.safetensors", None, "is missing"),
        ("metrics.jsonl", lambda content: content[:-9], r"is damaged \(.*\)"),
        ("metrics.jsonl", lambda content: content.splitlines(True)[0], "is cut off or changed"),
        ("metrics.jsonl", lambda content: b"", "is cut off or changed"),
        ("metrics.jsonl", lambda content: bytes(len(content)), r"is damaged \(.*\)"),
        ("metrics.jsonl", None, "is missing"),
    ],
)
def test_what_is_lost_or_damaged_is_made_again(folder, whole_run, name, damage, told):
    whole, path = contents(folder), folder / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(whole[name]))
    result, (reason,) = remade(folder)
    assert reason.startswith(f"{path} ")
    assert re.search(told, reason)
    assert result.metrics == whole_run.metrics
    assert contents(folder) == whole
    assert remade(folder)[1] == []


def test_both_results_are_told_of_in_one_line(folder):
    whole, lines = contents(folder), []
    for name in RESULTS:
        (folder / name).write_bytes(b"{")
    run(folder, on_batch=no_step, report=lines.append, **OPTIONS)
    (line,) = (line for line in lines if "made again" in line)
    assert line.startswith(f"{folder / RESULTS[0]} is damaged (")
    assert f") and {folder / RESULTS[1]} is damaged (" in line
    assert line.endswith("); made again from the checkpoint")
    assert contents(folder) == whole


@pytest.mark.slow
def test_the_network_of_a_best_epoch_is_made_again(tmp_path):
    config = replace(TINY, patience=1, epochs=4, lr=0.5)
    run(tmp_path, config, provenance=OPTIONS["provenance"])
    whole = contents(tmp_path)
    assert remade(tmp_path, config)[1] == []
    (tmp_path / "model.safetensors").write_bytes(whole["model.safetensors"][:-5])
    assert len(remade(tmp_path, config)[1]) == 1
    assert contents(tmp_path) == whole


@pytest.mark.slow
def test_a_longer_run_that_ended_before_its_network_was_written(folder):
    short = (folder / "model.safetensors").read_bytes()
    longer = replace(TINY, epochs=4)
    run(folder, longer, **OPTIONS)
    whole = contents(folder)
    (folder / "model.safetensors").write_bytes(short)
    _, (reason,) = remade(folder, longer)
    assert reason.endswith("is not the network of the last checkpoint")
    assert contents(folder) == whole


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("are_lost", [False, True])
def test_a_whole_network_beside_damaged_checkpoints_is_kept(folder, kept, are_lost):
    """Metrics that are lost besides come from the state, which is there."""
    whole = contents(folder)
    for path in sorted(folder.glob("checkpoint-*.safetensors"))[kept:]:
        path.write_bytes(path.read_bytes()[:-1])
    if are_lost:
        (folder / "metrics.jsonl").unlink()
    assert remade(folder)[1] == [f"{folder / 'metrics.jsonl'} is missing"] * are_lost
    assert contents(folder) == whole


def test_a_network_that_is_trained_again_is_not_told_of_as_made_again(folder):
    """The older checkpoint has epochs to go."""
    whole, events = contents(folder), []
    newest = max(folder.glob("checkpoint-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    (folder / "model.safetensors").unlink()
    run(folder, on_event=events.append, **OPTIONS)
    told = [event["event"] for event in events]
    assert "fallback" in told
    assert "step" in told or "epoch" in told
    assert "remade" not in told
    assert contents(folder)["model.safetensors"] == whole["model.safetensors"]


def test_a_damaged_network_says_whether_there_is_a_checkpoint(folder):
    (folder / "model.safetensors").write_bytes(b"{")
    with pytest.raises(TrainingError, match=r"\); train with `resume=True` to make it again from the check"):
        load_model(folder)
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(TrainingError, match=r"\); train it again$"):
        load_model(folder)


@pytest.mark.parametrize(
    "forged", [{"history": 3}, {"history": [3]}, {"history": [{}] * 3}, {"step": "a"}, {"best": {"x": "y"}}]
)
def test_a_checkpoint_of_something_else_is_no_finished_run(folder, forged):
    state = load_checkpoint(folder).state
    save_checkpoint(folder, {}, {**state, **forged})
    with pytest.raises(TrainingError, match="the checkpoint is not one of this run"):
        remade(folder)


@pytest.mark.parametrize("use", ["init", "teacher"])
@pytest.mark.parametrize("content", [b"", b"{", bytes(20)])
def test_a_damaged_network_that_another_run_needs_has_the_remedy(folder, tmp_path, use, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(
        TrainingError, match=r"model\.safetensors: .* train with `resume=True` to make it aga"
    ):
        run(tmp_path / "other", normalization=Normalization((0.5,) * 3, (0.5,) * 3), **{use: folder})
    assert not (tmp_path / "other").exists()


@pytest.fixture(params=[errno.EROFS, errno.EACCES])
def read_only(request, monkeypatch):
    """Let no lock be opened, as on a read-only file system or in the folder of another user."""

    def refuse(path):
        raise OSError(request.param, os.strerror(request.param), str(path))

    monkeypatch.setattr(opening, "open_lock", refuse)


@pytest.mark.usefixtures("read_only")
def test_a_whole_run_that_is_read_only_returns_at_once(folder, whole_run):
    assert remade(folder)[0].metrics == whole_run.metrics


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("change", [{"model": "resnet18"}, {"epochs": 2}])
def test_another_run_that_is_read_only_is_refused(folder, change):
    with pytest.raises(ConfigError, match="and is now"):
        run(folder, replace(TINY, **change), on_batch=no_step, **OPTIONS)


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("left", ["model", "metrics", "epochs", "resume"])
def test_a_run_that_is_read_only_with_something_to_write_cannot_be_locked(folder, left):
    config, options = TINY, OPTIONS
    if left == "epochs":
        config = replace(TINY, epochs=4)
    elif left == "resume":
        options = {**OPTIONS, "resume": False}
    else:
        next(folder.glob(f"{left}*")).write_bytes(b"{")
    with pytest.raises(ConfigError, match=f"{folder} cannot be locked: .*; use another folder"):
        run(folder, config, on_batch=no_step, **options)
