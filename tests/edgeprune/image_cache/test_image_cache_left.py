"""Images that a run that was stopped has left on the disk, and when they are used again."""

import contextlib
import os

import numpy as np
import pytest
from cached_images import IMAGES, decoded, file_of
from image_folders import Counted, write_photos
from photographs import photographs
from PIL import Image

from edgeprune.sources import open_source
from edgeprune.work import image_cache
from edgeprune.work.image_cache import cached, remove_images
from edgeprune.work.temporary import images_folder
from edgeprune_formats.locks import LOCK_FILE, open_lock
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training import TrainingInterrupted


def left_behind(source, output, error=TrainingInterrupted):
    with contextlib.suppress(error), cached(source, output, wanted=True) as images:
        images.read(np.arange(10))
        raise error
    if isinstance(source, Counted):
        source.reads.clear()
    assert images_folder(output).exists()


@pytest.mark.parametrize("error", [TrainingInterrupted, TrainingError, KeyboardInterrupt])
def test_a_run_that_was_stopped_finds_it_again(source, expected, output, error):
    left_behind(source, output, error)
    with cached(Counted.open(source.spec), output, wanted=True) as images:
        np.testing.assert_array_equal(images.read(np.arange(IMAGES)), expected)
        assert decoded(images) == list(range(10, IMAGES))
    assert not images_folder(output).exists()


def touched(source, output):
    os.utime(source.path(3), ns=(1, 1))


def renamed(source, output):
    source.path(3).rename(source.path(3).with_name("03b.png"))


def grown(source, output):
    times = source.path(3).stat()
    source.path(3).write_bytes(source.path(3).read_bytes() + b"\0")
    os.utime(source.path(3), ns=(times.st_atime_ns, times.st_mtime_ns))


def no_stamp(source, output):
    (images_folder(output) / "source.json").unlink()


def half_a_stamp(source, output):
    (images_folder(output) / "source.json").write_text('{"root')


def cut_off(source, output):
    os.truncate(file_of(output), 5000)


@pytest.mark.parametrize("change", [touched, renamed, grown, no_stamp, half_a_stamp, cut_off])
def test_what_is_left_of_other_images_is_not_used(source, output, change):
    left_behind(source, output)
    change(source, output)
    source = Counted.open(source.spec)
    with cached(source, output, wanted=True) as images:
        np.testing.assert_array_equal(images.read(np.arange(IMAGES)), source.read(np.arange(IMAGES)))
    assert len(source.reads[0]) == IMAGES


def test_what_is_left_of_a_source_whose_files_are_not_known_is_not_used(source, output, monkeypatch):
    monkeypatch.setattr(image_cache, "_stamp", lambda source: None)
    left_behind(source, output)
    with cached(source, output, wanted=True) as images:
        images.read(np.arange(IMAGES))
    assert decoded(source) == list(range(IMAGES))


def test_what_is_left_of_a_table_is_used_until_a_file_changes(source, output, tmp_path, monkeypatch):
    lines = [f"{source.path(row)},{source.labels[row]}" for row in range(IMAGES)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    table, reads = open_source(f"csv:{tmp_path / 'table.csv'}"), []
    read = type(table).read
    monkeypatch.setattr(type(table), "read", lambda self, rows: reads.append(len(rows)) or read(self, rows))
    left_behind(table, output)
    left_behind(table, output)
    assert reads == [10]
    touched(source, output)
    left_behind(table, output)
    assert reads == [10, 10]


def test_what_is_left_of_images_that_were_read_otherwise_is_not_used(output, tmp_path):
    for number, image in enumerate(photographs(12, 64, 96)):
        (folder := tmp_path / "large" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy().transpose(1, 2, 0)).save(folder / f"{number:02}.jpg")
    spec = f"imagefolder:{tmp_path / 'large'}"
    left_behind(open_source(spec, size=8), output)
    fast = open_source(spec, size=8, fast_jpeg=True)
    with cached(fast, output, wanted=True) as images:
        np.testing.assert_array_equal(images.read(np.arange(12)), fast.read(np.arange(12)))


def test_what_is_left_at_another_size_is_not_used(source, output):
    left_behind(source, output)
    smaller = Counted.open(source.spec, size=8)
    with cached(smaller, output, wanted=True) as images:
        images.read(np.arange(IMAGES))
    assert decoded(smaller) == list(range(IMAGES))


def test_a_folder_in_which_another_process_works_is_left_to_it(source, output):
    left_behind(source, output)
    lock, held = open_lock(images_folder(output) / LOCK_FILE)
    assert held
    before = file_of(output).read_bytes()
    remove_images(output)
    with cached(source, output, wanted=True) as images:
        assert images is source
    assert file_of(output).read_bytes() == before
    os.close(lock)
    remove_images(output)
    assert not images_folder(output).exists()
    remove_images(output)


def test_the_file_of_another_run_is_not_opened(source, expected, output, monkeypatch):
    left_behind(source, output)
    other = Counted.open(write_photos(output.parent / "other", IMAGES, top=99))
    monkeypatch.setattr(image_cache, "local_rank", lambda: 1)
    with cached(other, output, wanted=True) as images:
        assert images is other
