import contextlib
import errno
import json
import math
import os
import re
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from training_runs import CLASSES, TEST, TINY, MemoryLoader, Small, assert_same_run, metrics, run, send

from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_formats.files import replacing
from edgeprune_runtime import PackLoader
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training import Cadence, TrainingInterrupted, load_model, train
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.run_folder.checkpoint import DiskFullError, has_checkpoint, load_checkpoint
from edgeprune_runtime.training.run_folder.opening import opened_run
from edgeprune_runtime.training.step import Learner

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "name", ["config.json", "checkpoint-0007.json", "metrics.jsonl", "model.safetensors"]
)
def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="already holds a run; go on with `resume=True`"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 2}, "epochs was 3 and is now 2"),
        ({"model": "resnet18"}, "model was 'resnet8' and is now 'resnet18'"),
        ({"ema": None}, "ema was 0.9 and is now None"),
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"precision": "bfloat16"}, "precision was 'float32' and is now 'bfloat16'"),
    ],
)
def test_resume_with_other_settings(whole_run, change, message):
    with pytest.raises(ConfigError, match=message):
        run(whole_run.run_dir, replace(TINY, **change), resume=True, provenance={"pack": "digits.h5"})


def test_resume_with_other_data(whole_run):
    with pytest.raises(ConfigError, match=r"resumed: pack was 'digits.h5' and is now 'other.h5'"):
        run(whole_run.run_dir, resume=True, provenance={"pack": "other.h5"})
    options = {"loader": MemoryLoader(16), "provenance": {"pack": "digits.h5"}}
    with pytest.raises(ConfigError, match="steps_per_epoch was 4 and is now 2"):
        run(whole_run.run_dir, resume=True, **options)


def test_settings_that_only_spell_the_same_differently(whole_run):
    config = replace(TINY, device="cpu", precision="float32")
    assert run(whole_run.run_dir, config, resume=True, provenance={"pack": "digits.h5"}) == whole_run


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(tmp_path):
    def again(epoch, batch):
        if epoch == 1:
            with pytest.raises(ConfigError, match="another process trains in it"):
                run(tmp_path, resume=True)

    run(tmp_path, on_batch=again)


@pytest.mark.parametrize("when", ["before the folder is there", "after a failure"])
def test_of_two_processes_that_begin_in_one_new_folder_the_loser_leaves_all_to_the_winner(tmp_path, when):
    folder = tmp_path / "run"
    if when == "after a failure":
        with pytest.raises(ConfigError), opened_run(folder, {"config": {}}, False):
            raise ConfigError
        assert not folder.exists()
    with opened_run(folder, {"config": {"a": 1}}, False):
        before = sorted(folder.iterdir())
        for resume in (False, True):
            with pytest.raises(ConfigError, match="another process trains in it"):
                run(folder, resume=resume)
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", [".lock", "config.json.tmp", "metrics.jsonl.tmp"])
def test_links_in_a_run_folder_are_not_followed(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    if name == ".lock":
        with pytest.raises(ConfigError, match=r"\.lock is a symbolic link; remove it"):
            run(folder)
    else:
        run(folder)
    assert victim.read_bytes() == b"precious"


@pytest.mark.first_are_quick
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_no_second_process(tmp_path, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, None if number == 524 else os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match=f"{tmp_path}/run: the file system has no locks") as told:
        assert len(run(tmp_path / "run", replace(TINY, epochs=1)).metrics) == 1
    assert len(told) == 1


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tmp_path):
    class Spoilt(MemoryLoader):
        def __iter__(self):
            for batch, (images, labels) in enumerate(super().__iter__()):
                yield (images * math.nan if (self.epoch, batch) == (1, 2) else images), labels

    with pytest.raises(
        TrainingError, match=r"the loss became nan at step 3 of 4 in epoch 2 of 3; .* `lr` lower"
    ):
        run(tmp_path, loader=Spoilt())
    tensors = load_checkpoint(tmp_path).tensors
    assert len(metrics(tmp_path)) == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_rate_far_too_high(tmp_path):
    with pytest.raises(TrainingError, match=r"`lr` lower than 1e\+20"):
        run(tmp_path, replace(TINY, lr=1e20))


def train_small(run_dir, count, config=TINY, on_batch=lambda *at: None, side=4, **options):
    loader = Small(count, config.batch_size, on_batch, side=side)
    return train(
        loader, config, run_dir, num_classes=CLASSES, image_shape=(3, loader.side, loader.side), **options
    )


