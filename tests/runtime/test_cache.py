import os
import pickle
import signal
import threading

import numpy as np
import pytest
from damaging import damage_chunk
from random_coefficients import quantized_pack

from edgeprune_formats import ConfigError, Pack, PackChecksumError, open_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_runtime import PackDataset, PackLoader
from edgeprune_runtime.loading.chunks.cache import ChunkCache
from edgeprune_runtime.loading.order.epochs import first_needs
from edgeprune_runtime.system.threads import cores

ROWS = np.random.default_rng(0).integers(0, 53, 200)


@pytest.fixture(params=["sparse-f32", "quantized"])
def pack(request, make_pack, tmp_path):
    """A pack of 53 images in 8 chunks of 7."""
    if request.param == "quantized":
        return open_pack(quantized_pack(tmp_path / "q.h5"))
    return open_pack(make_pack(samples=53, components=200, chunk_samples=7)[0])


@pytest.fixture
def read(monkeypatch):
    """The chunks that are read from the file, in turn."""
    chunks, lock, original = [], threading.Lock(), Pack.read_payload

    def read_payload(self, chunk, out=None):
        with lock:
            chunks.append(chunk)
        return original(self, chunk, out)

    monkeypatch.setattr(Pack, "read_payload", read_payload)
    return chunks


def values_of(cache, rows):
    coefficients, where = cache.find(rows)
    return coefficients.take(where).values


