import json
import math
import pickle
import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from random_coefficients import quantized_pack

from edgeprune_formats import ConfigError, PackWriter, open_pack
from edgeprune_runtime import Mixture, PackDataset, PackLoader, open_packs
from edgeprune_runtime.class_names import class_numbers
from edgeprune_runtime.loading.mixture import pooled_statistics
from edgeprune_runtime.loading.order.epochs import mixed_order

SIZES = ((53, 7), (31, 5), (20, 20))


@pytest.fixture
def paths(make_pack, tmp_path):
    """Three packs of different codecs, components and chunks."""
    (one, more), (two, few), (three, last) = SIZES
    return [
        make_pack("a.h5", samples=one, components=20, chunk_samples=more)[0],
        make_pack("b.h5", samples=two, components=300, chunk_samples=few, seed=1)[0],
        quantized_pack(tmp_path / "c.h5", samples=three, chunk_samples=last, tile="8", color="ycbcr"),
    ]


@pytest.fixture
def loader(paths):
    def make(batch_size=8, shuffle=True, seed=1, backend="scipy", **options):
        return PackLoader(paths, batch_size, shuffle, seed, backend=backend, device="cpu", **options)

    return make


def images_of(loader):
    return np.concatenate([np.asarray(images) for images, _ in loader])


def seen(loader):
    """How often each image and label came; images by their first pixels, as batches round them otherwise."""
    return Counter(
        (*np.round(image[0, 0, :6], 3).tolist(), int(label))
        for images, labels in loader
        for image, label in zip(np.asarray(images), np.asarray(labels), strict=True)
    )


def rewrite(path, target, **changes):
    """Copy a pack with another header."""
    with open_pack(path) as pack:
        header = replace(pack.header, **changes)
        with PackWriter(target, header, pack.labels, pack.source_index) as writer:
            for chunk in range(header.chunks):
                writer.append_coefficients(pack.read_chunk(chunk))
    return target


@pytest.mark.first_are_quick
@pytest.mark.parametrize("backend", ["scipy", "torch", "native"])
def test_without_shuffling_the_packs_come_one_after_another(paths, backend):
    mixed = PackLoader(paths, 9, backend=backend, device="cpu")
    alone = [PackLoader(path, 9, backend=backend, device="cpu") for path in paths]
    np.testing.assert_allclose(images_of(mixed), np.concatenate(list(map(images_of, alone))), atol=1e-5)
    labels = np.concatenate([np.asarray(y) for _, y in mixed])
    np.testing.assert_array_equal(labels, np.concatenate([one.pack.labels for one in alone]))


@pytest.mark.slow
@pytest.mark.parametrize("cache_bytes", [1, 60_000, 2**30])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_each_epoch_shows_every_image_of_every_pack_once(loader, cache_bytes, prefetch):
    stored = seen(loader(shuffle=False))
    shuffled = loader(cache_bytes=cache_bytes, prefetch=prefetch)
    epochs = [images_of(shuffled) for _ in range(2)]
    assert not np.array_equal(*epochs)
    assert seen(shuffled) == stored
    assert sum(stored.values()) == sum(samples for samples, _ in SIZES)


def test_the_first_batches_are_of_all_packs(loader):
    shuffled = loader(batch_size=26)
    order = shuffled._reader.cache.order(seed=1, epoch=0, shuffle=True)
    starts = np.cumsum([0, *(samples for samples, _ in SIZES)])
    assert len(np.unique(np.searchsorted(starts, order[:26], side="right"))) == len(SIZES)


def test_windows_hold_a_fair_share_of_each_pack():
    sizes, windows = [(1000, 10), (300, 10), (40, 20)], [5, 2, 1]
    order = mixed_order(sizes, windows, seed=0, epoch=0, shuffle=True)
    assert sorted(order.tolist()) == list(range(1340))
    first = order[order < 1000]
    for start in range(0, 1000, 50):
        assert len(np.unique(first[start : start + 50] // 10)) == 5
    members = np.searchsorted([1000, 1300], order, side="right")
    for tenth in np.split(members, 10):
        assert 80 <= np.count_nonzero(tenth == 0) <= 120
        assert 15 <= np.count_nonzero(tenth == 1) <= 45
    assert (members[:670] == 2).sum() == (members[670:] == 2).sum()
    again = mixed_order(sizes, windows, seed=0, epoch=1, shuffle=True)
    assert not np.array_equal(order, again)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("augment", "stop", "cache_bytes"),
    [
        # Each pair of values.
        (augment, stop, (60_000, 10**7)[(number + place) % 2])
        for number, augment in enumerate((False, "flip", True))
        for place, stop in enumerate((0, 4, 12, 13))
    ],
)
def test_a_state_taken_in_mid_epoch_resumes_with_the_remaining_batches(loader, augment, stop, cache_bytes):
    original = loader(augment=augment, cache_bytes=cache_bytes)
    original.set_epoch(3)
    batches = iter(original)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(original.state_dict()))
    rest = [images for images, _ in batches]
    resumed = loader(augment=augment, cache_bytes=cache_bytes)
    resumed.load_state_dict(state)
    again = [images for images, _ in resumed] if rest else []
    assert len(again) == len(rest)
    assert all(np.array_equal(one, other) for one, other in zip(again, rest, strict=True))
    np.testing.assert_array_equal(images_of(resumed), images_of(original))


