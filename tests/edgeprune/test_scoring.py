import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scoring_runs
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scoring_runs import (
    IMAGES,
    STEPS,
    TINY,
    Crash,
    arrays,
    assert_same_scores,
    at_report,
    crash,
    interrupt,
    score,
    write_source,
)

from edgeprune.errors import SourceError
from edgeprune.scoring import run as scoring
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.scores_file import read_classifier, read_records
from edgeprune.scoring.task import ScoringTask
from edgeprune.sources import check_source, open_source
from edgeprune.work.image_store import ImageStore
from edgeprune.work.processes import Workers
from edgeprune.work.resumable import work_folder
from edgeprune_formats import ConfigError, PackWriteError
from edgeprune_formats.files import file_sha256
from edgeprune_runtime.decode.augmentation import draw
from edgeprune_runtime.errors import ArtifactError, TrainingError
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.config import place
from edgeprune_runtime.training.step import Learner, learning_rate


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, spec):
    """The scores of a run that nothing interrupted."""
    return score(tmp_path_factory.mktemp("whole") / "s.h5", spec)


@pytest.fixture
def report_each_step(monkeypatch):
    monkeypatch.setattr("edgeprune.work.resumable._REPORT_SECONDS", -1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def normalized(pixels, mean, std):
    images = torch.from_numpy(pixels.copy()).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))
    return (images.float() / 255 - mean) / std


