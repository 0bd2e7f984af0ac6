import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from target_packs import NAMES, TAGS, target_pack
from training_runs import assert_same_run

from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.grown_head import grow_head, head_tensors
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.networks.warm_start import load_weights
from edgeprune_runtime.normalization import Normalization
from edgeprune_runtime.task import Task, task_of
from edgeprune_runtime.training import TrainConfig, train
from edgeprune_runtime.training.objectives.average_precision import average_precision, precision_recall
from edgeprune_runtime.training.objectives.losses import loss_of
from edgeprune_runtime.training.objectives.metrics import make_meter

VALUE = Task("v", "value", "mm", (10.0, -4.0), (2.0, 8.0))
CONFIG = TrainConfig(model="resnet8", epochs=2, batch_size=8, lr=0.05, device="cpu")


def test_losses():
    torch.manual_seed(0)
    logits = torch.randn(5, 3)
    labels = torch.tensor([0, 2, 1, 1, 0])
    expected = -logits.log_softmax(1)[range(5), labels]
    assert loss_of(Task())(logits, labels, "sum") == pytest.approx(float(expected.sum()), rel=1e-6)
    tags = torch.rand(5, 3) < 0.5
    p = logits.double().sigmoid()
    expected = -torch.where(tags, p.log(), (1 - p).log()).mean(1)
    loss = loss_of(Task("t", "multilabel"))
    assert loss(logits, tags, "mean") == pytest.approx(float(expected.mean()), rel=1e-6)
    assert loss(logits, tags, "sum") == pytest.approx(float(expected.sum()), rel=1e-6)
    soft = torch.rand(5, 3).softmax(1)
    expected = -(soft * logits.log_softmax(1)).sum(1)
    loss = loss_of(Task("p", "probabilities"))
    assert loss(logits, soft, "mean") == pytest.approx(float(expected.mean()), rel=1e-6)


def test_the_loss_of_values_is_of_standardized_ones():
    outputs = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    wanted = torch.tensor([[11.0, -4.0], [12.0, 12.0]])
    # Standardized: (0.5, 0), (1, 2); errors 0.5, 0, 0, 4.
    each = [0.125, 0.0, 0.0, 4 - 0.5]
    assert loss_of(VALUE)(outputs, wanted, "mean") == pytest.approx(sum(each) / 4)
    assert loss_of(VALUE)(outputs, wanted, "sum") == pytest.approx(sum(each) / 2)


def test_accuracy_of_classes():
    meter = make_meter(Task())
    outputs = torch.eye(4)[[0, 0, 1, 3, 1, 1]]
    meter.add(outputs[:4], torch.tensor([0, 1, 1, 3]))
    meter.add(outputs[4:], torch.tensor([1, 3]))
    found = meter.result()
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["class_accuracy"] == [1.0, pytest.approx(2 / 3), None, 0.5]
    assert found["mean_class_accuracy"] == pytest.approx((1 + 2 / 3 + 0.5) / 3)


