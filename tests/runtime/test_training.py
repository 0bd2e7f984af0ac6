import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from edgeprune_formats import ConfigError, TrainingError
from edgeprune_runtime.checkpoint import load_checkpoint
from edgeprune_runtime.models import MODEL_NAMES
from edgeprune_runtime.training import TrainConfig, TrainingInterrupted, load_model, train
from edgeprune_runtime.training_config import Placement, place
from edgeprune_runtime.training_step import Learner, Tally, learning_rate, update_average

CLASSES = 4
SHAPE = (3, 16, 16)
TIMES = ("images_per_second", "seconds")


def separable(count, seed):
    """Images of `CLASSES` fixed patterns in noise, float32 ``[count, 3, 16, 16]``, and their labels."""
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(99))
    random_source = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=random_source)
    return patterns[labels] + torch.randn(count, *SHAPE, generator=random_source), labels


class MemoryLoader:
    """A `TrainLoader` over images in memory: shuffled, with noise for augmentation."""

    def __init__(self, count=26, batch_size=8, on_batch=lambda epoch, batch: None):
        self.images, self.labels = separable(count, seed=1)
        self.batch_size = batch_size
        self.on_batch = on_batch
        self.epoch = self.position = 0

    def __len__(self):
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(self.epoch))
        for batch in range(self.position, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            noise = torch.Generator().manual_seed(1000 * self.epoch + batch)
            images = self.images[chosen] + 0.1 * torch.randn(len(chosen), *SHAPE, generator=noise)
            self.position = batch + 1
            self.on_batch(self.epoch, batch)
            yield images, self.labels[chosen]

    def set_epoch(self, epoch):
        self.epoch, self.position = epoch, 0

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


TEST = [separable(16, seed=2), separable(5, seed=3)]
TINY = TrainConfig(model="mobilenet_v2", epochs=3, batch_size=8, lr=0.05, ema=0.9, device="cpu")


def run(run_dir, config=TINY, *, on_batch=lambda epoch, batch: None, **options):
    options = {
        "test": TEST,
        "loader": MemoryLoader(batch_size=config.batch_size, on_batch=on_batch),
    } | options
    return train(options.pop("loader"), config, run_dir, num_classes=CLASSES, image_shape=SHAPE, **options)


def send(signal_number, at):
    """An `on_batch` that sends this process a signal while batch `at` = (epoch, batch) is prepared."""
    return lambda *now: os.kill(os.getpid(), signal_number) if now == at else None


def metrics(run_dir, times=False):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if times or k not in TIMES} for line in lines]


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    ours, theirs = load_checkpoint(one), load_checkpoint(other)
    assert ours.state["step"] == theirs.state["step"]
    assert ours.tensors.keys() == theirs.tensors.keys()
    different = [
        name for name, tensor in ours.tensors.items() if not torch.equal(tensor, theirs.tensors[name])
    ]
    assert not different
    kept, expected = load_model(one).state_dict(), load_model(other).state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small steps gain nothing from threads, and lose much where another process wants the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run(run_dir, provenance={"pack": "digits.h5"})


def test_the_folder_of_a_run(whole_run):
    run_dir = whole_run.run_dir
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoint-0003.safetensors",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "state.json",
    ]
    record = json.loads((run_dir / "config.json").read_text())
    assert record["config"] == asdict(TINY) | {"precision": "float32"}
    assert record["image_shape"] == [3, 16, 16]
    assert record["num_classes"] == CLASSES
    assert record["steps_per_epoch"] == 4
    assert record["provenance"] == {"pack": "digits.h5"}
    assert record["parameters"] == sum(p.numel() for p in load_model(run_dir).parameters())
    assert set(record["versions"]) == {"edgeprune", "python", "torch", "numpy"}


def test_the_metrics_of_a_run(whole_run):
    lines = metrics(whole_run.run_dir, times=True)
    assert lines == list(whole_run.metrics)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert 0 < line["train_loss"] < 100
        assert 0 <= line["train_accuracy"] <= 1
        assert line["train_accuracy"] * 26 == pytest.approx(round(line["train_accuracy"] * 26))
        assert line["test_accuracy"] * 21 == pytest.approx(round(line["test_accuracy"] * 21))
        assert line["images_per_second"] >= 26 / line["seconds"] > 0
    assert lines[-1]["lr"] == learning_rate(11, 12, TINY.lr)


