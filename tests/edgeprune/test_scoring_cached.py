"""Scoring and learning masks on images that do not fit in memory: decoded once, the same in every bit."""

from dataclasses import replace

import numpy as np
import pytest
from image_folders import Counted, write_photos
from scoring_runs import TINY, assert_same_scores, at_report, interrupt, names, options, score

from edgeprune.masks.classifier import classifier_from_scores
from edgeprune.masks.config import MaskConfig
from edgeprune.masks.learning import learn_masks
from edgeprune.scoring.run import run_scoring
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune.sources import check_source
from edgeprune.sources.decoding import encoded
from edgeprune_formats.files import file_sha256
from edgeprune_runtime.training import TrainingInterrupted

IMAGES = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("source"), IMAGES)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory, photos):
    """The scores of a run on the same images, held in memory."""
    return score(tmp_path_factory.mktemp("memory") / "s.h5", photos)


@pytest.fixture
def too_large(monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_store.ImageStore.share_of_memory", 0)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    found, decode = [], encoded.decode_image

    def noted(content, size, *, name, **options):
        found.append(name)
        return decode(content, size, name=name, **options)

    monkeypatch.setattr(encoded, "decode_image", noted)
    return found


@pytest.mark.first_are_quick
@pytest.mark.usefixtures("too_large")
@pytest.mark.parametrize("jobs", [1, 3])
def test_scores_do_not_depend_on_the_cache_nor_on_the_threads(tmp_path, photos, in_memory, jobs):
    source = Counted.open(photos)
    check = check_source(source)
    source.reads.clear()
    records = run_scoring(source, check, tmp_path / "s.h5", replace(TINY, jobs=jobs))
    assert_same_scores(tmp_path / "s.h5", in_memory.path)
    assert records.provenance["images_held"] == "disk"
    assert records.provenance["config"] == in_memory.provenance["config"]
    assert sorted(np.concatenate(source.reads).tolist()) == list(range(IMAGES))
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
@pytest.mark.usefixtures("too_large")
def test_the_same_without_room_on_the_disk(tmp_path, photos, in_memory, monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_cache._LEAST_FREE", 2**62)
    assert score(tmp_path / "s.h5", photos).provenance["images_held"] == "source"
    assert_same_scores(tmp_path / "s.h5", in_memory.path)
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
@pytest.mark.usefixtures("too_large")
@pytest.mark.parametrize("step", [2, 4])
def test_a_stopped_run_goes_on_with_what_is_decoded(tmp_path, photos, in_memory, monkeypatch, step):
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
    path, source = tmp_path / "s.h5", Counted.open(photos)
    check = check_source(source)
    source.reads.clear()
    with pytest.raises(TrainingInterrupted):
        run_scoring(source, check, path, TINY, report=at_report(step, interrupt()))
    assert names(tmp_path) == ["s.h5.images", "s.h5.work"]
    # With another number of threads.
    run_scoring(source, check, path, replace(TINY, jobs=1))
    assert sorted(np.concatenate(source.reads).tolist()) == list(range(IMAGES))
    assert_same_scores(path, in_memory.path)
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
@pytest.mark.usefixtures("too_large")
def test_a_finished_file_ends_what_a_killed_run_has_left(tmp_path, photos):
    path = tmp_path / "s.h5"
    score(path, photos)
    (tmp_path / "s.h5.images").mkdir()
    score(path, photos)
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
@pytest.mark.usefixtures("too_large")
def test_masks_do_not_depend_on_the_cache(tmp_path, photos, in_memory, monkeypatch):
    classifier = classifier_from_scores(in_memory)
    config = MaskConfig(epochs=2, batch_size=16)
    found = []
    for name, share, jobs in (("memory", 0.5, None), ("disk", 0, 3)):
        monkeypatch.setattr("edgeprune.work.image_store.ImageStore.share_of_memory", share)
        source, path = Counted.open(photos), tmp_path / f"{name}.safetensors"
        check = check_source(source)
        source.reads.clear()
        learn_masks(source, check, classifier, path, config, freq_prune=0.5, jobs=jobs)
        assert sorted(np.concatenate(source.reads).tolist()) == list(range(IMAGES))
        found.append(file_sha256(path))
    assert found[0] == found[1]
    assert names(tmp_path) == ["disk.safetensors", "memory.safetensors"]


@pytest.mark.usefixtures("too_large")
def test_the_command_decodes_in_the_check_and_never_again(edgeprune, tmp_path, photos, in_memory, decoded):
    path = tmp_path / "s.h5"
    arguments = ["score", photos, "-o", path, *options(TINY), "--jobs", 2]
    code, out, err = edgeprune(*arguments)
    assert code == 0, err
    # Once more to learn the size of the images.
    assert len(decoded) == IMAGES + 1
    assert f"{path}.images: keeps the decoded images until the end, up to 30.88 kB" in err
    assert out.endswith("images on the disk\n")
    assert_same_scores(path, in_memory.path)
    assert read_scores_file(path).provenance["config"] == in_memory.provenance["config"]
    assert edgeprune(*arguments)[0] == 0
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
@pytest.mark.usefixtures("too_large")
def test_the_command_goes_on_without_decoding(edgeprune, tmp_path, photos, in_memory, decoded, monkeypatch):
    path = tmp_path / "s.h5"
    arguments = ["score", photos, "-o", path, *options(TINY)]
    monkeypatch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
    with monkeypatch.context() as patch:
        patch.setattr("edgeprune.work.progress.EpochLines.__call__", lambda *_: interrupt()())
        code, _, err = edgeprune(*arguments)
    assert code not in (0, 1, 2), err
    assert names(tmp_path) == ["s.h5.images", "s.h5.work"]
    decoded.clear()
    assert edgeprune(*arguments, "-q") == (0, "", "")
    assert names(tmp_path) == ["s.h5"]
    assert len(decoded) == 1
    assert_same_scores(path, in_memory.path)
