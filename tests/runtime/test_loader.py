import json
from collections import Counter

import numpy as np
import pytest
from damaging import damage_chunk

from edgeprune_formats import ConfigError, PackChecksumError
from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.augmentation import draw
from edgeprune_runtime.decode.plan import MAX_BATCH_BYTES, check_batch
from edgeprune_runtime.loading.order.epochs import epoch_order
from edgeprune_runtime.system.threads import cores


@pytest.fixture
def loader(make_pack):
    """A factory of loaders over one pack of 53 images in chunks of 7."""
    path, _ = make_pack(samples=53, components=20, chunk_samples=7)

    def make(batch_size=8, shuffle=True, seed=1, **options):
        return PackLoader(path, batch_size, shuffle, seed, backend="scipy", **options)

    return make


def images_of(loader):
    return [image for images, _ in loader for image in images]


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def keys(images):
    return Counter(image.tobytes() for image in images)


def test_without_shuffling_samples_come_in_stored_order(loader):
    labels = np.concatenate([y for _, y in loader(shuffle=False)])
    np.testing.assert_array_equal(labels, loader().pack.labels)


def test_lengths(loader):
    assert len(loader()) == 7
    assert [len(y) for _, y in loader()] == [8] * 6 + [5]
    assert len(loader(drop_last=True)) == 6
    assert [len(y) for _, y in loader(drop_last=True)] == [8] * 6
    assert len(loader(batch_size=100)) == 1


def test_each_epoch_shows_every_sample_once_in_another_order(loader):
    shuffled = loader()
    epochs = [images_of(shuffled) for _ in range(3)]
    stored = images_of(loader(shuffle=False))
    assert all(keys(epoch) == keys(stored) for epoch in epochs)
    assert not same(epochs[0], epochs[1])
    assert not same(epochs[1], epochs[2])