def test_one_image_left_over_is_left_out_with_words(tmp_path):
    events = []
    found = train_small(tmp_path, 9, on_event=events.append)
    assert len(found.metrics) == TINY.epochs
    assert [e["event"] for e in events].count("left_out") == 1
    (told,) = [event for event in events if event["event"] == "left_out"]
    assert told["step"] == 2
    assert told["reason"].startswith("a batch of one image cannot be normalized")
    with torch.no_grad():
        assert load_model(tmp_path)(torch.zeros(1, 3, 4, 4)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("at", [(0, 0), (0, 1), (1, 1), (2, 1)])
def test_a_run_that_leaves_out_one_image_resumes(tmp_path, at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_small(whole, 9)
    with pytest.raises(TrainingInterrupted):
        train_small(parts, 9, on_batch=send(signal.SIGTERM, at))
    train_small(parts, 9, resume=True)
    assert_same_run(parts, whole)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (3, 1)])
def test_batches_of_one_image_alone(tmp_path, count, batch_size):
    config = replace(TINY, batch_size=batch_size)
    with pytest.raises(TrainingError, match=r"a batch of one image .*; raise `batch_size`, or train on more"):
        train_small(tmp_path / "run", count, config)
    assert not (tmp_path / "run").exists()


def test_one_image_where_the_network_leaves_pixels(tmp_path):
    config = replace(TINY, ema=None)
    assert train_small(tmp_path, 1, config, side=8).metrics[-1]["train_loss"] > 0


@pytest.mark.slow
def test_one_image_left_over_of_a_larger_size_is_fine(tmp_path):
    run(tmp_path, replace(TINY, model="mobilenet_v2", epochs=1), loader=MemoryLoader(9, 8))


@pytest.mark.parametrize("shape", [(33, 16, 16), (0, 16, 16), (16, 16)])
def test_images_that_no_network_takes(tmp_path, shape):
    with pytest.raises(ConfigError, match="the networks take 1 to 32 channels"):
        train(MemoryLoader(), TINY, tmp_path / "run", num_classes=CLASSES, image_shape=shape)
    assert not (tmp_path / "run").exists()


def test_nothing_to_train_or_test_on(tmp_path):
    with pytest.raises(ConfigError, match="yields no batch"):
        run(tmp_path / "a", loader=MemoryLoader(0))
    with pytest.raises(ConfigError, match="test set yields no batch"):
        run(tmp_path / "b", test=[])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        run(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["\x1b[2J", "\n", "\0"])
@pytest.mark.parametrize("part", ["config", "provenance", None])
def test_names_of_a_forged_record_are_escaped(tmp_path, name, part):
    record = {"config": {}, "provenance": {}} | ({name: 1} if part is None else {part: {name: 1}})
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="cannot be resumed: ") as told:
        run(tmp_path, resume=True)
    assert str(told.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_record(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"config\.json .* another folder"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100)])
def test_a_damaged_model(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match=r"model\.safetensors: not a model of a run, or damaged"):
        load_model(tmp_path)


def test_a_checkpoint_of_another_model(tmp_path):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, on_batch=send(signal.SIGTERM, (0, 0)))
    learner = Learner(replace(TINY, model="resnet18"), place(TINY), CLASSES, 16)
    with pytest.raises(TrainingError, match="does not fit the model"):
        learner.restore(load_checkpoint(tmp_path).tensors)