def test_the_test_is_of_the_model_that_load_model_returns(whole_run):
    model = load_model(whole_run.run_dir)
    assert not model.training
    images, labels = (torch.cat(parts) for parts in zip(*TEST, strict=True))
    with torch.no_grad():
        logits = model(images)
    last = whole_run.metrics[-1]
    assert last["test_accuracy"] == (logits.argmax(1) == labels).double().mean().item()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert last["test_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_models_file_describes_itself(whole_run):
    with safe_open(whole_run.run_dir / "model.safetensors", "pt") as file:
        assert file.metadata() == {"model": "mobilenet_v2", "num_classes": "4", "image_shape": "3,16,16"}


def test_the_average_is_what_is_kept(whole_run):
    tensors = load_checkpoint(whole_run.run_dir).tensors
    kept = load_model(whole_run.run_dir).state_dict()
    assert all(torch.equal(kept[name], tensors[f"average.{name}"]) for name in kept)
    assert not torch.equal(kept["classifier.1.weight"], tensors["model.classifier.1.weight"])


def test_nothing_of_the_process_is_left_changed(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path / "run", replace(TINY, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_seed_decides_everything(tmp_path, whole_run):
    torch.manual_seed(12345)
    assert_same_run(run(tmp_path / "same").run_dir, whole_run.run_dir)
    other = run(tmp_path / "other", replace(TINY, seed=1))
    assert other.metrics[-1]["train_loss"] != whole_run.metrics[-1]["train_loss"]


def test_training_works_in_a_thread(tmp_path, whole_run):
    thread = threading.Thread(target=run, args=(tmp_path / "run",))
    thread.start()
    thread.join()
    assert_same_run(tmp_path / "run", whole_run.run_dir)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_every_network_learns_at_the_default_rate(tmp_path, model):
    config = TrainConfig(model=model, epochs=3 if model == "resnet18" else 6, batch_size=32, device="cpu")
    result = run(tmp_path / "run", config, loader=MemoryLoader(192, 32), test=None)
    # At the peak of so short a run the loss may go up first; it has to come down all the same.
    losses = [line["train_loss"] for line in result.metrics]
    assert losses[-1] < 0.5 * max(losses)
    assert result.metrics[-1]["train_accuracy"] > 1.5 / CLASSES


@pytest.mark.parametrize(
    ("model", "ema", "number"),
    [
        ("mobilenet_v2", 0.9, signal.SIGTERM),
        ("mobilenet_v2", None, signal.SIGINT),
        ("efficientnet_b0", 0.9, signal.SIGINT),
        ("resnet18", 0.9, signal.SIGTERM),
        ("shufflenet_v2", None, signal.SIGTERM),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, model, ema, number):
    config = replace(TINY, model=model, ema=ema, epochs=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, config)
    handler = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match="after step 6 of 8; go on with --resume"):
        run(parts, config, on_batch=send(number, at=(1, 1)))
    assert signal.getsignal(number) is handler
    assert len(metrics(parts)) == 1
    assert load_checkpoint(parts).state["loader"] == {"epoch": 1, "position": 2}
    run(parts, config, resume=True)
    assert_same_run(parts, whole)


@pytest.mark.parametrize("at", [(0, 0), (0, 3), (1, 0), (2, 3)])
def test_interruptions_at_the_ends_of_an_epoch(tmp_path, whole_run, at):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, on_batch=send(signal.SIGTERM, at))
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


def test_an_interruption_during_the_test(tmp_path, whole_run):
    class Interrupting:
        def __iter__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return iter(TEST)

    with pytest.raises(TrainingInterrupted, match="after step 4 of 12"):
        run(tmp_path, test=Interrupting())
    assert load_checkpoint(tmp_path).state["history"] == []
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


class Crash(BaseException):
    pass


def crash_at(at):
    def on_batch(*now):
        if now == at:
            raise Crash

    return on_batch


def test_a_crash_after_an_epoch(tmp_path, whole_run):
    with pytest.raises(Crash):
        run(tmp_path, on_batch=crash_at((1, 2)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_lo')
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


def test_a_crash_before_the_first_checkpoint(tmp_path, whole_run):
    with pytest.raises(Crash):
        run(tmp_path, on_batch=crash_at((0, 2)))
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


def test_a_crash_before_the_model_is_written(tmp_path, whole_run):
    run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="no trained model; finish the run with --resume"):
        load_model(tmp_path)
    run(tmp_path, resume=True, on_batch=crash_at((0, 0)))
    assert_same_run(tmp_path, whole_run.run_dir)


def test_a_finished_run_returns_at_once(whole_run):
    before = {path: path.stat().st_mtime_ns for path in whole_run.run_dir.iterdir()}
    options = {"resume": True, "provenance": {"pack": "digits.h5"}}
    assert run(whole_run.run_dir, on_batch=crash_at((0, 0)), **options) == whole_run
    assert {path: path.stat().st_mtime_ns for path in whole_run.run_dir.iterdir()} == before


def test_resume_in_an_empty_folder_starts(tmp_path):
    assert len(run(tmp_path / "a" / "b", replace(TINY, epochs=1), resume=True, test=None).metrics) == 1


def test_without_a_test_set(tmp_path):
    (line,) = run(tmp_path, replace(TINY, epochs=1, ema=None), test=None).metrics
    assert line["test_loss"] is None
    assert line["test_accuracy"] is None


@pytest.mark.parametrize(
    "name", ["config.json", "state.json", "metrics.jsonl", "model.safetensors", "checkpoint-0007.safetensors"]
)
def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="already holds a run; use --resume"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "epochs was 3 and is now 4"),
        ({"model": "resnet18"}, "model was 'mobilenet_v2' and is now 'resnet18'"),
        ({"ema": None}, "ema was 0.9 and is now None"),
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"precision": "bfloat16"}, "precision was 'float32' and is now 'bfloat16'"),
    ],
)
def test_resume_with_other_settings(whole_run, change, message):
    with pytest.raises(ConfigError, match=message):
        run(whole_run.run_dir, replace(TINY, **change), resume=True, provenance={"pack": "digits.h5"})


