"""The benchmark of building at a large scale, on 20 images: its images, its peaks, and going on."""

import io
import json
import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgeprune_benchmarks.cli import command
from edgeprune_benchmarks.scale import photographs, run, small
from edgeprune_benchmarks.scale.crops import crop, write_crops
from edgeprune_benchmarks.scale.small import STEPS, Varied
from edgeprune_benchmarks.scale.tables import hours, scale_table
from edgeprune_benchmarks.scale.watch import Watched, watch
from edgeprune_formats import ConfigError, EdgePruneError

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def data(tmp_path):
    """Four photographs and a few images of 32x32, named as the real ones."""
    random, folder = np.random.default_rng(0), tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "imagenet-sample.zip", "w") as archive:
        for number, size in enumerate([(300, 240), (90, 120), (224, 224), (400, 250)]):
            coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
            file = io.BytesIO()
            coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
            archive.writestr(f"n{number}_thing/n{number}.JPEG", file.getvalue())
    pixels = random.integers(0, 256, (30, 3, 32, 32), np.uint8)
    arrays = {"x_train": pixels, "y_train": np.arange(30) % 3, "x_test": pixels, "y_test": np.arange(30) % 3}
    np.savez(folder / "cifar10-lossless-6k.npz", **arrays)
    return folder


def test_crops_depend_on_class_and_number_alone():
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    found = [np.asarray(crop(photograph, *seed)) for seed in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert all(image.shape == (224, 224, 3) for image in found)
    np.testing.assert_array_equal(found[0], found[3])
    assert len({image.tobytes() for image in found}) == 3


def test_a_finished_class_is_not_made_again(data, tmp_path):
    folder = write_crops(data, tmp_path / "photos", 21)
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert sorted(len(list(one.iterdir())) for one in folder.iterdir()) == [5, 5, 5, 6]
    (kept,) = (folder / "n0_thing").glob("000000.jpg")
    kept.write_bytes(b"not touched")
    shutil.rmtree(folder / "n2_thing")
    # What a stopped run has left.
    (tmp_path / "photos.partial").mkdir()
    (tmp_path / "photos.partial" / "999999.jpg").write_bytes(b"")
    write_crops(data, folder, 21)
    again = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert again.pop(kept.relative_to(folder)) == b"not touched"
    del first[kept.relative_to(folder)]
    assert again == first
    with pytest.raises(ConfigError, match="3 images are fewer than the 4 classes"):
        write_crops(data, tmp_path / "few", 3)


WRITES = """
import subprocess, sys, tempfile, time
from pathlib import Path
pack = Path(sys.argv[1])
(pack.parent / ".pack.h5.0123456789abcdef.partial").mkdir()
(pack.parent / ".pack.h5.0123456789abcdef.partial" / pack.name).write_bytes(bytes(3 << 20))
(pack.parent / "part").write_bytes(bytes(1 << 20))
with tempfile.TemporaryFile(dir=pack.parent) as file:
    file.write(bytes(2 << 20))
    file.flush()
    # It lasts until it was seen.
    task = "data = bytearray(64 << 20); input()"
    with subprocess.Popen(
        ["ray::_build_share", "-c", task], executable=sys.executable, stdin=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 60
        while not Path(sys.argv[2]).exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.communicate(b"seen")
print('{"done": 1}')
"""


@LINUX
def test_peaks_of_disk_and_of_the_memory_of_tasks(tmp_path, monkeypatch):
    folder, seen, look = tmp_path / "packs", tmp_path / "seen", Watched.look
    folder.mkdir()

    def noted(watched, *arguments, **how):
        look(watched, *arguments, **how)
        if watched.tasks_mib > 64 and watched.all_mib > 64:
            seen.touch()

    monkeypatch.setattr(Watched, "look", noted)
    words = ["-c", WRITES, str(folder / "pack.h5"), str(seen)]
    found = watch("test", words, folder / "pack.h5", family=True)
    assert found.printed == {"done": 1}
    # A file system may give a file a little more than its bytes.
    assert 3 <= found.temporary_bytes / 2**20 < 3.2
    assert 6 <= found.disk_bytes / 2**20 < 6.4
    assert found.tasks_mib > 64
    assert found.all_mib > 64
    with pytest.raises(EdgePruneError, match=r"test: the measuring process failed: SystemExit: 3|: 3"):
        watch("test", ["-c", "import sys; sys.exit('3')"], folder / "pack.h5")


@LINUX
def test_a_pack_with_both_of_its_names_counts_once(tmp_path):
    folder = tmp_path / ".pack.h5.0123456789abcdef.partial"
    folder.mkdir()
    (folder / "pack.h5").write_bytes(bytes(1 << 20))
    os.link(folder / "pack.h5", tmp_path / "pack.h5")
    found = Watched()
    found.look(os.getpid(), tmp_path / "pack.h5", family=False)
    assert 1 <= found.disk_bytes / 2**20 - found.temporary_bytes / 2**20 < 1.1


@pytest.mark.slow
def test_builds_with_one_and_two_jobs_give_the_same_file(data, tmp_path):
    images = write_crops(data, tmp_path / "photos", 20)
    rows = [photographs.build(images, tmp_path / "packs", way) for way in ("jobs-1", "jobs-2")]
    for row in json.loads(json.dumps(rows)):
        assert row["images"] == 20
        assert row["images_per_second"] == pytest.approx(20 / row["seconds"])
        assert row["peak_mib"] > 30
        assert row["cpu_seconds"] > 0
    assert rows[0]["file_sha256"] == rows[1]["file_sha256"]
    assert rows[0]["payloads_sha256"] == rows[1]["payloads_sha256"]
    assert not (tmp_path / "packs").exists()


@pytest.mark.slow
def test_parts_through_ray_give_the_same_payloads(data, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    # 44 images are two chunks.
    monkeypatch.setitem(photographs.WAYS, "ray-8", ("--engine", "ray", "--parts", "2", "--jobs", "1"))
    images = write_crops(data, tmp_path / "photos", 44)
    one, ray = (photographs.build(images, tmp_path / "packs", way) for way in ("jobs-1", "ray-8"))
    assert one["chunks"] == 2
    assert ray["payloads_sha256"] == one["payloads_sha256"]
    # The driver and at least one task.
    assert ray["peak_with_engine_mib"] > ray["peak_mib"] > 1.2 * one["peak_mib"] > 30
    assert ray["disk_bytes"] > ray["file_bytes"]


def test_small_images_differ_and_depend_on_their_row_alone():
    random = np.random.default_rng(0)
    # Neither end of the range is reached.
    pixels = random.integers(40, 216, (7, 3, 32, 32), np.uint8)
    source = Varied(pixels, np.arange(7) % 3, 70)
    assert (len(source), source.shape, source.class_names) == (70, (3, 32, 32), ("0", "1", "2"))
    assert source.labels.tolist() == (np.arange(70) % 7 % 3).tolist()
    every = source.read(np.arange(70))
    assert every.dtype == np.uint8
    assert len({image.tobytes() for image in every}) == 70
    np.testing.assert_array_equal(source.read([69, 3]), every[[69, 3]])
    # The same picture: moved back, it is lighter or darker by one amount.
    shifts = range(8 - small.SHIFT, 9 + small.SHIFT)
    middle = every[7].astype(int)[:, 8:24, 8:24]
    assert 0 in [np.ptp(middle - pixels[0, :, y : y + 16, x : x + 16]) for y in shifts for x in shifts]


@pytest.mark.slow
def test_the_steps_with_a_pack_of_small_images(data, tmp_path):
    pack, task = tmp_path / "small.h5", {"data": str(data / "cifar10-lossless-6k.npz"), "count": 600}
    rows = {name: step(pack, task) for name, step in STEPS.items()}
    assert rows["build"]["file_bytes"] == pack.stat().st_size
    assert rows["stop"]["batches"] == 1
    assert rows["resume"]["first_sha256"] == rows["shuffle"]["middle_sha256"]
    assert 0 < rows["shuffle"]["first_batch_seconds"] <= rows["shuffle"]["seconds"]
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 2] ^= 1
    pack.write_bytes(raw)
    with pytest.raises(EdgePruneError, match="the pack is not sound"):
        STEPS["verify"](pack, task)
    with pytest.raises(EdgePruneError, match="the pack holds 600 images"):
        STEPS["open"](pack, {**task, "count": 601})


@pytest.mark.slow
def test_a_step_in_a_new_process(data, tmp_path):
    STEPS["build"](
        pack := tmp_path / "small.h5", {"data": str(data / "cifar10-lossless-6k.npz"), "count": 40}
    )
    row = small.measure("open", data / "cifar10-lossless-6k.npz", pack, 40)
    assert (row["step"], row["images"]) == ("open", 40)
    assert row["peak_mib"] >= row["imported_mib"] > 10


@pytest.fixture
def stubs(monkeypatch):
    """Nothing is measured; the calls, and a step that fails."""
    calls, failing = [], set()

    def stub(name, **facts):
        calls.append(name)
        if name in failing:
            raise EdgePruneError(f"{name} failed")
        return facts

    def step(name, data, pack, count):
        pack.touch()
        found = "other" if "wrong" in failing else "same"
        hashes = {"shuffle": {"middle_sha256": "same"}, "resume": {"first_sha256": found}}
        return stub(name, step=name, **hashes.get(name, {}))

    monkeypatch.setattr(run, "write_crops", lambda data, folder, count: folder)
    monkeypatch.setattr(run, "build", lambda images, folder, way: stub(way, way=way))
    monkeypatch.setattr(run, "measure", step)
    monkeypatch.setattr(run, "save", save)
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda _: True)
    return calls, failing