def cropped(pixels, drawn):
    if drawn is None:
        return pixels
    pairs = zip(pixels, drawn.rows, drawn.columns, strict=True)
    return np.stack([image[:, down][:, :, across] for image, down, across in pairs])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def train_by_hand(spec, config):
    """Take the steps of a scoring run with nothing of its own code; yield each step's rows and logits."""
    source = open_source(spec)
    check = check_source(source)
    mean, std = check.statistics(check.good, 256)
    training = config.training(config.model)
    learner = Learner(training, place(training), len(source.class_names), 16)
    steps = -(-len(source) // config.batch_size)
    for epoch in range(config.epochs):
        learner.model.train()
        order = np.random.default_rng([config.seed, epoch]).permutation(len(source))
        for step, rows in enumerate(np.array_split(order, steps)):
            place_in_batch = {"count": len(rows), "height": 16, "width": 16}
            drawn = draw(config.augment, seed=config.seed, epoch=epoch, batch=step, **place_in_batch)
            images = normalized(cropped(source.read(rows), drawn), mean, std)
            number = epoch * steps + step
            lr = learning_rate(number, config.epochs * steps, config.lr)
            _, logits = learner.step(images, torch.from_numpy(source.labels[rows]), lr, number)
            yield epoch, rows, logits.double().numpy()


@pytest.mark.parametrize("augment", ["none", "crop+flip"])
def test_the_records_are_those_of_a_training_taken_by_hand(tmp_path, spec, augment):
    config = replace(TINY, augment=augment)
    records = score(tmp_path / "s.h5", spec, config)
    expected = np.full((4, config.epochs, IMAGES), np.nan)
    labels = open_source(spec).labels
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        for epoch, rows, logits in train_by_hand(spec, config):
            probabilities = softmax(logits)
            one_hot = np.eye(3)[labels[rows]]
            own = (probabilities * one_hot).sum(axis=1)
            other = np.where(one_hot, -1, probabilities).max(axis=1)
            error = np.sqrt(np.square(probabilities - one_hot).sum(axis=1))
            assert np.isnan(expected[:, epoch, rows]).all()
            expected[:, epoch, rows] = logits.argmax(1) == labels[rows], own, own - other, error
    assert not np.isnan(expected).any()
    np.testing.assert_array_equal(records.array("correct"), expected[0])
    for name, values in zip(("probabilities", "margins", "errors"), expected[1:], strict=True):
        np.testing.assert_allclose(records.array(name), values, rtol=1e-5, atol=1e-6, err_msg=name)


def entropies_of_the_classifier(records, spec):
    network = records.provenance["classifier"]
    model = create_model(network["model"], network["num_classes"], min(network["image_shape"][1:]))
    tensors = {name: torch.from_numpy(array) for name, array in read_classifier(records.path).items()}
    model.load_state_dict(tensors)
    source = open_source(spec)
    pixels = source.read(records.rows)
    with torch.no_grad():
        logits = model.eval()(normalized(pixels, network["mean"], network["std"]))
    probabilities = softmax(logits.double().numpy())
    return -(probabilities * np.log(probabilities)).sum(axis=1)


def test_the_final_entropies_are_those_of_the_classifier_in_the_file(whole, spec):
    final = whole.array("final_entropies")
    np.testing.assert_allclose(final[0], entropies_of_the_classifier(whole, spec), rtol=1e-5)


def test_the_last_recorded_entropies_are_the_final_ones_where_epochs_end_on_a_record(tmp_path, spec):
    records = score(tmp_path / "s.h5", spec, replace(TINY, epochs=2, every=1))
    entropies = records.array("entropies")
    assert entropies.shape == (2, IMAGES)
    np.testing.assert_array_equal(entropies[-1:], records.array("final_entropies"))
    assert not np.array_equal(entropies[0], entropies[1])
    np.testing.assert_allclose(entropies[1], entropies_of_the_classifier(records, spec), rtol=1e-5)


@pytest.mark.parametrize(
    ("epochs", "every", "recorded"),
    [(1, 1, [1]), (3, 2, [2]), (4, 2, [2, 4]), (4, 3, [3]), (3, 3, [3]), (7, None, [5]), (3, None, [3])],
)
def test_entropies_are_recorded_every_so_many_epochs_and_at_the_end(tmp_path, spec, epochs, every, recorded):
    records = score(tmp_path / "s.h5", spec, replace(TINY, epochs=epochs, every=every))
    found = arrays(tmp_path / "s.h5")
    assert found["entropies/epochs"].tolist() == recorded
    assert records.array("entropies").shape == (len(recorded), IMAGES)
    assert records.array("margins").shape == (epochs, IMAGES)
    assert records.array("final_entropies").shape == (1, IMAGES)
    history = records.provenance["history"]
    with_entropy = [epoch["epoch"] for epoch in history if epoch["entropy"] is not None]
    assert with_entropy == sorted({*recorded, epochs})
    expected = {*zip(recorded, map(np.mean, records.array("entropies")), strict=True)}
    expected.add((epochs, found["samples/final_entropies"].mean()))
    for epoch, entropy in expected:
        assert history[epoch - 1]["entropy"] == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(("images", "batch_size", "sizes"), [(40, 16, [14, 13, 13]), (9, 8, [5, 4])])
def test_each_image_is_seen_once_an_epoch_in_batches_of_like_size(
    tmp_path, monkeypatch, images, batch_size, sizes
):
    seen = []
    batches = ImageStore.batches

    def watched(store, asked):
        seen.append(list(asked))
        return batches(store, seen[-1])

    monkeypatch.setattr(ImageStore, "batches", watched)
    config = replace(TINY, epochs=2, every=2, batch_size=batch_size)
    score(tmp_path / "s.h5", write_source(tmp_path, images), config)
    first, second, evaluation = seen
    for epoch in (first, second):
        assert [len(rows) for rows, _ in epoch] == sizes
        assert sorted(np.concatenate([rows for rows, _ in epoch])) == list(range(images))
    assert [rows.tolist() for rows, _ in first] != [rows.tolist() for rows, _ in second]
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in evaluation]), range(images))
    assert all(augmentation is None for _, augmentation in evaluation)


def test_the_metrics_are_those_of_the_records(whole):
    history = whole.provenance["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    for epoch, correct, own in zip(
        history, whole.array("correct"), whole.array("probabilities"), strict=True
    ):
        assert epoch["accuracy"] == pytest.approx(correct.mean())
        # An image counts with its batch's mean loss.
        assert epoch["loss"] == pytest.approx(-np.log(own).mean(), rel=0.1)
        assert 0 <= epoch["record_seconds"] <= epoch["seconds"]


def test_what_the_file_says_of_the_run(whole, spec):
    source = open_source(spec)
    check = check_source(source)
    provenance = whole.provenance
    assert provenance["source"] == {
        "spec": spec,
        "split": "train",
        "sha256": check.sha256,
        "images": IMAGES,
        "skipped": 0,
    }
    settings = {name: getattr(TINY, name) for name in ("model", "epochs", "every", "lr", "seed", "augment")}
    assert settings.items() <= provenance["config"].items()
    assert provenance["config"]["precision"] == "float32"
    mean, std = check.statistics(check.good, 256)
    assert provenance["classifier"] == {
        "model": "resnet8",
        "num_classes": 3,
        "image_shape": [3, 16, 16],
        "mean": list(mean),
        "std": list(std),
    }
    assert set(provenance["versions"]) == {"edgeprune", "python", "torch", "numpy"}
    assert provenance["images_held"] == "device"
    assert provenance["peak_device_bytes"] is None
    np.testing.assert_array_equal(whole.rows, np.arange(IMAGES))
    np.testing.assert_array_equal(whole.labels, source.labels)


