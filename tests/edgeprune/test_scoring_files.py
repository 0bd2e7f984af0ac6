"""Scores files that are there already, and runs that cannot be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_runs import (
    IMAGES,
    TINY,
    assert_same_scores,
    at_report,
    crash,
    entropies_of_the_classifier,
    names,
    score,
    write_source,
)

from edgeprune.errors import SourceError
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune.scoring.task import ScoringTask
from edgeprune.work.processes import Workers
from edgeprune_formats import ConfigError, PackWriteError
from edgeprune_formats.files import file_sha256
from edgeprune_runtime.errors import TrainingError


def test_a_finished_file_is_used_as_it_is(whole, spec):
    before = file_sha256(whole.path)
    found = score(whole.path, spec, report=lambda event: crash())
    assert found.provenance == whole.provenance
    spelled_out = replace(TINY, precision="float32")
    assert score(whole.path, spec, spelled_out, report=lambda event: crash()).path == whole.path
    assert file_sha256(whole.path) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 4}, "made with epochs 3, not 4; give it to a build as its `scores`"),
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
    with pytest.raises(SourceError, match="skip_bad=True"):
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
    with pytest.raises(ConfigError, match="was made with source"):
        score(tmp_path / "s.h5", photos, config, skip_bad=True)


@pytest.mark.slow
def test_an_image_that_goes_in_the_middle_of_a_run(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_store.ImageStore.share_of_memory", 0)
    # So that images are decoded in every epoch.
    monkeypatch.setattr("edgeprune.work.image_cache._LEAST_FREE", 2**62)
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
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
        (3, 1, {"batch_size": 2}, "batches of 2 images make some of 1, .* 2; raise `ScoreConfig.batch_size`"),
        (40, 1, {"batch_size": 1}, "batches of 1 images make some of 1"),
        (
            40,
            3,
            {"batch_size": 2},
            r"batches of 2 images make some of 2, and 3 process\(es\) need 3; raise `ScoreConfig.batch_size`",
        ),
        (5, 3, {}, "5 images are too few to train on"),
        (40, 1, {"epochs": 0, "every": None}, "`ScoreConfig.epochs` is 0; it must be at least 1"),
        (40, 1, {"batch_size": 0}, "`ScoreConfig.batch_size` is 0; it must be at least 1"),
        (40, 1, {"lr": -1.0}, "`ScoreConfig.lr` is -1.0; it must be positive"),
        (40, 1, {"seed": -1}, "`ScoreConfig.seed` is -1"),
        (40, 1, {"model": "vgg"}, "unknown model 'vgg'"),
        (40, 1, {"augment": "blur"}, "`ScoreConfig.augment` is 'blur'; it must be one of"),
        (40, 1, {"precision": "int8"}, "`\\w+.precision` is 'int8'; it must be one of"),
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
    with pytest.raises(ConfigError, match=f"every` is {every}; it must be at least 1 and at most the epochs"):
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


@pytest.mark.slow
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
    again = read_scores_file(whole.path)
    assert again.provenance == whole.provenance
    assert again.array("correct").dtype == bool


def test_a_device_that_is_not_there_is_not_replaced_by_another(tmp_path, spec):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match="CUDA"):
        score(tmp_path / "s.h5", spec, replace(TINY, device="cuda"))
