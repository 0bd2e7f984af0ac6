"""What a scoring run records of every image."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scoring_runs import (
    IMAGES,
    TINY,
    arrays,
    assert_same_scores,
    entropies_of_the_classifier,
    names,
    normalized,
    score,
    softmax,
    write_source,
)

from edgeprune.sources import check_source, open_source
from edgeprune.work.image_store import ImageStore
from edgeprune_runtime.decode.augmentation import draw
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.progress.schedule import learning_rate
from edgeprune_runtime.training.step import Learner


def cropped(pixels, drawn):
    if drawn is None:
        return pixels
    pairs = zip(pixels, drawn.rows, drawn.columns, strict=True)
    return np.stack([image[:, down][:, :, across] for image, down, across in pairs])


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


@pytest.mark.first_are_quick
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


@pytest.mark.first_are_quick
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


@pytest.mark.slow
def test_the_seed_decides_everything(tmp_path, spec, whole):
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    score(tmp_path / "same.h5", spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_scores(tmp_path / "same.h5", whole.path)
    other = score(tmp_path / "other.h5", spec, replace(TINY, seed=2))
    assert not np.array_equal(other.array("margins"), whole.array("margins"))


@pytest.mark.slow
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