def test_a_state_of_other_packs_is_refused(loader, paths):
    state = loader().state_dict()
    for other in (paths[0], paths[:2], paths[::-1]):
        with pytest.raises(ConfigError, match="cannot resume"):
            PackLoader(other, 8, True, 1, backend="scipy").load_state_dict(state)
    for window in (3, [1, 1], [1, 1, 0], None):
        with pytest.raises(ConfigError, match="cannot resume: window"):
            loader().load_state_dict({**state, "window": window})
    with pytest.raises(ConfigError, match="cache_bytes=") as caught:
        loader(cache_bytes=60_000).load_state_dict(state)
    enough = int(str(caught.value).partition("cache_bytes=")[2].split("`")[0])
    loader(cache_bytes=enough).load_state_dict(state)


def test_augmentation_is_that_of_one_pack(paths, tmp_path):
    """The same images as one pack or as two are cropped and mirrored alike."""
    whole = PackLoader(paths[0], 53, backend="scipy", augment=True)
    halves = []
    with open_pack(paths[0]) as pack:
        for number, rows in enumerate((np.arange(30), np.arange(30, 53))):
            header = replace(pack.header, samples=len(rows))
            halves.append(tmp_path / f"half{number}.h5")
            writer = PackWriter(halves[-1], header, pack.labels[rows], pack.source_index[rows])
            with writer:
                for chunk in range(pack.header.chunks):
                    inside = np.isin(pack.header.chunk_rows(chunk), rows)
                    writer.append_coefficients(pack.read_chunk(chunk).take(np.nonzero(inside)[0]))
    mixed = PackLoader(halves, 53, backend="scipy", augment=True)
    np.testing.assert_allclose(images_of(mixed), images_of(whole), atol=1e-5)


def test_a_loader_of_several_packs_can_be_pickled(loader):
    original = loader()
    state = original.state_dict()
    copy = pickle.loads(pickle.dumps(original))
    copy.load_state_dict(state)
    np.testing.assert_array_equal(images_of(copy), images_of(original))


def test_half_resolution(loader):
    assert images_of(loader(resolution=16)).shape == (104, 3, 16, 16)


def test_all_images_are_normalized_alike_by_the_pooled_statistics(paths, tmp_path):
    random = np.random.default_rng(0)
    pixels = [random.random((n, 3)) * scale for n, scale in ((53, 1.0), (31, 0.3))]
    both = np.concatenate(pixels)
    changed = [
        rewrite(path, tmp_path / f"{n}.h5", mean=tuple(some.mean(0)), std=tuple(some.std(0)))
        for n, (path, some) in enumerate(zip(paths, pixels, strict=False))
    ]
    packs = open_packs(changed)
    np.testing.assert_allclose(packs.header.mean, both.mean(0))
    np.testing.assert_allclose(packs.header.std, both.std(0))
    mean, std = (np.array(value)[:, None, None] for value in (packs.header.mean, packs.header.std))
    plain = images_of(PackLoader(changed, 9, backend="scipy"))
    normal = images_of(PackLoader(packs, 9, backend="scipy", normalize=True))
    np.testing.assert_allclose(normal, (plain - mean) / std, atol=1e-4)


def test_statistics_that_agree_stay_bit_for_bit(paths):
    headers = [open_pack(path).header for path in paths]
    awkward = [replace(h, mean=(0.1, 0.2, 1 / 3), std=(math.pi / 9, 0.1, 0.7)) for h in headers]
    assert pooled_statistics(awkward) == (awkward[0].mean, awkward[0].std)


def test_one_pack_in_a_list_is_that_pack(paths):
    one, same = PackLoader(paths[0], 8, True), PackLoader(paths[:1], 8, True)
    assert one.state_dict() == same.state_dict()
    assert open_packs(paths[:1]).path == paths[0]


def test_what_is_no_list_of_packs_is_told(paths):
    """Of text, each letter would be taken for a path."""
    told = "is no list of packs; give a list of paths, URLs or open packs"
    for given in (None, 3, bytes(paths[0])):
        for made in (open_packs, PackLoader):
            with pytest.raises(ConfigError, match=told):
                made(given)
    for given in (paths[0], str(paths[0])):
        with pytest.raises(ConfigError, match=told):
            open_packs(given)