def test_the_work_folder_is_gone_and_nothing_else_is_left(whole):
    assert names(whole.path.parent) == ["s.h5"]


def test_the_seed_decides_everything(tmp_path, spec, whole):
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    score(tmp_path / "same.h5", spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_scores(tmp_path / "same.h5", whole.path)
    other = score(tmp_path / "other.h5", spec, replace(TINY, seed=2))
    assert not np.array_equal(other.array("margins"), whole.array("margins"))


def test_it_makes_no_difference_where_images_are_held(tmp_path, spec, whole, monkeypatch):
    for where in ("host", "source"):
        monkeypatch.setattr("edgeprune.work.image_store._place", lambda *_, where=where: where)
        assert score(tmp_path / f"{where}.h5", spec).provenance["images_held"] == where
        assert_same_scores(tmp_path / f"{where}.h5", whole.path)


def test_scoring_works_in_a_thread(tmp_path, spec, whole):
    thread = threading.Thread(target=score, args=(tmp_path / "s.h5", spec))
    thread.start()
    thread.join()
    assert_same_scores(tmp_path / "s.h5", whole.path)


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


@pytest.mark.usefixtures("report_each_step")
def test_a_run_may_be_interrupted_again_and_again(tmp_path, spec, whole):
    path = tmp_path / "s.h5"
    for _ in range(3 * STEPS - 1):
        with pytest.raises(TrainingInterrupted):
            score(path, spec, report=at_report(1, interrupt()))
    score(path, spec)
    assert_same_scores(path, whole.path)


@pytest.mark.usefixtures("report_each_step")
def test_a_signal_in_the_last_step_leaves_nothing_but_the_file_to_do(tmp_path, spec, whole):
    with pytest.raises(TrainingInterrupted, match="in epoch 3 of 3"):
        score(tmp_path / "s.h5", spec, report=at_report(3 * STEPS, interrupt()))
    assert not (tmp_path / "s.h5").exists()
    score(tmp_path / "s.h5", spec, report=lambda event: crash())
    assert_same_scores(tmp_path / "s.h5", whole.path)


@pytest.mark.usefixtures("report_each_step")
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("step", [1, 3, 5, 9])
def test_a_crash_at_any_step(tmp_path, spec, whole, monkeypatch, step, kept):
    path = tmp_path / "s.h5"
    with monkeypatch.context() as patch:
        if kept:
            patch.setattr("edgeprune.work.resumable._CHECKPOINT_SECONDS", -1)
        with pytest.raises(Crash):
            score(path, spec, report=at_report(step, crash))
    score(path, spec)
    assert_same_scores(path, whole.path)
    assert names(tmp_path) == ["s.h5"]


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
    path = tmp_path / "s.h5"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: crash())
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
    with subprocess.Popen(
        [sys.executable, scoring_runs.__file__, path, spec, str(config.epochs)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
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


@pytest.fixture
def interrupted(tmp_path, spec, monkeypatch):
    """The path of a run that was stopped in its second epoch."""
    with monkeypatch.context() as patch:
        patch.setattr("edgeprune.work.resumable._REPORT_SECONDS", -1)
        with pytest.raises(TrainingInterrupted):
            score(tmp_path / "s.h5", spec, report=at_report(STEPS + 1, interrupt()))
    return tmp_path / "s.h5"


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


def test_a_run_under_way_is_not_resumed_with_other_images(interrupted, tmp_path):
    with pytest.raises(ConfigError, match=r"s\.h5\.work cannot be resumed: source was '[0-9a-f]{64}' and"):
        score(interrupted, write_source(tmp_path, seed=1))


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


def test_a_finished_file_is_used_as_it_is(whole, spec):
    before = file_sha256(whole.path)
    found = score(whole.path, spec, report=lambda event: crash())
    assert found.provenance == whole.provenance
    spelt_out = replace(TINY, precision="float32")
    assert score(whole.path, spec, spelt_out, report=lambda event: crash()).path == whole.path
    assert file_sha256(whole.path) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 4}, "made with epochs 3, not 4; use it as it is"),
        ({"model": "resnet20"}, "made with model resnet8, not resnet20"),
        ({"every": 1}, "made with every 2, not 1"),
    ],
)
def test_a_finished_file_of_other_settings_is_kept(whole, spec, change, words):
    before = file_sha256(whole.path)
    with pytest.raises(ConfigError, match=words) as caught:
        score(whole.path, spec, replace(TINY, **change))
    assert str(caught.value).startswith(f"{whole.path} exists")
    assert file_sha256(whole.path) == before
    assert names(whole.path.parent) == ["s.h5"]


