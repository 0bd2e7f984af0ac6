"""Balanced sampling: each class equally often in an epoch, within the windows that memory holds."""

import numpy as np
import pytest

from edgeprune_formats import ConfigError, PackHeader, PackWriter
from edgeprune_runtime import PackLoader
from edgeprune_runtime.loading.order.epochs import epoch_order, mixed_order
from edgeprune_runtime.loading.order.sampling import balanced_rows

LABELS = np.array([0] * 70 + [1] * 20 + [2] * 6)
np.random.default_rng(5).shuffle(LABELS)


def counts(rows, labels=LABELS):
    return np.bincount(labels[rows], minlength=3)


def test_classes_and_their_images_come_equally_often():
    rows = balanced_rows(np.arange(96), LABELS, np.random.default_rng(0))
    assert counts(rows).tolist() == [32, 32, 32]
    times = np.bincount(rows, minlength=96)
    assert times[LABELS == 0].max() == 1
    assert set(times[LABELS == 1]) == {1, 2}
    assert set(times[LABELS == 2]) == {5, 6}
    uneven = balanced_rows(np.arange(95), LABELS, np.random.default_rng(1))
    assert sorted(counts(uneven)) == [31, 32, 32]


def test_of_one_class_it_is_a_shuffle():
    rows = np.arange(3, 20)
    assert sorted(balanced_rows(rows, np.zeros(20, int), np.random.default_rng(0))) == rows.tolist()


def test_it_stays_within_windows_and_is_fixed_by_seed_and_epoch():
    def order(**change):
        options = {"seed": 1, "epoch": 0, "shuffle": True, "labels": LABELS} | change
        return epoch_order(96, 8, 3, **options)

    rows = order()
    for start in range(0, 96, 24):
        chunks = np.unique(rows[start : start + 24] // 8)
        assert len(chunks) <= 3
        window = np.flatnonzero(np.isin(np.arange(96) // 8, chunks))
        present = np.unique(LABELS[window])
        in_window = counts(rows[start : start + 24])[present]
        assert in_window.max() - in_window.min() <= 1
    assert (rows == order()).all()
    assert (rows != order(epoch=1)).any()
    assert (rows != order(seed=2)).any()


def test_several_packs_are_balanced_together():
    rows = mixed_order([(40, 8), (56, 8)], [9, 9], seed=0, epoch=0, shuffle=True, labels=LABELS)
    assert counts(rows).tolist() == [32, 32, 32]


@pytest.fixture
def pack(tmp_path):
    random = np.random.default_rng(0)
    header = PackHeader(
        samples=96, channels=3, height=8, width=8, components=64, codec="sparse-f32", chunk_samples=8,
        class_names=("a", "b", "c"), mean=(0.5,) * 3, std=(0.2,) * 3,
    )  # fmt: skip
    with PackWriter(tmp_path / "p.h5", header, LABELS, np.arange(96)) as writer:
        writer.append(random.normal(size=(96, 3, 8, 8)).astype(np.float32), np.ones((96, 3, 8, 8), bool))
    return tmp_path / "p.h5"


def labels_of(loader):
    return np.concatenate([np.asarray(labels) for _, labels in loader])


@pytest.mark.parametrize("cache_bytes", [2**28, 8 * 8 * 3 * 64 * 4 * 2])
def test_a_loader_goes_on_where_it_was(pack, cache_bytes):
    options = {"shuffle": True, "sampling": "balanced", "cache_bytes": cache_bytes, "backend": "scipy"}
    whole = PackLoader(pack, 7, **options)
    batches = [np.asarray(images) for images, _ in whole]
    if cache_bytes == 2**28:
        assert counts(np.arange(96), labels_of(PackLoader(pack, 7, **options))).tolist() == [32, 32, 32]
    part = PackLoader(pack, 7, **options)
    iterator = iter(part)
    for _ in range(5):
        next(iterator)
    state = part.state_dict()
    other = PackLoader(pack, 7, **options)
    other.load_state_dict(state)
    rest = [np.asarray(images) for images, _ in other]
    assert len(rest) == len(batches) - 5
    assert all((one == two).all() for one, two in zip(rest, batches[5:], strict=True))
    with pytest.raises(ConfigError, match="sampling was balanced and is now uniform"):
        PackLoader(pack, 7, **options | {"sampling": "uniform"}).load_state_dict(state)
    del state["sampling"]
    with pytest.raises(ConfigError, match="sampling was uniform and is now balanced"):
        other.load_state_dict(state)


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("augment", ["light", "strong"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_an_image_that_repeats_is_augmented_in_another_way(pack, augment, world_size):
    options = {"shuffle": True, "sampling": "balanced", "backend": "torch", "device": "cpu"}
    shown = [
        image.numpy().tobytes()
        for rank in range(world_size)
        for images, _ in PackLoader(pack, 8, augment=augment, rank=rank, world_size=world_size, **options)
        for image in images
    ]
    assert len({*shown}) == len(shown) == 96


def test_a_damaged_chunk_is_counted_whole(pack):
    content = bytearray(pack.read_bytes())
    place = content.find(np.asarray(PackLoader(pack).pack.read_chunk(4).arrays[0][0, 0, :8]).tobytes())
    content[place] ^= 0xFF
    pack.write_bytes(content)
    loader = PackLoader(
        pack, 8, shuffle=True, sampling="balanced", on_corrupt="skip", backend="scipy", prefetch=0
    )
    assert len(list(loader)) == 12
    assert [(one.chunk, one.images) for one in loader.skipped] == [(4, 8)]


def test_what_makes_no_sense(pack):
    with pytest.raises(ConfigError, match="`sampling` is 'even'; choose one of uniform, balanced"):
        PackLoader(pack, sampling="even")
    with pytest.raises(ConfigError, match="needs `shuffle=True`"):
        PackLoader(pack, sampling="balanced")
