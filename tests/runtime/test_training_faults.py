import math
import re
import signal
from dataclasses import replace

import pytest
import torch
from training_runs import CLASSES, TEST, TINY, MemoryLoader, Small, assert_same_run, metrics, run, send

from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_runtime import PackLoader
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training import Cadence, TrainingInterrupted, load_model, train
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint
from edgeprune_runtime.training.step import Learner

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_test_images_that_are_not_finite_are_blamed_themselves(tmp_path, value):
    images, labels = TEST[-1]
    bad = images.clone()
    bad[0, 0, 0, 0] = value
    with pytest.raises(ConfigError, match="test images or their targets have values that are not finite"):
        run(tmp_path, TINY, test=[*TEST, (bad, labels)])


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
