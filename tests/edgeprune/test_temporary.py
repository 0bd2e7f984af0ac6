"""Temporary files of runs that were killed: gone at the next start, unless their owner lives."""

import shutil
import signal
from functools import partial

import numpy as np
import pytest
from forked import Forked
from scoring_runs import TINY, score, write_source

from edgeprune import BuildConfig, build_pack
from edgeprune.packs.budget import build_within
from edgeprune.work.resumable import remove_work_folder
from edgeprune.work.temporary import artifact_path, images_folder, work_folder
from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime.training.run_folder.opening import locked

CONFIG = BuildConfig(tile="8", device="cpu")


def wait_in_the_middle(source, path, budget):
    """Build, and wait with a line when the first images are encoded."""

    def stop(stage, done, total):
        if stage == "encoding":
            print("encoding", flush=True)
            signal.pause()

    build(source, path, budget, progress=stop)


def build(source, path, budget, **options):
    if budget:
        build_within(partial(build_pack, source, **options), path, CONFIG, budget)
    else:
        build_pack(source, path, CONFIG, **options)


@pytest.fixture
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    np.savez(folder / "images.npz", x=pixels, y=np.arange(60) % 2)
    return f"npz:{folder / 'images.npz'}"


def started(source, path, budget):
    """Start a build that waits in the middle; give its process."""
    process = Forked(partial(wait_in_the_middle, source, path, budget))
    assert process.stdout.readline() == "encoding\n"
    return process


def killed(source, path, budget):
    with started(source, path, budget) as process:
        process.send_signal(signal.SIGKILL)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("next_budget", [0, 20_000])
@pytest.mark.parametrize("budget", [0, 20_000])
def test_what_a_killed_build_left_is_gone_after_the_next(source, tmp_path, budget, next_budget):
    path = tmp_path / "p.h5"
    killed(source, path, budget)
    assert names(tmp_path) != []
    assert not path.exists()
    build(source, path, next_budget)
    assert names(tmp_path) == ["p.h5"]
    assert len(open_pack(path)) == 60


@pytest.mark.slow
def test_what_a_live_build_needs_stays(source, tmp_path):
    path = tmp_path / "p.h5"
    with started(source, path, 20_000) as process:
        before = set(names(tmp_path))
        build(source, path, 0)
        assert set(names(tmp_path)) == {*before, "p.h5"}
        process.kill()


@pytest.mark.parametrize("name", ["y" * 252 + ".h5", "é" * 124 + ".h5"])
def test_a_build_under_a_name_as_long_as_the_file_system_takes(source, tmp_path, name):
    path = tmp_path / name
    build(source, path, 20_000)
    assert names(tmp_path) == [name]
    assert len(open_pack(path)) == 60
    work_folder(path).mkdir()
    for suffix in (".scores.h5", ".fse-net.safetensors"):
        work_folder(artifact_path(path, suffix)).mkdir()


def test_files_beside_a_pack_have_its_name(tmp_path):
    assert artifact_path(tmp_path / "p.h5", ".scores.h5") == tmp_path / "p.scores.h5"
    assert work_folder(tmp_path / "p.scores.h5") == tmp_path / "p.scores.h5.work"


@pytest.mark.slow
def test_the_work_folder_of_a_finished_scores_file_is_removed_when_it_is_used_again(
    tmp_path, tmp_path_factory
):
    spec, path = write_source(tmp_path_factory.mktemp("source")), tmp_path / "s.h5"
    score(path, spec, TINY)
    work_folder(path).mkdir()
    (work_folder(path) / "config.json").write_text("{}")
    score(path, spec, TINY)
    assert names(tmp_path) == ["s.h5"]


def test_a_work_folder_that_another_process_works_in_stays(tmp_path):
    folder = work_folder(tmp_path / "s.h5")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with locked(folder):
        remove_work_folder(folder)
    assert folder.exists()
    remove_work_folder(folder)
    assert not folder.exists()


def test_a_folder_that_is_no_work_folder_stays(tmp_path):
    folder = work_folder(tmp_path / "s.h5")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    remove_work_folder(folder)
    assert names(folder) == ["notes.txt"]
    # A run of edgeprune train.
    (folder / "notes.txt").unlink()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    remove_work_folder(folder)
    assert names(folder) == ["config.json", "model.safetensors"]


def test_what_systems_leave_in_a_work_folder_goes_with_it(tmp_path):
    folder = work_folder(tmp_path / "s.h5")
    folder.mkdir()
    for name in ("config.json", ".nfs000000000a1b", ".DS_Store", "checkpoint-0001.json.damaged"):
        (folder / name).write_text("{}")
    (folder / ".checkpoint-0002.json.0123456789abcdef.partial").mkdir()
    remove_work_folder(folder)
    assert not folder.exists()


def test_a_folder_with_files_of_its_own_is_no_work_folder(source, tmp_path):
    """It would be removed in the end."""
    path = tmp_path / "s.h5"
    work_folder(path).mkdir()
    (work_folder(path) / "notes.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"s\.h5\.work is needed for the run, and holds 'notes\.txt'; move it"
    ):
        score(path, source, TINY)
    assert names(work_folder(path)) == ["notes.txt"]


def test_a_source_in_a_folder_that_is_called_as_that_of_decoded_images_stays(source, tmp_path):
    path = tmp_path / "cats"
    images_folder(path).mkdir()
    shutil.copy(source.partition(":")[2], images_folder(path) / "a.npz")
    for _ in range(2):
        score(path, f"npz:{images_folder(path) / 'a.npz'}", TINY)
    assert names(images_folder(path)) == ["a.npz"]