def save(output, name, results):
    output.mkdir(exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps({"results": results}))


def scaled(data, tmp_path, **numbers):
    given = {"images": 20, "small_images": 30, **numbers}
    run.run(data, tmp_path / "out", work=tmp_path / "work", **given)
    return json.loads((tmp_path / "out" / "build-scale.json").read_text())["results"]


def test_what_was_measured_is_saved_at_once_and_not_measured_again(data, tmp_path, stubs):
    calls, failing = stubs
    failing.add("ray-8")
    with pytest.raises(EdgePruneError, match="ray-8 failed"):
        scaled(data, tmp_path)
    saved = json.loads((tmp_path / "out" / "build-scale.json").read_text())["results"]
    assert [row["way"] for row in saved["photographs"]] == ["jobs-1", "jobs-2"]
    failing.clear()
    calls.clear()
    found = scaled(data, tmp_path)
    assert calls == ["ray-8", *STEPS]
    assert [row["way"] for row in found["photographs"]] == ["jobs-1", "jobs-2", "ray-8"]
    assert [row["step"] for row in found["small"]] == [*STEPS]
    calls.clear()
    assert scaled(data, tmp_path) == found
    assert calls == []
    # Other numbers are another table.
    scaled(data, tmp_path, images=21)
    assert calls == ["jobs-1", "jobs-2", "ray-8"]
    calls.clear()
    (tmp_path / "work" / "small-30.h5").unlink()
    scaled(data, tmp_path)
    assert calls == ["build"]