def test_the_seed_fixes_the_order_and_set_epoch_repeats_an_epoch(loader):
    first, second = loader(), loader()
    epochs = [images_of(first), images_of(first)]
    second.set_epoch(1)
    assert same(images_of(second), epochs[1])
    second.set_epoch(0)
    assert same(images_of(second), epochs[0])
    assert not same(images_of(loader(seed=2)), epochs[0])


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize("cache_chunks", [1, 2, 3, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_small_cache_changes_no_image(loader, cache_chunks, shuffle):
    chunk_bytes = 7 * 3 * 20 * 6
    bounded = loader(shuffle=shuffle, cache_bytes=cache_chunks * chunk_bytes + 5)
    for _ in range(2):
        assert keys(images_of(bounded)) == keys(images_of(loader(shuffle=False)))
    # Where no more than one fits, those that are prepared come on top.
    on_top = cores() if cache_chunks == 1 else 0
    assert bounded._reader.cache._buffer.nbytes <= (cache_chunks + on_top) * chunk_bytes


def test_a_window_bounds_how_far_samples_travel():
    order = epoch_order(1000, 10, 5, seed=0, epoch=0, shuffle=True)
    assert sorted(order.tolist()) == list(range(1000))
    for start in range(0, 1000, 50):
        assert len(np.unique(order[start : start + 50] // 10)) == 5
    again = epoch_order(1000, 10, 5, seed=0, epoch=1, shuffle=True)
    assert not np.array_equal(order, again)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("cache_bytes", [3000, 10**6])
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_a_state_taken_in_mid_epoch_resumes_with_the_remaining_batches(loader, augment, cache_bytes, stop):
    original = loader(augment=augment, cache_bytes=cache_bytes)
    original.set_epoch(3)
    batches = iter(original)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(original.state_dict()))
    rest = [image for images, _ in batches for image in images]
    resumed = loader(augment=augment, cache_bytes=cache_bytes)
    resumed.load_state_dict(state)
    assert same(images_of(resumed), rest)
    assert same(images_of(resumed), images_of(original))
    resumed.load_state_dict(state)
    resumed.set_epoch(state["epoch"])
    assert same(images_of(resumed), rest)
    resumed.set_epoch(state["epoch"])
    assert len(images_of(resumed)) == 53


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("backend", ["torch", "scipy", "native"])
@pytest.mark.parametrize("several", [False, True])
def test_a_state_taken_after_the_last_batch_begins_the_next_epoch(make_pack, backend, prefetch, several):
    path, _ = make_pack(samples=53, components=20, chunk_samples=7)

    def make():
        packs = [path, path] if several else path
        return PackLoader(packs, 8, True, 1, backend=backend, device="cpu", prefetch=prefetch, augment=True)

    original = make()
    batches = iter(original)
    for _ in range(len(original)):
        next(batches)
    # The iterator does not know yet that it has ended.
    state = json.loads(json.dumps(original.state_dict()))
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert next(batches, None) is None
    assert original.state_dict() == state
    following = images_of(original)
    resumed = make()
    resumed.load_state_dict(state)
    assert same(images_of(resumed), following)
    resumed.load_state_dict(state)
    resumed.set_epoch(state["epoch"])
    assert same(images_of(resumed), following)
    # As states of earlier versions have it.
    resumed.load_state_dict({**state, "epoch": 0, "batch": len(original)})
    assert resumed.state_dict() == state
    assert same(images_of(resumed), following)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_state_taken_before_the_first_batch_begins_there(loader, prefetch):
    original = loader(prefetch=prefetch)
    state = original.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 0)
    resumed = loader(prefetch=prefetch)
    resumed.load_state_dict(state)
    assert same(images_of(resumed), images_of(original))
    original.set_epoch(4)
    resumed.load_state_dict(original.state_dict())
    assert same(images_of(resumed), images_of(original))


def test_a_loader_without_a_batch_has_a_state(loader):
    with pytest.warns(UserWarning, match="53 images are fewer than a batch of 100"):
        empty = loader(batch_size=100, drop_last=True)
    assert list(empty) == []
    empty.load_state_dict(empty.state_dict())
    assert list(empty) == []


STATISTICS = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"normalize": ([0.1, 0.4, 0.3], STATISTICS[1])}, "normalize"),
        ({"normalize": (STATISTICS[0], [0.1, 0.3, 0.4])}, "normalize"),
        ({"normalize": False}, "normalize"),
        ({"dtype": "float64"}, "dtype"),
        ({"resolution": 16}, "resolution"),
        ({"augment": "flip"}, "augment"),
        ({"shuffle": False}, "shuffle"),
        ({"drop_last": True}, "drop_last"),
    ],
)
def test_a_state_of_other_batches_is_refused_by_what_differs(loader, options, name):
    state = json.loads(json.dumps(loader(normalize=STATISTICS).state_dict()))
    loader(normalize=STATISTICS).load_state_dict(state)
    with pytest.raises(ConfigError, match=f"cannot resume: {name} was .* and is now ") as caught:
        loader(**{"normalize": STATISTICS, **options}).load_state_dict(state)
    assert "\n" not in str(caught.value)


def test_a_state_of_the_same_images_kept_otherwise_is_refused(make_pack):
    packs = [make_pack(f"{n}.h5", samples=30, components=n)[0] for n in (20, 30)]
    state = PackLoader(packs[0], 8, backend="scipy").state_dict()
    with pytest.raises(ConfigError, match=r"codec was sparse-f32 of 20 and is now sparse-f32 of 30"):
        PackLoader(packs[1], 8, backend="scipy").load_state_dict(state)


def test_a_state_of_an_earlier_version_is_held_against_what_it_says(loader):
    state = loader(normalize=STATISTICS).state_dict()
    earlier = {name: value for name, value in state.items() if name not in ("dtype", "normalize", "codec")}
    loader(normalize=STATISTICS).load_state_dict(earlier)
    with pytest.raises(ConfigError, match="scale was"):
        loader().load_state_dict(earlier)


