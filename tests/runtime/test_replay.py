"""Batches with a fixed share of old images."""

import json
from collections import Counter

import numpy as np
import pytest
from damaging import damage_chunk

from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime import PackLoader, Replay, open_packs
from edgeprune_runtime.loading.order.replay import ReplayOrder

SIZES = {"a.h5": (30, 7), "b.h5": (11, 5), "c.h5": (13, 4)}
OLD = 41


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Three packs of 30, 11 and 13 images in small chunks."""
    from random_coefficients import quantized_pack

    folder = tmp_path_factory.mktemp("packs")
    return [
        quantized_pack(folder / name, samples=samples, chunk_samples=chunk, tile="8", size=(8, 8))
        for name, (samples, chunk) in SIZES.items()
    ]


def rows_of(order, epoch, windows=(9, 9, 9), shuffle=True):
    return order.epoch(list(windows), seed=3, epoch=epoch, shuffle=shuffle)


@pytest.mark.parametrize("windows", [(9, 9, 9), (1, 1, 1)])
# The last has an epoch smaller than a batch.
@pytest.mark.parametrize(
    ("share", "batch", "old"), [(0.5, 8, 4), (0.3, 5, 2), (0.01, 4, 1), (0.99, 4, 3), (0.5, 32, 16)]
)
def test_each_batch_has_its_share_and_each_epoch_the_new_images(paths, windows, share, batch, old):
    order = ReplayOrder(open_packs(paths), Replay(share), batch)
    assert (order.old_in_batch, order.old, order.new) == (old, OLD, 13)
    drawn = Counter()
    for epoch in range(12):
        rows = rows_of(order, epoch, windows)
        assert len(rows) == len(order)
        full = len(rows) // batch * batch
        assert (order.is_old(rows[:full]).reshape(-1, batch).sum(1) == old).all()
        assert sorted(rows[~order.is_old(rows)]) == list(range(OLD, OLD + 13))
        drawn.update(rows[order.is_old(rows)].tolist())
    counts = [drawn[row] for row in range(OLD)]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 12 * (len(order) - 13)


def test_an_epoch_is_a_function_of_its_number(paths):
    order = ReplayOrder(open_packs(paths), Replay(0.5), 8)
    np.testing.assert_array_equal(rows_of(order, 4), rows_of(order, 4))
    assert not np.array_equal(rows_of(order, 4), rows_of(order, 5))
    batches = rows_of(order, 0)[:24].reshape(3, 8)
    places = {tuple(order.is_old(batch)) for batch in batches}
    assert len(places) > 1
    plain = rows_of(order, 0, shuffle=False)
    assert plain[:8].tolist() == [0, 1, 2, 3, 41, 42, 43, 44]


def test_old_and_new_images_are_drawn_apart(paths):
    """Two packs of one size: the old images of a batch are not those with the numbers of the new ones."""
    order = ReplayOrder(open_packs([paths[0], paths[0]]), Replay(0.5), 10)
    same = 0
    for epoch in range(8):
        rows = order.epoch([9, 9], seed=3, epoch=epoch, shuffle=True)
        same += sum(sorted(one[one < 30]) == sorted(one[one >= 30] - 30) for one in rows.reshape(-1, 10))
    assert same == 0


def test_several_packs_can_be_new(paths):
    order = ReplayOrder(open_packs(paths), Replay(0.5, new_packs=2), 8)
    assert (order.old, order.new) == (30, 24)


def loader(paths, batch_size=8, replay=0.5, **options):
    return PackLoader(paths, batch_size, True, 3, backend="scipy", replay=replay, **options)


def batches_of(loader):
    return [(np.asarray(images), np.asarray(labels)) for images, labels in loader]


def same(some, others):
    return len(some) == len(others) and all(
        np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
        for one, other in zip(some, others, strict=True)
    )


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("cache_bytes", [1, 2**20])
@pytest.mark.parametrize("stop", [0, 2, 4])
def test_a_state_in_mid_epoch_goes_on_with_the_same_batches(paths, cache_bytes, stop):
    original = loader(paths, cache_bytes=cache_bytes, augment=True)
    original.set_epoch(5)
    batches = iter(original)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(original.state_dict()))
    rest = [(np.asarray(images), np.asarray(labels)) for images, labels in batches]
    resumed = loader(paths, cache_bytes=cache_bytes, augment=True)
    resumed.load_state_dict(state)
    if rest:
        assert same(batches_of(resumed), rest)
    assert len(original) == len(resumed) == 4
    assert same(batches_of(resumed), batches_of(original))


def test_images_and_labels_are_those_of_the_order(paths):
    replayed, stored = loader(paths), PackLoader(paths, 54, backend="scipy")
    ((images, labels),) = batches_of(stored)
    rows = replayed.replay.epoch(replayed._reader.cache.window, seed=3, epoch=0, shuffle=True)
    got = batches_of(replayed)
    np.testing.assert_allclose(np.concatenate([one for one, _ in got]), images[rows], atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([one for _, one in got]), labels[rows])


def test_several_processes_are_refused_in_one_line(paths):
    assert len(loader(paths, rank=0, world_size=1)) == 4
    with pytest.raises(
        ConfigError, match=r"`replay` fixes the share .*leave `rank` and `world_size`"
    ) as caught:
        loader(paths, rank=1, world_size=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_buffers_that_are_used_again_hold_the_same(paths, prefetch):
    options = {"backend": "native", "augment": True, "cache_bytes": 1, "prefetch": prefetch}
    plain = PackLoader(paths, 8, True, 3, replay=0.5, **options)
    reusing = PackLoader(paths, 8, True, 3, replay=0.5, reuse_buffers=True, **options)
    for _ in range(2):
        wanted = [(np.array(images), np.array(labels)) for images, labels in plain]
        assert same([(np.array(images), np.array(labels)) for images, labels in reusing], wanted)


def test_a_preset_augments_and_resumes(paths):
    def make():
        return PackLoader(paths, 8, True, 3, backend="torch", device="cpu", replay=0.5, augment="strong")

    original = make()
    batches = iter(original)
    next(batches)
    state = json.loads(json.dumps(original.state_dict()))
    rest = [(images.numpy().copy(), labels.numpy()) for images, labels in batches]
    resumed = make()
    resumed.load_state_dict(state)
    assert same(batches_of(resumed), rest)
    assert rest[0][1].shape == (8, len(original.pack.header.class_names))


def test_an_image_that_comes_twice_in_an_epoch_is_augmented_in_two_ways(paths):
    few = [paths[2], paths[0]]
    light = PackLoader(few, 8, True, 3, backend="torch", device="cpu", replay=0.7, augment="light")
    rows = light.replay.epoch(light._reader.cache.window, seed=3, epoch=0, shuffle=True)
    images = np.concatenate([images for images, _ in batches_of(light)])
    twice = [np.nonzero(rows == row)[0] for row in range(13)]
    assert min(map(len, twice)) > 2
    for places in twice:
        assert not np.allclose(images[places[0]], images[places[1]], atol=1e-3)


def test_states_with_and_without_replay_are_told_apart(paths):
    with_replay, without = loader(paths), loader(paths, replay=None)
    assert "replay" not in without.state_dict()
    for one, other in (
        (with_replay, without),
        (without, with_replay),
        (loader(paths, replay=0.25), with_replay),
    ):
        with pytest.raises(ConfigError, match="cannot resume: replay was"):
            one.load_state_dict(other.state_dict())


def test_the_windows_stay_within_the_bound(paths):
    small = loader(paths, cache_bytes=1)
    batches_of(small)
    assert [len(member._used) <= member.window for member in small._reader.cache.members] == [True] * 3
    assert small._reader.cache.window == [1, 1, 1]


def test_a_damaged_chunk_does_not_change_the_share(paths, tmp_path):
    copies = [tmp_path / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    damage_chunk(copies[0], 1, "payload")
    damage_chunk(copies[2], 0, "payload")
    whole = loader(paths)
    ((stored, _),) = batches_of(PackLoader(paths, 54, backend="scipy"))
    skipping = loader(copies, on_corrupt="skip")
    for epoch in range(3):
        got = batches_of(skipping)
        assert len(got) == len(whole)
        for images, _ in got[:3]:
            rows = np.square(images[:, None] - stored).sum((2, 3, 4)).argmin(1)
            assert np.count_nonzero(rows < OLD) == 4, epoch
    assert sorted((one.chunk, one.images) for one in skipping.skipped) == [(1, 7), (8, 4)]


@pytest.mark.parametrize(
    ("replay", "words"),
    [
        (0.0, "`Replay.share` must be above 0 and below 1, not 0"),
        (1.0, "below 1, not 1"),
        (float("nan"), "below 1, not nan"),
        (Replay(0.5, 3), "of 3 packs the last 3 are new"),
    ],
)
def test_settings_out_of_range(paths, replay, words):
    with pytest.raises(ConfigError, match=words):
        loader(paths, replay=replay)


def test_what_replay_needs(paths):
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        Replay(0.5, 0)
    with pytest.raises(ConfigError, match="one pack was given"):
        loader(paths[:1])
    with pytest.raises(ConfigError, match="an old and a new image"):
        loader(paths, batch_size=1)
    assert open_pack(paths[0]).header.samples == 30