def test_a_finished_file_of_other_images_is_kept(whole, tmp_path):
    with pytest.raises(
        ConfigError, match=r"made with source [0-9a-f]{64}, not [0-9a-f]{64}; write elsewhere"
    ):
        score(whole.path, write_source(tmp_path, seed=1))


@pytest.mark.parametrize("content", [b"", b"thesis", "pack"])
def test_a_file_that_is_no_scores_file_is_kept(tmp_path, spec, make_pack, content):
    path = tmp_path / "s.h5"
    if content == "pack":
        path = make_pack(samples=3)[0]
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="exists and is not a sound scores file; remove it, or write elsew"):
        score(path, spec)
    assert path.read_bytes() == content


def test_a_file_is_replaced_when_it_is_asked_for(tmp_path, spec, whole):
    path = tmp_path / "s.h5"
    path.write_bytes(b"older")
    kept = []
    score(path, spec, replace_existing=True, report=lambda event: kept.append(path.read_bytes()))
    assert set(kept) == {b"older"}
    assert_same_scores(path, whole.path)


def test_a_loss_that_is_not_finite_leaves_no_file(tmp_path, spec):
    with pytest.raises(
        TrainingError, match=r"became (nan|inf) in epoch \d of 3; .* lower learning rate than 1e\+20"
    ):
        score(tmp_path / "s.h5", spec, replace(TINY, lr=1e20))
    assert not (tmp_path / "s.h5").exists()


def test_an_entropy_that_is_not_finite_leaves_no_file(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(ScoringTask, "_entropies", lambda task: torch.full((IMAGES,), float("nan")))
    with pytest.raises(TrainingError, match="the entropy became nan in epoch 2 of 3"):
        score(tmp_path / "s.h5", spec)
    assert not (tmp_path / "s.h5").exists()


@pytest.fixture
def photos(tmp_path):
    """A folder of 2 classes of 8 images, one of which in each class cannot be read."""
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(8):
            pixels = noise.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "photos" / "cat" / "3.png").write_bytes(b"no image")
    (tmp_path / "photos" / "dog" / "7.png").write_bytes(b"")
    return f"imagefolder:{tmp_path / 'photos'}"


def test_unreadable_images_are_left_out_when_asked_for(tmp_path, photos):
    with pytest.raises(SourceError, match="--skip-bad"):
        score(tmp_path / "s.h5", photos)
    records = score(tmp_path / "s.h5", photos, replace(TINY, batch_size=8), skip_bad=True)
    assert records.rows.tolist() == [row for row in range(16) if row not in (3, 15)]
    assert records.labels.tolist() == [0] * 7 + [1] * 7
    assert records.array("margins").shape == (3, 14)
    assert records.provenance["source"]["skipped"] == 2
    assert records.provenance["source"]["images"] == 16
    np.testing.assert_allclose(
        records.array("final_entropies")[0], entropies_of_the_classifier(records, photos), rtol=1e-5
    )


def test_the_same_images_in_other_rows_are_not_the_same_scores(tmp_path, photos):
    config = replace(TINY, batch_size=8)
    score(tmp_path / "s.h5", photos, config, skip_bad=True)
    Path(tmp_path / "photos" / "cat" / "3.png").unlink()
    with pytest.raises(ConfigError, match="made when other images could be read; remove it"):
        score(tmp_path / "s.h5", photos, config, skip_bad=True)


