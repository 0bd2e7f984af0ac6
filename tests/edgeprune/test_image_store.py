import threading
import time

import numpy as np
import pytest
import torch

from edgeprune.errors import SourceError
from edgeprune.work.image_store import ImageStore
from edgeprune_formats import ConfigError
from edgeprune_runtime.decode.augmentation import AUGMENTS, draw

CPU = torch.device("cpu")
PLACES = ("device", "host", "source")


class Images:
    """A source of noise, of which some rows may stop being readable; reads end out of order."""

    def __init__(self, count=30, shape=(3, 16, 24)):
        random = np.random.default_rng(0)
        self.pixels = random.integers(0, 256, (count, *shape)).astype(np.uint8)
        self.labels = random.integers(0, 5, count)
        self.shape = shape
        self.unreadable = set()
        self.reads = []

    def read(self, rows):
        self.reads.append(np.array(rows))
        time.sleep(0.002 * (int(rows[0]) % 4))
        for row in rows:
            if int(row) in self.unreadable:
                raise SourceError(f"image {row} has gone")
        return self.pixels[rows]


@pytest.fixture
def put(monkeypatch):
    """Make a store whose images are in the place asked for; on a CPU nothing else leads to the host."""

    def make(place, source, rows=None):
        rows = np.arange(len(source.labels)) if rows is None else rows
        with monkeypatch.context() as patch:
            if place == "host":
                patch.setattr("edgeprune.work.image_store._place", lambda *_: place)
            return ImageStore(source, rows, CPU, budget=0 if place == "source" else None)

    return make


def some_batches(count, augment, shape, sizes=(7, 1, 8, 8, 3, 5)):
    random = np.random.default_rng(1)
    _, height, width = shape
    return [
        (
            random.permutation(count)[:size],
            draw(augment, seed=2, epoch=3, batch=step, count=size, height=height, width=width),
        )
        for step, size in enumerate(sizes)
    ]


def by_numpy(pixels, batch):
    rows, augmentation = batch
    if augmentation is None:
        return pixels[rows]
    cropped = [
        image[:, down[:, None], across[None, :]]
        for image, down, across in zip(pixels[rows], augmentation.rows, augmentation.columns, strict=True)
    ]
    return np.stack(cropped)


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_what_numpy_gives(put, place, augment):
    source, rows = Images(), np.array([3, 4, 5, 8, 9, 11, 12, 15, 16, 21, 22, 29])
    store = put(place, source, rows)
    assert store.place == place
    assert len(store) == len(rows)
    assert store.shape == source.shape
    np.testing.assert_array_equal(store.labels, source.labels[rows])
    batches = some_batches(len(rows), augment, source.shape)
    found = list(store.batches(batches))
    assert len(found) == len(batches)
    for images, batch in zip(found, batches, strict=True):
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(images, by_numpy(source.pixels[rows], batch))


def test_a_crop_is_one_of_the_padded_image_or_its_mirror(put):
    source = Images(4, (3, 16, 16))
    drawn = draw("crop+flip", seed=0, epoch=0, batch=0, count=64, height=16, width=16)
    rows = np.arange(64) % 4
    (images,) = put("device", source).batches([(rows, drawn)])
    padded = np.pad(source.pixels, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (16, 16), (2, 3))
    for image, row in zip(images.numpy(), rows, strict=True):
        candidates = np.moveaxis(windows[row], 0, 2).reshape(25, 3, 16, 16)
        mirrored = candidates[..., ::-1]
        assert (candidates == image).all((1, 2, 3)).any() or (mirrored == image).all((1, 2, 3)).any()


@pytest.mark.parametrize("place", PLACES)
def test_there_may_be_no_batch(put, place):
    assert list(put(place, Images()).batches([])) == []


def test_where_images_go_is_for_the_budget_to_say():
    source = Images()
    rows = np.arange(20)
    size = 20 * 3 * 16 * 24
    assert ImageStore(source, rows, CPU, budget=size).place == "device"
    assert ImageStore(source, rows, CPU, budget=size - 1).place == "source"
    assert ImageStore(source, rows, CPU, budget=0).place == "source"
    assert ImageStore(source, rows, CPU).place == "device"