def test_a_state_of_another_loader_is_refused(loader):
    state = loader().state_dict()
    for other in (loader(seed=2), loader(batch_size=9), loader(augment=True), loader(resolution=16)):
        with pytest.raises(ConfigError, match="cannot resume"):
            other.load_state_dict(state)
    for spoilt in (
        {**state, "window": 0},
        {**state, "window": 10**9},
        {**state, "window": True},
        {**state, "batch": None},
        {**state, "batch": 8},
        {**state, "batch": True},
        {**state, "epoch": False},
        {**state, "epoch": 1.0},
        {**state, "shuffle": 1},
        {**state, "scale": np.array(state["scale"])},
        {**state, "skipped": [True]},
        {},
        None,
        [],
        [("epoch", 0)],
        "state",
        7,
    ):
        with pytest.raises(ConfigError, match="cannot resume") as caught:
            loader().load_state_dict(spoilt)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="cache_bytes="):
        loader(cache_bytes=3000).load_state_dict(state)


@pytest.mark.parametrize("epoch", [-1, True, 1.0, "1", None, np.float64(2)])
def test_what_is_no_epoch_is_refused(loader, epoch):
    ours = loader()
    with pytest.raises(ConfigError, match=r"`epoch` is .*; give a whole number from 0 on"):
        ours.set_epoch(epoch)
    ours.set_epoch(np.int64(2))
    assert ours.state_dict()["epoch"] == 2


def test_damage_is_reported_when_it_is_read(make_pack):
    path, _ = make_pack(samples=53, components=20, chunk_samples=7)
    damage_chunk(path, 2, "values")
    batches = iter(PackLoader(path, 7, backend="scipy"))
    next(batches)
    next(batches)
    with pytest.raises(PackChecksumError, match=r"pack.h5: /samples/values chunk 2"):
        next(batches)


def naive_crop(image, top, left, mirror, pad):
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return crop[:, :, ::-1] if mirror else crop


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_augmentation_crops_from_the_reflected_image_and_mirrors(make_pack, backend):
    path, _ = make_pack(samples=40)
    plain = np.concatenate([np.asarray(x) for x, _ in PackLoader(path, 40, backend=backend, device="cpu")])
    batch = next(iter(PackLoader(path, 40, backend=backend, device="cpu", augment=True)))[0]
    seen = set()
    for image, original in zip(np.asarray(batch), plain, strict=True):
        matches = [
            (top, left, mirror)
            for top in range(9)
            for left in range(9)
            for mirror in (False, True)
            if np.array_equal(naive_crop(original, top, left, mirror, 4), image)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 30
    assert {mirror for _, _, mirror in seen} == {False, True}


def test_crop_and_flip_can_be_had_alone():
    options = {"seed": 0, "epoch": 0, "batch": 0, "count": 200, "height": 16, "width": 16}
    across = np.arange(16)
    flip, crop = draw("flip", **options), draw("crop", **options)
    assert all((row == across).all() for row in flip.rows)
    assert {tuple(row) for row in flip.columns} == {tuple(across), tuple(across[::-1])}
    assert (np.diff(crop.columns, axis=1)[:, 4:12] == 1).all()
    assert draw("none", **options) is None


def test_the_bound_on_a_batch_is_the_one_that_is_documented():
    said = f"more than {MAX_BATCH_BYTES // 2**30} GiB"
    assert said in " ".join(PackLoader.__doc__.split())
    assert said in " ".join(check_batch.__doc__.split())


def test_an_epoch_without_a_batch_is_warned_of(make_pack):
    path, _ = make_pack(samples=5)
    with pytest.warns(UserWarning, match="5 images are fewer than a batch of 8.* pass `drop_last=False`"):
        loader = PackLoader(path, 8, drop_last=True)
    assert len(loader) == 0
