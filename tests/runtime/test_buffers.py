"""Batches that are written into the same memory again are those of fresh memory."""

import itertools
import pickle

import numpy as np
import pytest
from batch_copies import copied, same
from damaging import damage_chunk
from random_coefficients import quantized_pack

from edgeprune_formats import ConfigError
from edgeprune_runtime import PackLoader
from edgeprune_runtime.loading.chunks.buffers import Ring


@pytest.fixture(scope="module", params=["quantized", "mixed"])
def packs(request, tmp_path_factory):
    """A pack of 53 images in chunks of 7, alone or beside another."""
    folder = tmp_path_factory.mktemp("packs")
    path = quantized_pack(folder / "q.h5")
    return path if request.param == "quantized" else [path, quantized_pack(folder / "r.h5")]


@pytest.mark.first_are_quick(6)
@pytest.mark.parametrize(
    ("prefetch", "dtype", "augment"),
    [(0, "float32", False), (2, "float16", "crop+flip"), (2, "float32", "flip")],
)
@pytest.mark.parametrize("backend", ["torch", "native", "scipy"])
def test_the_values_are_the_same(packs, backend, prefetch, dtype, augment):
    options = {"backend": backend, "prefetch": prefetch, "dtype": dtype, "augment": augment}
    fresh = PackLoader(packs, 8, True, 1, **options)
    reused = PackLoader(packs, 8, True, 1, reuse_buffers=True, **options)
    for epoch in (0, 1):
        fresh.set_epoch(epoch)
        assert same(copied(reused), copied(fresh))


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize(("prefetch", "k"), [(0, 1), (0, 3), (1, 2), (3, 1), (3, 4)])
def test_a_batch_stays_as_it_is_until_k_more_are_asked_for(packs, prefetch, k):
    wanted = copied(PackLoader(packs, 5, backend="native"))
    batches = PackLoader(packs, 5, backend="native", prefetch=prefetch, reuse_buffers=k)
    # An epoch's last batches stay through the first of the next epoch as well.
    held, expected = [], list(itertools.islice(itertools.cycle(wanted), 2 * len(wanted)))
    for number, (images, _) in enumerate(itertools.chain(batches, batches), 1):
        held = [*held, images][-k:]
        for one, (right, _) in zip(held, expected[number - len(held) : number], strict=True):
            np.testing.assert_array_equal(one, right)


@pytest.mark.first_are_quick(3)
@pytest.mark.parametrize("backend", ["torch", "native", "scipy"])
def test_the_memory_is_the_same(packs, backend):
    loader = PackLoader(packs, 8, backend=backend, prefetch=2, reuse_buffers=True)
    places = {np.asarray(images).ctypes.data for _ in range(3) for images, _ in loader}
    assert len(places) == (1 if backend == "scipy" else 3)
    once = PackLoader(packs, 8, backend=backend, prefetch=0, reuse_buffers=True)
    assert len({np.asarray(images).ctypes.data for _ in range(2) for images, _ in once}) == 1


def test_an_iteration_that_was_left_keeps_its_batch(packs):
    loader = PackLoader(packs, 8, backend="native", reuse_buffers=True)
    batches = iter(loader)
    images, _ = next(batches)
    before = images.copy()
    batches.close()
    others = copied(loader)
    np.testing.assert_array_equal(images, before)
    # Two at a time share nothing either.
    loader.set_epoch(0)
    one = iter(loader)
    first, _ = next(one)
    before = first.copy()
    loader.set_epoch(1)
    assert same(copied(loader), others)
    np.testing.assert_array_equal(first, before)


def test_a_smaller_batch_first_and_a_copy_of_the_loader(packs):
    loader = PackLoader(packs, 8, True, backend="native", reuse_buffers=True)
    wanted = copied(loader)
    state = {**loader.state_dict(), "epoch": 0, "batch": len(loader) - 1}
    loader.load_state_dict(state)
    assert same(copied(loader), wanted[-1:])
    again = pickle.loads(pickle.dumps(loader))
    again.set_epoch(0)
    assert same(copied(again), wanted)


def test_a_chunk_that_is_left_out_takes_no_second_buffer(tmp_path):
    path = quantized_pack(tmp_path / "q.h5")
    damage_chunk(path, 3)
    options = {"backend": "native", "on_corrupt": "skip", "prefetch": 2}
    wanted = copied(PackLoader(path, 8, True, **options))
    assert same(copied(PackLoader(path, 8, True, reuse_buffers=True, **options)), wanted)


def test_a_negative_number_is_refused(packs):
    with pytest.raises(ConfigError, match="`reuse_buffers` must not be negative"):
        PackLoader(packs, 8, reuse_buffers=-1)


def test_a_ring_without_memory_gives_none():
    ring = Ring(lambda count: None, 1)
    ring.ask()
    assert ring.take(3) is None