def expected(pack, rows):
    size = pack.header.chunk_samples
    chunks = {chunk: pack.read_chunk(chunk).values for chunk in np.unique(rows // size).tolist()}
    return np.stack([chunks[row // size][row % size] for row in rows.tolist()])


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [0.01, 1, 2, 3.5, 8, 100])
@pytest.mark.parametrize("prefetch", [False, True])
def test_rows_are_found_whatever_fits(pack, chunks, prefetch):
    size = pack.header.chunk_samples * memory_bytes(pack.header)
    cache = ChunkCache(pack, max(1, int(chunks * size)), prefetch=prefetch)
    for rows in (ROWS, ROWS[:3], np.arange(53), np.array([52]), ROWS):
        np.testing.assert_array_equal(values_of(cache, rows), expected(pack, rows))
    # Where no more than one fits, those that are prepared come on top.
    on_top = cores() if prefetch and cache.slots == 1 else 0
    assert cache._buffer.nbytes <= (max(1, chunks) + on_top) * size


def test_all_chunks_are_read_once_where_all_fit(pack, read):
    cache = ChunkCache(pack, 8 * pack.header.chunk_samples * memory_bytes(pack.header), prefetch=True)
    assert (cache.slots, cache.window) == (8, 8)
    for _ in range(3):
        cache.find(ROWS)
    assert sorted(read) == list(range(8))


@pytest.mark.slow
def test_stored_bytes_are_kept_where_they_take_half_at_most(tmp_path, read):
    pack = open_pack(quantized_pack(tmp_path / "q.h5"))
    chunk_bytes = pack.header.chunk_samples * memory_bytes(pack.header)
    assert pack.payload_bytes < chunk_bytes
    cache = ChunkCache(pack, pack.payload_bytes + 4 * chunk_bytes, prefetch=True)
    assert (cache.slots, cache.window) == (4, 2)
    wanted = expected(pack, ROWS)
    del read[:]
    for _ in range(3):
        np.testing.assert_array_equal(values_of(cache, ROWS), wanted)
    assert sorted(read) == list(range(8))
    assert sum(part.nbytes for payload in cache._payloads.values() for part in payload.values()) == (
        pack.payload_bytes
    )


def test_chunks_are_read_anew_where_nothing_fits(pack, read):
    cache = ChunkCache(pack, pack.header.chunk_samples * memory_bytes(pack.header))
    for _ in range(2):
        cache.find(np.arange(53))
    # The last one was still there.
    assert sorted(read) == sorted([*range(8), *range(7)])
    assert not cache._payloads


def test_what_is_held_is_used_before_others_take_its_place(pack, read):
    cache = ChunkCache(pack, 2 * pack.header.chunk_samples * memory_bytes(pack.header))
    cache.find(np.array([30, 50]))
    cache.find(np.array([0, 30, 10, 50]))
    assert sorted(read) == [0, 1, 4, 7]


def test_prepared_chunks_are_not_read_again_and_stay_within_bounds(pack, read):
    chunk_bytes = pack.header.chunk_samples * memory_bytes(pack.header)
    cache = ChunkCache(pack, 6 * chunk_bytes, prefetch=True)
    rows = np.array([37, 16])
    wanted = expected(pack, rows)
    del read[:]
    cache.prepare(np.array([5, 2, 7, 1, 0]))
    assert len(cache._pending) == cache.slots - cache.window == 3
    np.testing.assert_array_equal(values_of(cache, rows), wanted)
    assert read.count(5) == read.count(2) == 1
    cache.prepare(np.array([5, 2, 1]))
    assert list(cache._pending) == [1]


def test_a_chunk_that_is_given_up_while_it_is_read_overwrites_no_other(pack, monkeypatch):
    chunk_bytes = pack.header.chunk_samples * memory_bytes(pack.header)
    cache = ChunkCache(pack, 5 * chunk_bytes, prefetch=True)
    assert cache.slots - cache.window >= 2
    begun, go_on, original = threading.Event(), threading.Event(), ChunkCache._read

    def read(self, chunk, place):
        if chunk == 7:
            begun.set()
            assert go_on.wait(20)
        original(self, chunk, place)

    monkeypatch.setattr(ChunkCache, "_read", read)
    cache.prepare(np.array([7]))
    assert begun.wait(20)
    cache.prepare(np.array([5]))
    assert 7 not in cache._pending
    wanted = expected(pack, np.arange(21))
    found = [values_of(cache, np.arange(start, start + 7)) for start in (0, 7, 14)]
    go_on.set()
    np.testing.assert_array_equal(np.concatenate(found), wanted)
    for rows in (ROWS, np.arange(53)):
        np.testing.assert_array_equal(values_of(cache, rows), expected(pack, rows))
    cache._reclaim(patient=True)
    assert sorted([*cache._free, *cache._used.values()]) == list(range(cache._places))


def test_an_error_of_a_prepared_chunk_comes_when_it_is_used(make_pack):
    path, _ = make_pack(samples=53, components=20, chunk_samples=7)
    damage_chunk(path, 2, "values")
    cache = ChunkCache(open_pack(path))
    cache.prepare(np.array([2]))
    cache.find(np.arange(14))
    for _ in range(2):
        with pytest.raises(PackChecksumError, match="chunk 2"):
            cache.find(np.arange(53))
        assert not cache._pending
    cache.find(np.arange(21, 53))


def test_a_copy_starts_empty_with_the_same_bounds(pack):
    cache = ChunkCache(pack, 6 * pack.header.chunk_samples * memory_bytes(pack.header), prefetch=True)
    cache.reserve(5)
    cache.find(ROWS)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 20_000
    again = pickle.loads(pickled)
    assert (again.slots, again.window) == (cache.slots, 5)
    np.testing.assert_array_equal(values_of(again, ROWS), values_of(cache, ROWS))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_finds_what_its_parent_held(pack):
    cache = ChunkCache(pack, 3 * pack.header.chunk_samples * memory_bytes(pack.header))
    wanted = values_of(cache, ROWS)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(values_of(cache, ROWS), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_waits_for_nothing_that_its_parent_was_reading(pack, monkeypatch):
    cache = ChunkCache(pack, 5 * pack.header.chunk_samples * memory_bytes(pack.header), prefetch=True)
    wanted = expected(pack, ROWS)
    begun, go_on, original = threading.Event(), threading.Event(), ChunkCache._read

    def read(self, chunk, place):
        begun.set()
        assert go_on.wait(20)
        original(self, chunk, place)

    monkeypatch.setattr(ChunkCache, "_read", read)
    cache.prepare(np.array([7, 5]))
    assert begun.wait(20)
    # One of them is given up while it is being read.
    cache.prepare(np.array([5]))
    child = os.fork()
    if child == 0:
        ChunkCache._read = original
        signal.alarm(20)
        os._exit(0 if np.array_equal(values_of(cache, ROWS), wanted) else 1)
    go_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_place_is_given_back_where_there_is_no_memory(pack, monkeypatch):
    cache = ChunkCache(pack, 5 * pack.header.chunk_samples * memory_bytes(pack.header), prefetch=True)
    with monkeypatch.context() as patch:
        patch.setattr(Pack, "empty_coefficients", lambda self, samples: (_ for _ in ()).throw(MemoryError))
        for _ in range(3):
            for rows in (ROWS, np.array([0])):
                with pytest.raises(MemoryError):
                    cache.find(rows)
    np.testing.assert_array_equal(values_of(cache, ROWS), expected(pack, ROWS))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
def test_a_bound_may_be_a_float(pack, several, kind):
    """As in cache_bytes=2e9."""
    packs = [pack] * 2 if several else pack
    bound = 5 * pack.header.chunk_samples * memory_bytes(pack.header) * (1 + several)
    loaders = [PackLoader(packs, 8, shuffle=True, cache_bytes=number) for number in (kind(bound), bound)]
    assert loaders[0].state_dict() == loaders[1].state_dict()
    for one, other in zip(*loaders, strict=True):
        np.testing.assert_array_equal(np.asarray(one[0]), np.asarray(other[0]))


@pytest.mark.parametrize("several", [False, True])
def test_no_bound_holds_everything(pack, several):
    packs = [pack] * 2 if several else pack
    unbounded = PackLoader(packs, 8, shuffle=True, cache_bytes=float("inf"))
    assert unbounded.state_dict() == PackLoader(packs, 8, shuffle=True).state_dict()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("bound", ["1MB", None, 0, -1, True, float("nan"), float("-inf"), [1]])
def test_what_is_no_bound_is_named(pack, several, bound):
    with pytest.raises(ConfigError, match=r"`cache_bytes` must be positive, not .*; give a number of bytes"):
        PackDataset([pack] * 2 if several else pack, cache_bytes=bound)


def test_chunks_come_in_the_order_in_which_they_are_needed():
    chunks, places = first_needs(np.array([3, 3, 1, 3, 0, 1, 2]))
    assert chunks.tolist() == [3, 1, 0, 2]
    assert places.tolist() == [0, 2, 4, 6]