def test_an_image_that_goes_in_the_middle_of_a_run(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_store._place", lambda *_: "source")
    monkeypatch.setattr("edgeprune.work.resumable._REPORT_SECONDS", -1)
    path, gone = tmp_path / "s.h5", tmp_path / "photos" / "dog" / "2.png"
    config = replace(TINY, batch_size=8)
    content = gone.read_bytes()
    with pytest.raises(SourceError, match=r"dog/2\.png"):
        score(path, photos, config, skip_bad=True, report=at_report(2, gone.unlink))
    assert not path.exists()
    gone.write_bytes(content)
    score(path, photos, config, skip_bad=True)
    score(tmp_path / "whole.h5", photos, config, skip_bad=True)
    assert_same_scores(path, tmp_path / "whole.h5")


@pytest.mark.parametrize(
    ("images", "workers", "change", "words"),
    [
        (3, 1, {"batch_size": 2}, "batches of 2 images make some of 1, .* 2; raise it"),
        (40, 1, {"batch_size": 1}, "batches of 1 images make some of 1"),
        (
            40,
            3,
            {"batch_size": 2},
            r"batches of 2 images make some of 2, and 3 process\(es\) need 3; raise it",
        ),
        (5, 3, {}, "5 images are too few to train on"),
        (40, 1, {"epochs": 0, "every": None}, "epochs is 0; it must be at least 1"),
        (40, 1, {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        (40, 1, {"lr": -1.0}, "lr is -1.0; it must be positive"),
        (40, 1, {"seed": -1}, "seed is -1"),
        (40, 1, {"model": "vgg"}, "unknown model 'vgg'"),
        (40, 1, {"augment": "blur"}, "unknown augmentation 'blur'"),
        (40, 1, {"precision": "int8"}, "precision must be one of"),
    ],
)
def test_settings_that_cannot_be(tmp_path, images, workers, change, words):
    source = write_source(tmp_path, images)
    with pytest.raises(ConfigError, match=words):
        score(
            tmp_path / "s.h5", source, replace(TINY, **change), workers=Workers(count=workers, device="cpu")
        )
    assert names(tmp_path) == ["images.npz"]


@pytest.mark.parametrize("every", [0, -1, 4])
def test_a_cadence_that_cannot_be(every):
    with pytest.raises(ConfigError, match=f"every is {every}; it must be at least 1 and at most the epochs"):
        ScoreConfig(epochs=3, every=every)


@pytest.mark.parametrize(
    ("shape", "model", "every"), [((3, 32, 32), "resnet18", 5), ((3, 224, 224), "resnet34", 2)]
)
def test_the_papers_settings_are_the_defaults(shape, model, every):
    config = ScoreConfig()
    assert config.model_for(shape) == model
    assert config.every_for(10, shape) == every
    assert replace(config, epochs=1).every_for(10, shape) == 1
    assert ScoreConfig(model="resnet8", every=7).model_for(shape) == "resnet8"
    assert ScoreConfig(model="resnet8", every=7).every_for(10, shape) == 7


def test_a_place_where_no_file_can_be(tmp_path, spec):
    with pytest.raises(PackWriteError, match="there is no folder"):
        score(tmp_path / "no" / "s.h5", spec)
    with pytest.raises(PackWriteError, match="is a folder"):
        score(tmp_path, spec)


def test_a_disk_that_is_full_when_an_epoch_is_kept(small_disk, spec):
    path = small_disk("40k") / "s.h5"
    with pytest.raises(TrainingError, match="No space left on device") as caught:
        score(path, spec)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_a_disk_that_is_full_when_the_file_is_written(small_disk, tmp_path, spec, whole):
    """One checkpoint and the records fit, and the scores beside them do not."""
    path = small_disk("1m") / "s.h5"
    stuffing = path.with_name("stuffing")

    def fill(event):
        if event["event"] == "epoch" and event["epoch"] == 3:
            stuffing.write_bytes(bytes(1 << 18))

    try:
        score(path, spec, report=fill)
        failed = False
    except PackWriteError as error:
        failed = "the disk is full" in str(error)
    assert failed
    assert names(path.parent) == ["s.h5.work", "stuffing"]
    stuffing.unlink()
    score(path, spec, report=lambda event: crash())
    assert_same_scores(path, whole.path)


def test_scores_are_read_by_those_who_need_them(whole):
    again = read_records(whole.path)
    assert again.provenance == whole.provenance
    assert again.array("correct").dtype == bool


def test_a_device_that_is_not_there_is_not_replaced_by_another(tmp_path, spec):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match="CUDA"):
        score(tmp_path / "s.h5", spec, replace(TINY, device="cuda"))
