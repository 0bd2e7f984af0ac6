"""Label smoothing, weights of classes, clipping, and ending early with the best weights."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional
from training_runs import CLASSES, TEST, TINY, MemoryLoader, assert_same_run, metrics, run, send

from edgeprune_formats import ConfigError
from edgeprune_runtime.task import Task
from edgeprune_runtime.training import TrainConfig, TrainingInterrupted, load_model
from edgeprune_runtime.training.objectives.adversarial import Objective
from edgeprune_runtime.training.objectives.losses import balanced_weights, class_loss, loss_of
from edgeprune_runtime.training.objectives.metrics import ClassMeter
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.progress.stopping import best_epoch, is_over
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint
from edgeprune_runtime.training.run_folder.unfinished import open_run_network
from edgeprune_runtime.training.step import Learner

pytestmark = pytest.mark.usefixtures("one_thread")
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])


def test_smoothed_and_weighted_cross_entropy_by_hand():
    logs = LOGITS.log_softmax(1)
    wanted = 0.9 * functional.one_hot(LABELS, 3) + 0.1 / 3
    each = -(wanted * logs).sum(1)
    torch.testing.assert_close(class_loss(LOGITS, LABELS, "mean", 0.1), each.mean())
    weights = torch.tensor([0.5, 2.0, 3.0])
    weighted = each * weights[LABELS]
    torch.testing.assert_close(class_loss(LOGITS, LABELS, "mean", 0.1, weights), weighted.mean())
    torch.testing.assert_close(class_loss(LOGITS, LABELS, "sum", 0.1, weights), weighted.sum())
    soft = functional.one_hot(LABELS, 3).float()
    torch.testing.assert_close(class_loss(LOGITS, soft, "mean", 0.1, weights), weighted.mean())
    assert torch.equal(class_loss(LOGITS, LABELS, "mean"), functional.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("kind", ["multilabel", "value", "probabilities"])
def test_what_is_for_classes_is_refused_of_other_targets(kind):
    task = Task("place", kind, mean=(0.0,), std=(1.0,)) if kind == "value" else Task("place", kind)
    with pytest.raises(ConfigError, match=f"'place' is of kind {kind}; leave `label_smoothing` out"):
        loss_of(task, 0.1)
    with pytest.raises(ConfigError, match="leave `class_weights` out"):
        loss_of(task, 0.0, torch.ones(3))


def test_balanced_weights():
    torch.testing.assert_close(balanced_weights([3, 2, 1, 0]), torch.tensor([6 / 9, 6 / 6, 6 / 3, 0.0]))
    assert balanced_weights([4, 4]).tolist() == [1, 1]


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_of_a_batch_add_up(parts):
    config = replace(TINY, model="resnet8", accumulate=parts, ema=None, batch_size=6)
    torch.manual_seed(0)
    loss_of_parts = loss_of(Task(), 0.1, torch.tensor([0.5, 2.0, 3.0, 1.0]))
    objective = Objective(loss=loss_of_parts)
    learner = Learner(config, place(config), CLASSES, 16, objective=objective)
    learner.model.eval()
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = loss_of_parts(learner.model(images), LABELS, "mean")
    loss, _ = learner.step(images, LABELS, 0.0, 0)
    torch.testing.assert_close(loss, expected.detach())


def test_without_momentum_there_is_none_of_nesterovs():
    config, made = replace(TINY, model="resnet8", ema=None, momentum=0.0), []
    for nesterov in (True, False):
        torch.manual_seed(0)
        learner = Learner(replace(config, nesterov=nesterov), place(config), CLASSES, 16)
        for number in range(2):
            learner.step(*TEST[0], 0.5, number)
        made.append(learner.model.state_dict())
    torch.testing.assert_close(*made, rtol=0, atol=0)


def test_a_clipped_step_is_as_long_as_the_bound():
    config = replace(TINY, model="resnet8", ema=None, clip_norm=0.01, nesterov=False, momentum=0.0)
    config = replace(config, weight_decay=0.0)
    torch.manual_seed(0)
    learner = Learner(config, place(config), CLASSES, 16)
    before = [p.detach().clone() for p in learner.model.parameters()]
    learner.step(*TEST[0], 1.0, 0)
    moved = torch.cat(
        [(p.detach() - q).flatten() for p, q in zip(learner.model.parameters(), before, strict=True)]
    )
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing` is 1.0; it must be in"),
        ({"label_smoothing": -0.1}, "label_smoothing` is -0.1"),
        ({"class_weights": "even"}, "class_weights` is 'even'; it must be one of none, balanced"),
        ({"sampling": "even"}, "sampling` is 'even'; it must be one of uniform, balanced"),
        ({"clip_norm": 0.0}, "clip_norm` is 0.0; it must be positive"),
        ({"patience": 0}, "patience` is 0; it must be at least 1"),
        ({"class_weights": "balanced", "sampling": "balanced"}, 'or `sampling="balanced"`, not both'),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ConfigError, match="give `class_counts`"):
        run(tmp_path / "a", replace(TINY, class_weights="balanced"))
    with pytest.raises(ConfigError, match="`patience` waits for a better test; give `test`"):
        run(tmp_path / "a", replace(TINY, patience=1), test=None)
    assert not (tmp_path / "a").exists()


def test_the_best_epoch_is_the_first_of_the_most_accurate_of_least_loss():
    def history(*scores):
        return [{"test_accuracy": accuracy, "test_loss": loss} for accuracy, loss in scores]

    assert best_epoch(history((0.5, 1.0), (0.5, 0.9), (0.4, 0.1), (0.5, 0.9))) == 2
    config = replace(TINY, epochs=9, patience=2)
    assert not is_over([], config)
    assert not is_over(history((0.5, 1.0), (0.4, 1.0)), config)
    assert is_over(history((0.5, 1.0), (0.4, 1.0), (0.5, 1.1)), config)
    assert not is_over(history(*[(0.5, 1.0)] * 8), replace(config, patience=None))
    assert is_over(history(*[(0.5, 1.0)] * 9), replace(config, patience=None))


class Scripted(list):
    """A test set that is right in so many of four images, epoch by epoch: its labels are the answers."""

    def __init__(self, run_dir, rights):
        super().__init__(TEST[:1])
        self.run_dir, self.rights = run_dir, rights

    def __iter__(self):
        state = load_checkpoint(self.run_dir).state if any(self.run_dir.glob("checkpoint-*.json")) else {}
        self.right = self.rights[len(state.get("history", []))]
        return iter(TEST[:1])


PATIENT = replace(TINY, epochs=8, patience=2)
RIGHTS = [1, 3, 2, 2, 4, 4, 4, 4]


@pytest.fixture
def scripted(monkeypatch):
    """Train with accuracies in the order of RIGHTS, whatever the network does; return the events."""
    result = ClassMeter.result

    def go(run_dir, config=PATIENT, **options):
        test, events = Scripted(run_dir, RIGHTS), []

        monkeypatch.setattr(ClassMeter, "result", lambda self: {**result(self), "accuracy": test.right / 8})
        run(run_dir, config, test=test, on_event=events.append, **options)
        return events

    return go


def test_weights_that_are_not_of_the_run_stay(tmp_path, scripted):
    names = ["best-model.safetensors", "best-2.safetensors", "best-of-2024.txt"]
    for name in names:
        (tmp_path / name).write_text("mine")
    scripted(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("best-*")) == sorted(["best-0002.safetensors", *names])


def test_it_ends_early_and_keeps_the_best(tmp_path, scripted):
    events = scripted(tmp_path)
    assert [line["best_epoch"] for line in metrics(tmp_path)] == [1, 2, 2, 2]
    assert [event for event in events if event["event"] == "stopped"] == [
        {"event": "stopped", "epoch": 4, "epochs": 8, "best_epoch": 2}
    ]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        (text,) = file.metadata().values()
    assert json.loads(text)["epoch"] == 2
    kept, best = load_model(tmp_path).state_dict(), load_file(tmp_path / "best-0002.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in kept)
    last = load_checkpoint(tmp_path).tensors
    assert any(not torch.equal(last[f"average.{name}"], best[name]) for name in best)
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-0002.safetensors"]
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    scripted(tmp_path, resume=True)
    scripted(tmp_path, replace(PATIENT, epochs=20), resume=True)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("at", [(1, 1), (2, 0), (3, 3)])
def test_it_resumes_exactly(tmp_path, scripted, at):
    one, other = tmp_path / "one", tmp_path / "other"
    scripted(one)
    with pytest.raises(TrainingInterrupted):
        scripted(other, loader=MemoryLoader(batch_size=8, on_batch=send(signal.SIGTERM, at)))
    stage = open_named(other).stage
    assert stage.startswith(f"the best epoch so far, {min(2, at[0])}, after {at[0]} of 8 epochs")
    scripted(other, resume=True)
    assert_same_run(one, other)


def open_named(run_dir):
    """The network of a run of bare batches, whose record is given what the command line records."""
    path = run_dir / "config.json"
    record = json.loads(path.read_text())
    given = {"mean": [0.5] * 3, "std": [0.2] * 3}
    path.write_text(json.dumps(record | {"provenance": given}))
    try:
        return open_run_network(run_dir)
    finally:
        path.write_text(json.dumps(record))


@pytest.mark.slow
def test_best_weights_that_are_damaged_are_told(tmp_path, scripted):
    scripted(tmp_path)
    path = tmp_path / "best-0002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "model.safetensors").unlink()
    events = scripted(tmp_path, resume=True)
    (lost,) = [event for event in events if event["event"] == "best_lost"]
    assert "best-0002.safetensors" in lost["reason"]
    kept, last = load_model(tmp_path).state_dict(), load_checkpoint(tmp_path).tensors
    assert all(torch.equal(kept[name], last[f"average.{name}"]) for name in kept)


def test_weights_of_classes_train(tmp_path):
    config = replace(TINY, epochs=1, class_weights="balanced", label_smoothing=0.1, clip_norm=5.0)
    counts = np.bincount(MemoryLoader().labels, minlength=CLASSES)
    (line,) = run(tmp_path / "a", config, class_counts=counts.tolist()).metrics
    (plain,) = run(tmp_path / "b", replace(TINY, epochs=1)).metrics
    assert line["train_loss"] != plain["train_loss"]