def test_resume_with_other_data(whole_run):
    with pytest.raises(ConfigError, match=r"provenance pack was 'digits.h5' and is now 'other.h5'"):
        run(whole_run.run_dir, resume=True, provenance={"pack": "other.h5"})
    options = {"loader": MemoryLoader(16), "provenance": {"pack": "digits.h5"}}
    with pytest.raises(ConfigError, match="steps_per_epoch was 4 and is now 2"):
        run(whole_run.run_dir, resume=True, **options)


def test_settings_that_only_spell_the_same_differently(whole_run):
    config = replace(TINY, device="cpu", precision="float32")
    assert run(whole_run.run_dir, config, resume=True, provenance={"pack": "digits.h5"}) == whole_run


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tmp_path):
    class Spoilt(MemoryLoader):
        def __iter__(self):
            for batch, (images, labels) in enumerate(super().__iter__()):
                yield (images * math.nan if (self.epoch, batch) == (1, 2) else images), labels

    with pytest.raises(
        TrainingError, match=r"the loss became nan at step 3 of 4 in epoch 2 of 3; .* lower --lr"
    ):
        run(tmp_path, loader=Spoilt())
    tensors = load_checkpoint(tmp_path).tensors
    assert len(metrics(tmp_path)) == 1
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_rate_far_too_high(tmp_path):
    with pytest.raises(TrainingError, match=r"lower --lr than 1e\+20"):
        run(tmp_path, replace(TINY, lr=1e20))


def test_one_image_left_over(tmp_path):
    loader = MemoryLoader(9, 8)
    loader.images = loader.images[:, :, :8, :8]

    class Small(MemoryLoader):
        def __iter__(self):
            return ((images[:, :, :8, :8], labels) for images, labels in super().__iter__())

    with pytest.raises(TrainingError, match=r"a batch of one image .* --batch-size"):
        train(Small(9, 8), TINY, tmp_path, num_classes=CLASSES, image_shape=(3, 8, 8))


def test_one_image_left_over_of_a_larger_size_is_fine(tmp_path):
    run(tmp_path, replace(TINY, epochs=1), loader=MemoryLoader(9, 8))