def test_without_a_budget_half_of_the_free_memory_is_the_limit(monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_store.available_bytes", lambda: 46 * 1024)
    # Half of 46 KiB is 20 images of 1152 B and a half.
    assert ImageStore(Images(), np.arange(20), CPU).place == "device"
    assert ImageStore(Images(), np.arange(21), CPU).place == "source"
    monkeypatch.setattr("edgeprune.work.image_store.available_bytes", lambda: None)
    monkeypatch.setattr("os.sysconf", lambda name: 10 if name == "SC_PAGE_SIZE" else 4 * 1152)
    assert ImageStore(Images(), np.arange(10), CPU).place == "device"
    assert ImageStore(Images(), np.arange(11), CPU).place == "source"


def test_images_are_read_once_where_they_are_held_and_in_pieces(put, monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_store._LOAD_BYTES", 4 * 3 * 16 * 24 + 5)
    source = Images()
    store = put("device", source)
    # By several threads, so the last may come before the others.
    assert sorted(len(rows) for rows in source.reads) == [2] + [4] * 7
    assert sorted(np.concatenate(source.reads).tolist()) == list(range(30))
    list(store.batches(some_batches(30, "crop", source.shape)))
    assert len(source.reads) == 8
    np.testing.assert_array_equal(next(store.batches([(np.arange(30), None)])), source.pixels)


def test_an_image_larger_than_a_piece_is_read_alone(put, monkeypatch):
    monkeypatch.setattr("edgeprune.work.image_store._LOAD_BYTES", 1)
    source = Images(3)
    put("device", source)
    assert [len(rows) for rows in source.reads] == [1, 1, 1]


def test_images_are_read_ahead_but_not_far(put):
    source, fifth, begun = Images(), threading.Event(), []

    class Reads(list):
        def append(self, rows):
            super().append(rows)
            if len(self) == 5:
                fifth.set()

    def noted():
        for batch in some_batches(30, "none", source.shape, sizes=[2] * 12):
            begun.append(batch)
            yield batch

    source.reads = Reads()
    stream = put("source", source).batches(noted())
    next(stream)
    # Each is one read, and the next begins when another batch is asked for.
    assert len(begun) == 5
    assert fifth.wait(60)
    assert len(source.reads) == 5
    assert len(list(stream)) == 11
    assert len(source.reads) == 12


def test_a_store_without_a_thread_is_refused():
    with pytest.raises(ConfigError, match="`jobs` must be at least 1, not 0"):
        ImageStore(Images(), np.arange(30), CPU, jobs=0)


@pytest.mark.parametrize(("processes", "threads"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_the_processes_of_a_host_share_its_processors(monkeypatch, processes, threads):
    monkeypatch.setattr("edgeprune.work.image_store.cpu_quota", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert ImageStore(Images(), np.arange(30), CPU)._jobs == threads


@pytest.mark.parametrize("place", ["device", "host"])
def test_an_unreadable_image_is_an_error_where_all_are_loaded(put, place):
    source = Images()
    source.unreadable = {17}
    with pytest.raises(SourceError, match="image 17 has gone"):
        put(place, source)


def test_an_image_that_goes_is_an_error_when_its_batch_comes(put):
    source = Images()
    store = put("source", source)
    source.unreadable = {4}
    batches = [(np.array([row, row + 1]), None) for row in range(0, 20, 2)]
    stream = store.batches(batches)
    for first in (0, 2):
        np.testing.assert_array_equal(next(stream), source.pixels[first : first + 2])
    with pytest.raises(SourceError, match="image 4 has gone"):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("taken", [0, 1, 6])
def test_a_stream_that_is_closed_early_leaves_no_thread(put, place, taken):
    source = Images()
    before = threading.active_count()
    stream = put(place, source).batches(some_batches(30, "flip", source.shape, sizes=[3] * 20))
    for _ in range(taken):
        next(stream)
    stream.close()
    assert threading.active_count() == before
    assert len(source.reads) <= taken + 5
