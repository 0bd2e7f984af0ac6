"""Images that are decoded once and kept on the disk while a run reads them again and again."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from cached_images import IMAGES, decoded, file_of
from image_folders import Counted, write_photos

from edgeprune.errors import SourceError
from edgeprune.sources import check_source, open_source
from edgeprune.work import image_cache
from edgeprune.work.image_cache import CachedSource, cached, remove_images
from edgeprune.work.image_store import ImageStore, cached_if_large
from edgeprune.work.processes import Workers
from edgeprune.work.temporary import images_folder
from edgeprune_formats.locks import LOCK_FILE
from edgeprune_runtime.decode.augmentation import draw

CPU = torch.device("cpu")


def test_each_image_is_decoded_once_and_comes_back_exactly(source, expected, output):
    random = np.random.default_rng(0)
    with cached(source, output, wanted=True) as images:
        assert isinstance(images, CachedSource)
        for _ in range(5):
            rows = random.integers(0, IMAGES, 17)
            np.testing.assert_array_equal(images.read(rows), expected[rows])
        found = images.read_channels_last(np.arange(IMAGES))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected.transpose(0, 2, 3, 1))
    # A row that is asked for twice in its first read is decoded twice in it.
    assert set(decoded(source)) == set(range(IMAGES))
    assert len(source.reads) <= 6


def test_it_is_like_its_source(source, output):
    with cached(source, output, wanted=True) as images:
        assert len(images) == IMAGES
        for name in ("spec", "split", "license", "class_names", "shape", "notes", "undivided"):
            assert getattr(images, name) == getattr(source, name)
        assert images.labels is source.labels
        assert images.name(3) == source.name(3)
        assert images.stored_bytes([0, 1]) == source.stored_bytes([0, 1])
        with pytest.raises(AttributeError, match="nonsense"):
            _ = images.nonsense


def test_a_check_fills_it_and_finds_the_same(source, expected, output):
    alone = check_source(source)
    source.reads.clear()
    with cached(source, output, wanted=True) as images:
        check = check_source(images)
        assert decoded(source) == list(range(IMAGES))
        np.testing.assert_array_equal(images.read(np.arange(IMAGES)), expected)
        assert decoded(source) == list(range(IMAGES))
    assert check.sha256 == alone.sha256
    np.testing.assert_array_equal(check.good, alone.good)
    np.testing.assert_array_equal(check.channel_sums, alone.channel_sums)


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("jobs", [1, 2, 5, None])
def test_batches_do_not_depend_on_the_number_of_threads(source, expected, output, jobs, is_cached):
    random = np.random.default_rng(1)
    rows = np.array([row for row in range(IMAGES) if row != 7])
    with cached(source, output, wanted=is_cached) as images:
        store = ImageStore(images, rows, CPU, budget=0, jobs=jobs)
        assert store.place == ("disk" if is_cached else "source")
        for epoch in range(2):
            asked = [
                (chosen, draw("crop+flip", seed=0, epoch=epoch, batch=b, count=23, height=16, width=16))
                for b, chosen in enumerate(random.permutation(23) for _ in range(6))
            ]
            for found, (chosen, augmentation) in zip(store.batches(asked), asked, strict=True):
                for image, row, down, across in zip(
                    found.numpy(), rows[chosen], augmentation.rows, augmentation.columns, strict=True
                ):
                    np.testing.assert_array_equal(image, expected[row][:, down][:, :, across])


def test_several_threads_read_and_write_at_once(source, expected, output):
    with cached(source, output, wanted=True) as images, ThreadPoolExecutor(8) as pool:
        orders = [np.random.default_rng(seed).permutation(IMAGES) for seed in range(40)]
        for rows, found in zip(orders, pool.map(images.read, orders), strict=True):
            np.testing.assert_array_equal(found, expected[rows])


def test_a_black_image_is_not_taken_for_a_hole(tmp_path, output):
    source = Counted.open(write_photos(tmp_path / "black", 4, top=1))
    with cached(source, output, wanted=True) as images:
        for _ in range(2):
            assert not images.read(np.arange(4)).any()
    assert decoded(source) == [0, 1, 2, 3]


@pytest.mark.parametrize("at", [0, 100, -5, -4, -1])
def test_a_damaged_image_is_decoded_again(source, expected, output, at):
    with cached(source, output, wanted=True) as images:
        images.read(np.arange(IMAGES))
        with file_of(output).open("r+b") as file:
            file.seek(6 * (16 * 16 * 3 + 4) + at)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 64]))
        source.reads.clear()
        np.testing.assert_array_equal(images.read(np.arange(IMAGES)), expected)
        assert decoded(source) == [6 if at >= 0 else 5]
        images.read(np.arange(IMAGES))
        assert len(source.reads) == 1


def test_an_unreadable_image_is_named_and_the_others_are_kept(source, output):
    (source.path(5)).write_bytes(b"no image")
    with cached(source, output, wanted=True) as images:
        check = check_source(images, skip_bad=True)
        assert check.good.tolist() == [row for row in range(IMAGES) if row != 5]
        source.reads.clear()
        images.read(check.good)
        assert source.reads == []
        with pytest.raises(SourceError, match=r"05\.png: is not an image"):
            images.read([4, 5])


@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_ends_the_cache_but_not_the_run(source, expected, output, monkeypatch, short):
    lines, write, left = [], os.pwritev, [10]

    def full(descriptor, buffers, offset):
        left[0] -= 1
        if left[0] >= 0:
            return write(descriptor, buffers, offset)
        if short:
            return write(descriptor, [buffers[0][:4]], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with cached(source, output, wanted=True, tell=lines.append) as images:
        for _ in range(3):
            np.testing.assert_array_equal(images.read(np.arange(IMAGES)), expected)
        assert file_of(output).stat().st_size == 0
    assert len(source.reads) == 3
    folder = images_folder(output)
    assert lines[1:] == [f"warning: {folder}: the disk is full; images are decoded in every epoch"]
    assert not folder.exists()


def test_a_process_that_finds_the_disk_full_ends_the_cache_of_all(source, expected, output):
    with cached(source, output, wanted=True) as images:
        other = CachedSource(source, file_of(output))
        other.read(np.arange(12))
        other.empty()
        np.testing.assert_array_equal(images.read(np.arange(IMAGES)), expected)
        np.testing.assert_array_equal(other.read(np.arange(IMAGES)), expected)
        assert file_of(output).stat().st_size == 0


def test_a_disk_without_room_is_told_of_in_a_line(source, output, monkeypatch):
    lines = []
    monkeypatch.setattr(image_cache, "_LEAST_FREE", 2**62)
    with cached(source, output, wanted=True, tell=lines.append) as images:
        assert images is source
        assert not images_folder(output).exists()
    (line,) = lines
    assert line.startswith(f"warning: {output.parent}: no room for 18.53 kB of decoded images, ")
    assert line.endswith(" are free; images are decoded in every epoch")


def test_a_folder_that_cannot_be_made_is_told_of_in_a_line(source, output):
    lines = []
    images_folder(output).write_text("a file")
    with cached(source, output, wanted=True, tell=lines.append) as images:
        assert images is source
    assert len(lines) == 1
    assert images_folder(output).read_text() == "a file"


def test_a_folder_with_files_of_its_own_stays_as_it_is(source, output):
    lines = []
    images_folder(output).mkdir()
    (images_folder(output) / ".nfs000000000a1b").touch()
    with cached(source, output, wanted=True) as images:
        assert isinstance(images, CachedSource)
    images_folder(output).mkdir()
    (images_folder(output) / "cat.png").write_text("mine")
    with cached(source, output, wanted=True, tell=lines.append) as images:
        assert images is source
    assert lines == [
        f"warning: {images_folder(output)}: holds other files; images are decoded in every epoch"
    ]
    remove_images(output)
    assert [path.name for path in images_folder(output).iterdir()] == ["cat.png"]


def test_nothing_is_written_where_a_link_leads(source, output, tmp_path):
    (tmp_path / "other").mkdir()
    images_folder(output).symlink_to(tmp_path / "other")
    with cached(source, output, wanted=True) as images:
        images.read([0])
    assert [path.name for path in (tmp_path / "other").iterdir() if path.name != LOCK_FILE] == []


def test_what_it_takes_is_told_at_the_start(source, output):
    lines = []
    with cached(source, output, wanted=True, tell=lines.append):
        pass
    assert lines == [f"{images_folder(output)}: keeps the decoded images until the end, up to 18.53 kB"]


def test_images_in_memory_or_kept_already_are_left_as_they_are(source, output, npz):
    arrays = open_source(npz)
    with cached(arrays, output, wanted=True) as images:
        assert images is arrays
    with cached(source, output, wanted=True) as images, cached(images, output, wanted=True) as again:
        assert again is images
    with cached_if_large(source, output, CPU) as images:
        assert images is source
    assert not images_folder(output).exists()


@pytest.mark.parametrize("error", [None, SourceError, RuntimeError])
def test_it_goes_away_at_the_end(source, output, error):
    try:
        with cached(source, output, wanted=True) as images:
            images.read([0])
            assert images_folder(output).stat().st_mode & 0o777 == 0o700
            if error:
                raise error("x")
    except (SourceError, RuntimeError):
        pass
    assert not images_folder(output).exists()


class Pair(Workers):
    """One of two processes, each of which is a thread here."""

    barrier = threading.Barrier(2, timeout=10)
    flags, told = [], []

    def any(self, flag):
        self.flags.append(flag)
        self.barrier.wait()
        found = any(self.flags)
        self.barrier.wait()
        self.flags.clear()
        self.barrier.wait()
        return found

    def from_first(self, content):
        if self.rank == 0:
            self.told[:] = [content]
        self.wait()
        return self.told[0]


@pytest.mark.parametrize("wants", [(True, True), (True, False), (False, True), (False, False)])
def test_the_processes_of_a_node_share_one(source, expected, output, monkeypatch, wants):
    rank = threading.local()
    monkeypatch.setattr(image_cache, "local_rank", lambda: rank.number)
    halves = np.array_split(np.random.default_rng(0).permutation(IMAGES), 2)

    def work(number):
        rank.number = number
        workers = Pair(number, 2)
        with cached(source, output, wanted=wants[number], workers=workers) as images:
            for epoch in range(2):
                rows = halves[(number + epoch) % 2]
                np.testing.assert_array_equal(images.read(rows), expected[rows])
                workers.wait()
            return isinstance(images, CachedSource)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, (0, 1)))
    # Without its first process, which makes the file, a node has none.
    assert found == [wants[0], wants[1] and wants[0]]
    if all(wants):
        assert decoded(source) == list(range(IMAGES))
    assert not images_folder(output).exists()


def test_each_node_has_one_of_its_own(output, monkeypatch):
    names = []
    for node in ("0", "1", "2"):
        monkeypatch.setenv("GROUP_RANK", node)
        names.append(images_folder(output).name)
    monkeypatch.delenv("GROUP_RANK")
    assert names == ["s.h5.images", "s.h5.images1", "s.h5.images2"]
    assert images_folder(output).name == names[0]