@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 16)])
def test_images_that_no_network_takes(tmp_path, shape):
    with pytest.raises(ConfigError, match="3 channels"):
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
    monkeypatch.setattr("edgeprune_runtime.training_run._REPORT_SECONDS", 0)
    reports = []
    result = run(tmp_path, replace(TINY, epochs=2), report=reports.append)
    assert [r["step"] for r in reports if r["event"] == "step"] == list(range(1, 9))
    assert [r for r in reports if r["event"] == "epoch"] == [{"event": "epoch", **m} for m in result.metrics]
    first = reports[0]
    assert (first["epoch"], first["epochs"], first["steps"]) == (1, 2, 8)
    assert first["eta_seconds"] > 0
    assert first["images_per_second"] > 0
    assert reports[3]["loss"] == result.metrics[0]["train_loss"]


def test_reports_are_few(tmp_path):
    reports = []
    started = time.perf_counter()
    run(tmp_path, TINY, report=reports.append)
    steps = [r for r in reports if r["event"] == "step"]
    assert len(steps) <= (time.perf_counter() - started) / 0.3 + 1


def test_bfloat16_autocast_trains(tmp_path):
    config = replace(TINY, epochs=1, precision="bfloat16")
    (line,) = run(tmp_path, config).metrics
    assert math.isfinite(line["train_loss"])
    assert load_checkpoint(tmp_path).tensors["model.classifier.1.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "vgg"}, "unknown model 'vgg'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": math.inf}, "lr is inf"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum": 0.0}, "nesterov needs"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"ema": 0.0}, "ema is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"precision": "float16"}, "precision must be one of auto, float32, bfloat16"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)


def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="device cuda:99 does not exist"):
        place(TrainConfig(device="cuda:99"))


def test_auto_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place(TrainConfig()) == Placement(torch.device("cpu"), "float32")


def test_learning_rate():
    rates = [learning_rate(step, 1000, 0.1) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 50)
    assert rates[49] == rates[50] == max(rates) == 0.1
    assert rates[525] == pytest.approx(0.05)
    assert 0 < rates[-1] < 1e-6
    assert rates[50:] == sorted(rates[50:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 30, 100])
def test_learning_rate_of_short_runs(steps):
    rates = [learning_rate(step, steps, 0.1) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert max(rates) == 0.1
    assert rates.index(0.1) <= 20


def test_the_average_forgets_the_initial_weights():
    average, model = (torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1)) for _ in range(2))
    with torch.no_grad():
        average[0].weight.fill_(1.0)
        model[0].weight.fill_(0.0)
    model[1].running_mean.fill_(3.0)
    update_average(average, model, 0, 0.999)
    assert average[0].weight.item() == pytest.approx(0.1)
    assert average[1].running_mean.item() == 3.0
    update_average(average, model, 10**6, 0.9)
    assert average[0].weight.item() == pytest.approx(0.09)


def test_the_tally_does_not_depend_on_when_it_is_drained():
    losses = torch.rand(20, generator=torch.Generator().manual_seed(0))
    one, other = Tally(), Tally()
    for loss in losses:
        one.add(loss, torch.tensor(3), 7)
        other.add(loss, torch.tensor(3), 7)
        other.drain()
        other = Tally(**json.loads(json.dumps(other.sums())))
    one.drain()
    assert one.sums() == other.sums()
    assert (one.steps, one.images, one.correct) == (20, 140, 60)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_weight_decay_spares_biases_and_norms(model):
    learner = Learner(replace(TINY, model=model), place(TINY), CLASSES, 16)
    norms = {
        id(p) for m in learner.model.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()
    }
    biases = {id(p) for name, p in learner.model.named_parameters() if name.endswith("bias")}
    decayed, spared = learner._optimizer.param_groups
    assert {id(p) for p in spared["params"]} == norms | biases
    assert spared["weight_decay"] == 0
    assert decayed["weight_decay"] == TINY.weight_decay
    assert len(decayed["params"]) + len(spared["params"]) == len(list(learner.model.parameters()))


KILLED = replace(TINY, epochs=8)


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path):
    killed = tmp_path / "killed"
    moments = random.Random(0)
    for _ in range(3):
        with start_process(killed) as process:
            for _ in range(moments.randint(1, 7)):
                assert process.stdout.readline() == "batch\n"
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    for run_dir in (killed, tmp_path / "whole"):
        with start_process(run_dir) as process:
            process.stdout.read()
        assert process.returncode == 0
    assert_same_run(killed, tmp_path / "whole")


def start_process(run_dir):
    """Train, or go on, in a process that prints a line for each batch."""
    return subprocess.Popen([sys.executable, __file__, run_dir], stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), KILLED, resume=True, on_batch=lambda *_: print("batch", flush=True))