def test_a_resumed_epoch_that_differs_is_no_result(data, tmp_path, stubs):
    stubs[1].add("wrong")
    with pytest.raises(EdgePruneError, match="the first batch of the resumed epoch is not that"):
        scaled(data, tmp_path)


def test_without_ray_its_build_is_left_out(data, tmp_path, stubs, monkeypatch):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda _: None)
    found = scaled(data, tmp_path)
    assert "ray-8" not in stubs[0]
    assert "pip install" in found["left_out"]["ray-8"]


def test_without_images_one_line_says_so(data, tmp_path):
    (data / "imagenet-sample.zip").unlink()
    with pytest.raises(ConfigError, match=r"imagenet-sample\.zip not found; give the folder"):
        scaled(data, tmp_path)


def test_options_of_scale_need_it(tmp_path):
    done = CliRunner().invoke(command, ["build", "--data", str(tmp_path), "--small-images", "5"])
    assert done.exit_code == 2
    assert "--small-images has no effect without --scale" in done.output


def row(way, seconds, **facts):
    found = {
        "way": way,
        "options": way,
        "images": 1000,
        "seconds": seconds,
        "images_per_second": 1000 / seconds,
        "cpu_seconds": 10.0,
        "peak_mib": 400.0,
        "file_bytes": 2_000_000,
        "disk_bytes": 3_000_000,
        "temporary_ratio": 1.0,
        "file_sha256": "a",
        "payloads_sha256": "b",
    }
    return {**found, **facts}


def test_the_table_has_goals_and_an_extrapolation():
    ray = row("ray-8", 6.0, cpu_seconds=None, peak_with_engine_mib=900.0, temporary_ratio=1.3)
    rows = [row("jobs-1", 10.0), row("jobs-2", 5.0), {**ray, "file_sha256": "c", "peak_mib": 1700.0}]
    steps = [
        {"step": "build", "seconds": 9.0, "images_per_second": 111.0, "file_bytes": 5_000_000, "jobs": 2},
        {"step": "shuffle", "seconds": 3.0, "first_batch_seconds": 0.25, "batch": 256, "backend": "native"},
    ]
    steps = [{**step, "imported_mib": 47.0, "peak_mib": 210.0} for step in steps]
    facts = {"cores": 2, "images": 1000, "small_images": 1000, "left_out": {}}
    lines = scale_table({**facts, "photographs": rows, "small": steps})
    assert "| `jobs-1` | 10 | 100.0 | 1.00 | 400 | - | 2.0 | 2,000 | 1.00x | 1.50x |" in lines
    assert "- Goal: two jobs at least 1.8x one. 2.00x: met." in lines
    assert "- Goal: at most 1,536 MiB of memory. 1,700 MiB: missed." in lines
    assert "- Goal: temporary disk at most 1.2x the pack. 1.30x: missed." in lines
    assert "- Goal: the same file with two jobs as with one, byte for byte: met." in lines
    assert "- Goal: the same payloads through Ray as with one job, chunk for chunk: met." in lines
    assert "| one shuffled epoch | 3.00 | - | 0.25 | 47 | 210 |" in lines
    assert hours(200.0, 2) == pytest.approx(1_281_167 / 200 / 3600)
    assert hours(200.0, 64) == pytest.approx(hours(200.0, 2) / 32)
    assert any("107 minutes on 2 cores, 13 minutes on 16 cores" in line for line in lines)
    half = scale_table({**facts, "photographs": rows[:1], "small": [], "left_out": {"ray-8": "no Ray"}})
    assert "- ray-8 is left out: no Ray." in half