def test_what_a_mixture_tells(paths):
    with open_packs(paths) as packs:
        assert isinstance(packs, Mixture)
        assert len(packs) == packs.header.samples == len(packs.labels) == len(packs.source_index) == 104
        provenance = json.loads(json.dumps(packs.header.provenance))
        assert provenance["packs"] == ["a.h5, 53 images", "b.h5, 31 images", "c.h5, 20 images"]
        assert len(provenance["provenances"]) == 3


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(
    ("names", "united", "numbers"),
    [
        (("cat", "dog", "cow"), ("cat", "dog", "bird", "cow"), (0, 1, 3)),
        (("dog", "bird", "cat"), ("cat", "dog", "bird"), (1, 2, 0)),
        (("eel", "bird", "cat", "dog"), ("cat", "dog", "bird", "eel"), (3, 2, 0, 1)),
        (("ant", "bee", "fly"), ("cat", "dog", "bird", "ant", "bee", "fly"), (3, 4, 5)),
    ],
)
def test_classes_are_united_by_name(paths, tmp_path, names, united, numbers):
    other = rewrite(paths[0], tmp_path / "other.h5", class_names=names)
    loader = PackLoader([paths[1], other], 100, backend="scipy")
    assert loader.pack.header.class_names == united
    ((_, labels),) = loader
    first, second = (open_pack(path).labels for path in (paths[1], other))
    np.testing.assert_array_equal(labels, [*first, *np.array(numbers)[second]])
    dataset = PackDataset([paths[1], other], backend="scipy")
    np.testing.assert_array_equal(dataset[np.arange(84)][1], labels)


def test_images_do_not_depend_on_the_order_of_classes(paths, tmp_path):
    other = rewrite(paths[0], tmp_path / "other.h5", class_names=("bird", "cat", "dog"))
    alike, mapped = (PackLoader([paths[1], path], 8, True, backend="scipy") for path in (paths[0], other))
    np.testing.assert_array_equal(images_of(alike), images_of(mapped))
    with pytest.raises(ConfigError, match="content"):
        mapped.load_state_dict(alike.state_dict())


def test_a_class_keeps_the_spelling_that_comes_first(paths, tmp_path):
    packs = [
        rewrite(path, tmp_path / f"{number}.h5", class_names=names)
        for number, (path, names) in enumerate(
            [
                (paths[0], (*spelled("NFD", "é"), "b", "c")),
                (paths[1], ("d", *spelled("NFC", "é"), "c")),
            ]
        )
    ]
    assert open_packs(packs).header.class_names == (*spelled("NFD", "é"), "b", "c", "d")


def spelled(form, *names):
    return tuple(unicodedata.normalize(form, name) for name in names)


@pytest.mark.first_are_quick
@pytest.mark.parametrize(("one", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_classes_are_the_same_however_accents_are_composed(paths, tmp_path, one, other):
    names = "Käfer", "señal", "각"
    packs = [
        rewrite(path, tmp_path / f"{form}.h5", class_names=spelled(form, *names))
        for path, form in ((paths[0], one), (paths[1], other))
    ]
    loader = PackLoader(packs, 84, backend="scipy")
    assert loader.pack.header.class_names == spelled(one, *names)
    _, labels = next(iter(loader))
    assert labels.tolist() == [label for path in packs for label in open_packs([path]).labels]


def test_classes_that_differ_in_composition_alone_stay_two(paths, tmp_path):
    both = (*spelled("NFC", "é"), *spelled("NFD", "é"), "bird")
    first = rewrite(paths[0], tmp_path / "a.h5", class_names=both)
    same = rewrite(paths[1], tmp_path / "b.h5", class_names=both)
    assert len(PackLoader([first, same], 84, backend="scipy").pack.header.class_names) == 3
    assert class_numbers(both, both) == [0, 1, 2]
    assert class_numbers(("bird", both[0], both[1], "e"), (both[1], "bird")) == [1, 0, 0, None]
    other = rewrite(paths[1], tmp_path / "c.h5", class_names=("é", "bird", "cat"))
    with pytest.raises(
        ConfigError, match=r"a\.h5: classes '\\xe9' and 'e\\u0301' differ only in how"
    ) as caught:
        PackLoader([other, first], backend="scipy")
    assert "\n" not in str(caught.value)


def test_packs_of_another_size_are_refused(make_pack, paths):
    other, _ = make_pack("other.h5", samples=5, size=(16, 24), components=10)
    with pytest.raises(ConfigError, match=r"other\.h5: images of 16x24, and those of .*a\.h5 are 32x32"):
        PackLoader([paths[0], other])
    with pytest.raises(ConfigError, match="no pack"):
        PackLoader([])
