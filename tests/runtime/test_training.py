import json
import math
import os
import random
import signal
import threading
import time
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from training_runs import (
    CARD_SECONDS,
    CLASSES,
    KILLED,
    TEST,
    TINY,
    MemoryLoader,
    Small,
    assert_same_run,
    metrics,
    run,
    send,
    start_process,
)

from edgeprune_formats import ConfigError
from edgeprune_runtime import PackLoader
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.models import MODEL_NAMES, head_of
from edgeprune_runtime.training import (
    Cadence,
    TrainConfig,
    TrainingInterrupted,
    defaults_of,
    load_model,
    train,
)
from edgeprune_runtime.training.progress.schedule import learning_rate
from edgeprune_runtime.training.progress.signals import deferred_signals
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_folder_of_a_run(whole_run):
    run_dir = whole_run.run_dir
    assert sorted(path.name for path in run_dir.iterdir()) == [
        ".lock",
        "checkpoint-0002.json",
        "checkpoint-0002.safetensors",
        "checkpoint-0003.json",
        "checkpoint-0003.safetensors",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
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
        (text,) = file.metadata().values()
    assert json.loads(text) == {"model": "resnet8", "num_classes": 4, "image_shape": [3, 16, 16]}


def test_the_average_is_what_is_kept(whole_run):
    tensors = load_checkpoint(whole_run.run_dir).tensors
    kept = load_model(whole_run.run_dir).state_dict()
    assert all(torch.equal(kept[name], tensors[f"average.{name}"]) for name in kept)
    head, _ = head_of(load_model(whole_run.run_dir))
    assert not torch.equal(kept[f"{head}.weight"], tensors[f"model.{head}.weight"])


@pytest.mark.slow
def test_nothing_of_the_process_is_left_changed(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(tmp_path / "run", replace(TINY, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.slow
def test_the_seed_decides_everything(tmp_path, whole_run):
    torch.manual_seed(12345)
    assert_same_run(run(tmp_path / "same").run_dir, whole_run.run_dir)
    other = run(tmp_path / "other", replace(TINY, seed=1))
    assert other.metrics[-1]["train_loss"] != whole_run.metrics[-1]["train_loss"]


@pytest.mark.slow
def test_training_works_in_a_thread(tmp_path, whole_run):
    thread = threading.Thread(target=run, args=(tmp_path / "run",))
    thread.start()
    thread.join()
    assert_same_run(tmp_path / "run", whole_run.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODEL_NAMES)
def test_every_network_learns_at_the_default_rate(tmp_path, model):
    # As few steps, on as small images, as the network learns from.
    epochs = {"resnet18": 2, "resnet34": 3, "mobilenet_v2": 5}.get(model, 6)
    batch_size = 32 if model == "resnet9" else 16
    count = {"efficientnet_b0": 48, "resnet9": 96}.get(model, 64)
    loader = Small(count, batch_size, side=8)
    shape = next(iter(loader))[0].shape[1:]
    # Smoothed labels would keep the loss up.
    own = {**defaults_of(model), "label_smoothing": 0.0}
    own.pop("augment", None)
    config = TrainConfig(
        **{**own, "model": model, "epochs": epochs, "batch_size": batch_size, "device": "cpu"}
    )
    result = train(loader, config, tmp_path / "run", num_classes=CLASSES, image_shape=shape)
    # At the peak of so short a run the loss may go up first; it has to come down all the same.
    losses = [line["train_loss"] for line in result.metrics]
    assert losses[-1] < 0.5 * max(losses)
    assert result.metrics[-1]["train_accuracy"] > 1.5 / CLASSES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "ema", "number", "at"),
    [
        # Dropout, stochastic depth, and neither, in the middle of an epoch and where one ends.
        ("mobilenet_v2", 0.9, signal.SIGTERM, (1, 0)),
        ("mobilenet_v2", None, signal.SIGINT, (0, 1)),
        ("efficientnet_b0", 0.9, signal.SIGINT, (1, 0)),
        ("resnet8", None, signal.SIGTERM, (1, 0)),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, model, ema, number, at):
    config = replace(TINY, model=model, ema=ema, epochs=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def go(run_dir, on_batch=lambda *now: None, **options):
        run(run_dir, config, loader=MemoryLoader(16, on_batch=on_batch), test=TEST[1:], **options)

    go(whole)
    handler = signal.getsignal(number)
    step = 2 * at[0] + at[1] + 1
    with pytest.raises(TrainingInterrupted, match=f"after step {step} of 4; go on with `resume=True`"):
        go(parts, send(number, at))
    assert signal.getsignal(number) is handler
    state = load_checkpoint(parts).state
    assert len(state["history"]) == at[0]
    assert state["loader"] == {"epoch": at[0], "position": at[1] + 1}
    go(parts, resume=True)
    assert_same_run(parts, whole)


@pytest.mark.slow
@pytest.mark.parametrize("at", [(0, 0), (0, 3), (1, 0), (2, 3)])
def test_interruptions_at_the_ends_of_an_epoch(tmp_path, whole_run, at):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, on_batch=send(signal.SIGTERM, at))
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_run_from_a_pack_stopped_after_an_epochs_last_step(tmp_path, make_pack, prefetch):
    """The loader's state is that of the next epoch, and no epoch is trained twice or left out."""
    path, _ = make_pack(samples=26, components=100, size=(16, 16))
    config = replace(TINY, model="resnet8", ema=None, epochs=2)

    def loader():
        return PackLoader(path, 8, True, device="cpu", augment=True, normalize=True, prefetch=prefetch)

    class Stopping(list):
        def __iter__(self):
            raise KeyboardInterrupt

    run(tmp_path / "whole", config, loader=loader())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", config, loader=loader(), test=Stopping(TEST), cadence=Cadence(steps=1))
    state = load_checkpoint(tmp_path / "parts").state
    assert (state["step"], state["tally"]["steps"], state["loader"]["epoch"]) == (4, 4, 1)
    run(tmp_path / "parts", config, loader=loader(), resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_crash_after_an_epoch(tmp_path, whole_run):
    with pytest.raises(Crash):
        run(tmp_path, on_batch=crash_at((1, 2)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_lo')
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
def test_a_crash_before_the_first_checkpoint(tmp_path, whole_run):
    with pytest.raises(Crash):
        run(tmp_path, on_batch=crash_at((0, 2)))
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
def test_a_crash_before_the_model_is_written(tmp_path, whole_run):
    run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="no trained model; finish the run with `resume=True`"):
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


@pytest.mark.slow
@pytest.mark.parametrize("crash", [(0, 2), (0, 3), (1, 0), (2, 2)])
def test_a_crash_between_checkpoints_within_an_epoch(tmp_path, whole_run, crash):
    with pytest.raises(Crash):
        run(tmp_path, on_batch=crash_at(crash), cadence=Cadence(steps=2))
    epoch, batch = crash
    assert load_checkpoint(tmp_path).state["step"] == (4 * epoch + batch) // 2 * 2
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
def test_a_checkpoint_is_due_by_time_or_by_steps(tmp_path, whole_run):
    assert [step for step in range(1, 9) if Cadence(steps=3).is_due(step, 0.0)] == [3, 6]
    assert not Cadence(seconds=2).is_due(3, 1.9)
    assert Cadence(seconds=2).is_due(3, 2.0)
    assert not Cadence(seconds=None).is_due(3, 1e9)
    run(tmp_path, cadence=Cadence(seconds=1e-9))
    assert_same_run(tmp_path, whole_run.run_dir)
    # One for every step, and one for every epoch.
    assert (tmp_path / "checkpoint-0015.json").exists()


@pytest.mark.parametrize("problem", [{"steps": 0}, {"seconds": 0.0}, {"seconds": math.nan}])
def test_a_cadence_out_of_range(problem):
    with pytest.raises(ConfigError, match="between two checkpoints must be positive"):
        Cadence(**problem)


@pytest.mark.slow
def test_the_older_checkpoint_stands_in_and_this_is_told(tmp_path, whole_run):
    with pytest.raises(Crash):
        run(tmp_path, on_batch=crash_at((2, 1)))
    path = tmp_path / "checkpoint-0002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    events = []
    run(tmp_path, resume=True, on_event=events.append)
    (fallback,) = [event for event in events if event["event"] == "fallback"]
    assert fallback["step"] == 4
    assert "checkpoint-0002.safetensors" in fallback["reason"]
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.slow
def test_kill_9_at_20_random_moments(tmp_path):
    killed = tmp_path / "killed"
    moments = random.Random(0)
    while_writing = 0
    with start_process(killed) as process:
        for _ in range(20):
            # A checkpoint follows each step and reaches the disk in parts, so most kills fall into one.
            for _ in range(moments.randint(1, 12)):
                child = int(process.stdout.readline())
            time.sleep(moments.uniform(0, CARD_SECONDS))
            os.kill(child, signal.SIGKILL)
            while not (line := process.stdout.readline()).startswith("killed"):
                assert int(line) == child
            while_writing += "while writing" in line
        assert not (killed / "model.safetensors").exists()
        process.stdout.read()
    assert process.returncode == 0
    assert while_writing
    assert_same_run(killed, run(tmp_path / "whole", KILLED).run_dir)


@pytest.mark.slow
def test_a_run_that_is_hung_up_resumes(tmp_path, whole_run):
    with pytest.raises(TrainingInterrupted, match="after step 6"):
        run(tmp_path, on_batch=send(signal.SIGHUP, (1, 1)))
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run.run_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_says_which_signal_it_was(tmp_path, number):
    with pytest.raises(TrainingInterrupted) as told:
        run(tmp_path, on_batch=send(number, (0, 1)))
    assert told.value.number == number


def test_a_hang_up_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred_signals() as interrupted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupted()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_lines_for_people(tmp_path):
    lines, events = [], []
    run(tmp_path / "run", replace(TINY, epochs=1), report=lines.append, on_event=events.append)
    assert lines[0] == "resnet8; cpu; 1 thread; float32"
    assert lines[1].startswith("epoch   1/1  train loss ")
    assert len(lines) == 2
    assert {"start", "epoch"} <= {event["event"] for event in events}
    run(tmp_path / "run", replace(TINY, epochs=2), resume=True, report=lines.append)
    assert "epoch 2 is a new schedule" in lines[3]