def reference_precision(scores, wanted):
    """The definition, threshold by threshold."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = float(wanted[chosen].sum()) / float(wanted.sum())
        total += (recall - before) * float(wanted[chosen].sum()) / float(chosen.sum())
        before = recall
    return total


@pytest.mark.parametrize("seed", range(4))
def test_average_precision(seed):
    random = np.random.default_rng(seed)
    scores = (random.standard_normal(50) * 4).round() / 4
    wanted = random.random(50) < 0.3
    assert average_precision(scores, wanted) == pytest.approx(reference_precision(scores, wanted))
    assert average_precision(scores, np.zeros(50, bool)) is None
    assert average_precision(wanted.astype(float), wanted) == 1
    precision, recall = precision_recall(scores, wanted)
    assert len(precision) == len(set(scores.tolist()))
    assert (precision[-1], recall[-1]) == (wanted.mean(), 1)
    assert (np.diff(recall) >= 0).all()


def test_mean_average_precision_is_of_the_classes_that_there_are():
    meter = make_meter(Task("t", "multilabel"))
    meter.add(torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool())
    assert meter.result() == {"map": 0.75, "class_ap": [1.0, 0.5, None]}


def test_errors_of_values():
    meter = make_meter(VALUE)
    random = np.random.default_rng(0)
    truth = random.standard_normal((40, 2)) * (3, 5) + (10, -4)
    told = truth + random.standard_normal((40, 2))
    outputs = torch.from_numpy((told - VALUE.mean) / VALUE.std).float()
    for part in (slice(0, 7), slice(7, 40)):
        meter.add(outputs[part], torch.from_numpy(truth[part]).float())
    found = meter.result()
    assert found["mae"] == pytest.approx(np.abs(told - truth).mean(0).tolist(), rel=1e-4)
    spread = ((truth - truth.mean(0)) ** 2).sum(0)
    assert found["r2"] == pytest.approx((1 - ((told - truth) ** 2).sum(0) / spread).tolist(), rel=1e-4)


def test_values_that_are_the_same_everywhere_have_no_r2():
    meter = make_meter(VALUE)
    meter.add(torch.zeros(3, 2), torch.full((3, 2), 7.5))
    assert meter.result()["r2"] == [None, None]


def test_a_task_is_one_that_a_network_can_learn(path):
    with open_pack(path) as pack:
        task = task_of(pack.targets["value"].column, pack.targets["value"].read())
        values = pack.targets["value"].read().astype(float)
        assert task.mean == pytest.approx(values.mean(0).tolist())
        assert task.std == pytest.approx(values.std(0).tolist())
        with pytest.raises(ConfigError, match="'file' is of kind text, which describes images"):
            task_of(pack.targets["file"].column, pack.targets["file"].read())
    assert task_of(pack.targets["value"].column, np.ones((3, 2))).std == (1.0, 1.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return target_pack(tmp_path_factory.mktemp("packs") / "pack.h5", samples=24, side=8)


def run(path, run_dir, target, *, config=CONFIG, **options):
    loader = PackLoader(path, 8, True, normalize=True, device="cpu", targets=(target,), backend="torch")
    test = PackLoader(path, 8, normalize=True, device="cpu", targets=(target,), backend="torch")
    (column,) = loader.targets
    task = task_of(column, loader.pack.targets[target].read())
    shape = loader.pack.header.shape
    facts = {"mean": loader.pack.header.mean, "std": loader.pack.header.std, "class_names": column.classes}
    return train(
        loader,
        config,
        run_dir,
        num_classes=column.outputs,
        image_shape=shape,
        test=test,
        task=task,
        provenance=facts,
        **options,
    )


MEASURED = {
    "kind": ("accuracy", "mean_class_accuracy", "class_accuracy"),
    "soft": ("accuracy", "mean_class_accuracy", "class_accuracy"),
    "tags": ("map", "class_ap"),
    "value": ("mae", "r2"),
}


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("target", MEASURED)
def test_a_run_on_each_kind(path, tmp_path, one_thread, target):
    result = run(path, tmp_path / "run", target)
    last = result.metrics[-1]
    assert math.isfinite(last["test_loss"])
    assert {f"test_{name}" for name in MEASURED[target]} <= last.keys()
    assert (last["test_accuracy"] is None) == (target in ("tags", "value"))
    assert (last["train_accuracy"] is None) == (target in ("tags", "value"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == json.loads(json.dumps(last))
    network = load_trained(tmp_path / "run")
    assert network.task.target == target
    assert network.class_names == {"kind": NAMES, "tags": TAGS, "soft": ("light", "shade")}.get(target)
    outputs = network.on_images()(torch.rand(3, 3, 8, 8))
    assert outputs.shape == (3, {"kind": 3, "tags": 3, "soft": 2, "value": 2}[target])
    if target == "tags":
        assert ((outputs > 0) & (outputs < 1)).all()
    if target == "value":
        plain = network.model((torch.rand(3, 3, 8, 8) - 0.5) / 0.25)
        assert torch.isfinite(plain).all()
        assert network.task.unit == "mm"


@pytest.mark.slow
def test_values_come_in_the_unit_of_the_data(path, tmp_path, one_thread):
    config = TrainConfig(model="resnet8", epochs=25, batch_size=8, lr=0.05, device="cpu")
    result = run(path, tmp_path / "run", "value", config=config)
    first, last = result.metrics[0], result.metrics[-1]
    assert last["train_loss"] < first["train_loss"] / 4
    network = load_trained(tmp_path / "run").on_images()
    with torch.no_grad():
        told = torch.cat([network(images) for (images,) in PackLoader(path, 8, device="cpu", targets=())])
    with open_pack(path) as pack:
        error = np.abs(told.numpy() - pack.targets["value"].read()).mean(0)
    assert error.tolist() == pytest.approx(last["test_mae"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tags", "value"])
def test_a_run_goes_on(path, tmp_path, one_thread, target):
    run(path, tmp_path / "whole", target)
    events = []

    def stop(event):
        events.append(event)
        if event["event"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path / "cut", target, on_event=stop)
    run(path, tmp_path / "cut", target, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(ConfigError, match="cannot be resumed"):
        run(path, tmp_path / "cut", "kind", resume=True)


def test_a_loader_of_other_targets_is_refused(path, tmp_path):
    for targets, given in ((("kind", "weight"), "'kind', 'weight'"), (("tags",), "'tags'"), ((), "none")):
        loader = PackLoader(path, 8, normalize=True, device="cpu", targets=targets, backend="torch")
        with pytest.raises(
            ConfigError, match=f"hands out targets {given}; `task` learns 'kind', and that alone"
        ):
            train(loader, CONFIG, tmp_path, num_classes=3, image_shape=(3, 8, 8), task=Task("kind"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_last_layer_of_another_target_is_fresh_and_that_of_values_rescaled(path, tmp_path, one_thread):
    for target in ("value", "soft"):
        run(path, tmp_path / target, target)
    learned = load_trained(tmp_path / "value")
    events = []
    run(path, tmp_path / "other", "value", init=tmp_path / "soft", on_event=events.append)
    (line,) = next(event["fitted"] for event in events if event["event"] == "init")
    assert line == "the last layer is fresh: the run has learned 'soft', of kind probabilities"
    # The same values in another unit.
    task = replace(learned.task, mean=(1.0, 3.0), std=(2.0, 5.0))
    other, _ = create_model("resnet8", 2, 8), torch.manual_seed(0)
    drawn = head_tensors(other, 2)
    load_weights(other, tmp_path / "value" / "model.safetensors")
    assert grow_head(other, drawn, tmp_path / "value" / "model.safetensors", None, task) is None
    images = torch.rand(3, 3, 8, 8)
    outputs, before = other.eval()(images), learned.model(images)
    mean, std = torch.tensor(task.mean), torch.tensor(task.std)
    own_mean, own_std = torch.tensor(learned.task.mean), torch.tensor(learned.task.std)
    torch.testing.assert_close(outputs * std + mean, before * own_std + own_mean, rtol=1e-4, atol=1e-4)


def test_a_forged_record_beside_weights_counts_as_none(path, tmp_path, one_thread):
    run(path, tmp_path / "run", "kind")
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    for text in ("[" * 200_000, "{}", "nonsense"):
        save_file(tensors, tmp_path / "forged.safetensors", {"edgeprune": text})
        model = create_model("resnet8", 3, 8)
        assert grow_head(model, head_tensors(model, 3), tmp_path / "forged.safetensors", NAMES) is None


@pytest.mark.slow
def test_a_teacher_of_values_is_refused(path, tmp_path, one_thread):
    run(path, tmp_path / "value", "value")
    known = Normalization((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ConfigError, match="has learned 'value', of kind value; a teacher answers"):
        run(path, tmp_path / "run", "soft", teacher=tmp_path / "value", normalization=known)


def test_a_teacher_teaches_classes(path, tmp_path):
    with pytest.raises(ConfigError, match="a teacher answers with classes, and 'value' is a value"):
        run(path, tmp_path / "run", "value", teacher=tmp_path)


def test_a_network_whose_task_is_forged(path, tmp_path, one_thread):
    run(path, tmp_path / "run", "value")
    file = tmp_path / "run" / "model.safetensors"
    raw = file.read_bytes()
    for old, new in ((b'\\"kind\\": \\"value\\"', b'\\"kind\\": \\"class\\"'), (b"value", b"taste")):
        forged = tmp_path / "forged.safetensors"
        assert old in raw
        forged.write_bytes(raw.replace(old, new))
        with pytest.raises(TrainingError, match="not a model of a run"):
            load_trained(forged)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("target", ["kind", "value"])
def test_a_run_knows_what_a_pack_loader_knows(path, tmp_path, one_thread, target):
    loader = PackLoader(path, 8, True, normalize=True, device="cpu", targets=(target,), backend="torch")
    (column,) = loader.targets
    task = task_of(column, loader.pack.targets[target].read())
    known = {"num_classes": column.outputs, "image_shape": (3, 8, 8), "task": task}
    train(loader, CONFIG, tmp_path, **known)
    network = load_trained(tmp_path)
    assert network.normalization == Normalization(loader.pack.header.mean, loader.pack.header.std)
    assert network.class_names == (column.classes or None)
    train(loader, CONFIG, tmp_path, **known, resume=True)
    # A run of before did not.
    record = json.loads((tmp_path / "config.json").read_text())
    for name in ("mean", "std", "class_names"):
        record["provenance"].pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(record))
    train(loader, CONFIG, tmp_path, **known, resume=True)
    other = PackLoader(path, 8, True, normalize=False, device="cpu", targets=(target,), backend="torch")
    assert other.normalization == Normalization((0.0,) * 3, (1.0,) * 3)