def test_reports(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune_runtime.training.progress.events._EVENT_SECONDS", 0)
    events = []
    result = run(tmp_path, replace(TINY, epochs=2), on_event=events.append)
    assert [r["step"] for r in events if r["event"] == "step"] == list(range(1, 9))
    assert [r for r in events if r["event"] == "epoch"] == [{"event": "epoch", **m} for m in result.metrics]
    assert events[0] == {"event": "start", "step": 0}
    first = events[1]
    assert (first["epoch"], first["epochs"], first["steps"]) == (1, 2, 8)
    assert first["eta_seconds"] > 0
    assert first["images_per_second"] > 0
    assert events[4]["loss"] == result.metrics[0]["train_loss"]


@pytest.mark.slow
def test_reports_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune_runtime.training.progress.events._EVENT_SECONDS", 1e9)
    events = []
    run(tmp_path, TINY, on_event=events.append)
    assert [r["event"] for r in events] == ["start"] + ["epoch"] * TINY.epochs


class FullDisk:
    """Finds the disk full for some writes of checkpoints, from the `first` on."""

    def __init__(self, monkeypatch, first, times):
        self.calls, self.first, self.times = 0, first, times
        monkeypatch.setattr("edgeprune_runtime.training.run_folder.full_disk._RETRY_SECONDS", 0.0)
        monkeypatch.setattr("edgeprune_runtime.training.run_folder.checkpoint.save_file", self.save_file)

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

    with pytest.raises(DiskFullError, match="what was complete before is kept"):
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


@pytest.mark.slow
@pytest.mark.parametrize("made", [False, True])
def test_what_fails_before_the_first_checkpoint_leaves_nothing(tmp_path, made):
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    with pytest.raises(TrainingError, match="an `lr` lower"):
        run(folder, replace(TINY, lr=1e20))
    assert [path.name for path in tmp_path.rglob("*")] == (["run"] if made else [])
    run(folder, replace(TINY, epochs=1))


def test_what_fails_later_leaves_the_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match="an `lr` lower"):
        run(tmp_path, replace(TINY, lr=1e20), cadence=Cadence(steps=1))
    assert (tmp_path / "config.json").exists()
    assert load_checkpoint(tmp_path).state["step"] >= 1


class GoneError(EdgePruneError):
    """Data that cannot be read."""


@pytest.mark.slow
@pytest.mark.parametrize("error", [GoneError("7.png: is empty"), OSError(5, "I/O error")])
def test_a_batch_that_cannot_be_read_costs_no_step_that_was_taken(tmp_path, whole_run, error):
    class Failing(MemoryLoader):
        def __iter__(self):
            batches = super().__iter__()
            # After the first step of the second epoch, where no checkpoint is due.
            while (self.epoch, self.position) != (1, 1):
                if (batch := next(batches, None)) is None:
                    return
                yield batch
            raise error

    told = []
    with pytest.raises(type(error)):
        run(tmp_path, loader=Failing(), provenance={"pack": "digits.h5"}, on_event=told.append)
    assert load_checkpoint(tmp_path).state["step"] == 5
    assert [event["step"] for event in told if event["event"] == "kept"] == [5]
    run(tmp_path, resume=True, provenance={"pack": "digits.h5"})
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_test_image_that_cannot_be_read_costs_no_epoch(tmp_path, whole_run, epoch):
    class Failing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            for batch in TEST:
                if self.passes == epoch:
                    raise GoneError("9.png: is empty")
                yield batch

    with pytest.raises(GoneError):
        run(tmp_path, test=Failing(), provenance={"pack": "digits.h5"})
    assert load_checkpoint(tmp_path).state["step"] == 4 * epoch
    run(tmp_path, resume=True, provenance={"pack": "digits.h5"})
    assert_same_run(tmp_path, whole_run.run_dir)


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
        patch.setattr("edgeprune_runtime.training.run_folder.checkpoint.replacing", failing)
        with pytest.raises(TrainingError, match=re.escape(os.strerror(errno.EIO))):
            run(folder)
    run(folder, resume=has_checkpoint(folder))
    assert_same_run(folder, whole_run.run_dir)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (iter(TEST), "can be read only once"),
        (
            [TEST[0], (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))],
            "test images are (3, 8, 8)",
        ),
        ([TEST[0], (torch.zeros(2, 3, 16, 16), torch.tensor([0, 9]))], "label 9, and the network 4 classes"),
        (MemoryLoader(0), "the test set yields no batch"),
    ],
)
def test_a_test_set_that_does_not_fit_is_found_before_the_first_epoch(tmp_path, test, message):
    seen = []
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(tmp_path / "run", test=test, on_batch=lambda *at: seen.append(at))
    assert not seen
    assert not (tmp_path / "run").exists()


def test_the_labels_of_a_test_pack_are_looked_at_first(tmp_path, make_pack):
    path, _ = make_pack(samples=9, size=(16, 16), components=50)
    options = {"num_classes": 2, "image_shape": (3, 16, 16), "test": PackLoader(path)}
    with pytest.raises(ConfigError, match="label 2, and the network 2 classes"):
        train(MemoryLoader(), TINY, tmp_path / "run", **options)


class Empty(MemoryLoader):
    """Says that it has batches, and has none."""

    def __iter__(self):
        return iter(())


def test_an_epoch_of_no_step_is_not_done(tmp_path):
    with pytest.raises(TrainingError, match="gave no batch in epoch 1; lower `batch_size`"):
        run(tmp_path / "run", loader=Empty())
    assert not (tmp_path / "run").exists()
