import re

import numpy as np
import pytest

from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_runtime import PackLoader, open_packs
from edgeprune_runtime.loading.chunks import memory as module
from edgeprune_runtime.loading.chunks.memory import default_limit, divide_memory, limit_for

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "limit"),
    [(None, GIB), (24 * GIB, GIB), (2 * GIB, GIB), (2 * GIB - 1, GIB // 2), (300 * 2**20, 2**27), (0, 2**25)],
)
def test_the_bound_where_none_is_asked_for(monkeypatch, free, limit):
    monkeypatch.setattr(module, "available_bytes", lambda: free)
    assert default_limit() == limit


@pytest.fixture
def pack(make_pack):
    return open_pack(make_pack(samples=40, chunk_samples=4)[0])


def sizes(pack, batch_size):
    header = pack.header
    return batch_size * 4 * int(np.prod(header.shape)), header.chunk_samples * memory_bytes(header)


def test_all_that_is_held_adds_up_to_the_bound(pack, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)
    batch, chunk = sizes(pack, 8)
    for limit in (100 * batch, 12 * batch, 5 * batch + 9 * chunk):
        for wanted in (0, 10, limit, 10 * limit):
            found = divide_memory(limit, pack, 8, test_images_bytes=wanted)
            held = (found.prefetch + 2) * batch + 2 * chunk + found.cache_bytes + found.test_bytes
            assert held == limit == found.limit
            assert found.cache_bytes >= 2 * chunk
            assert found.test_bytes <= wanted
            assert found.test_bytes <= (found.cache_bytes + found.test_bytes) / 4


def test_batches_ahead_are_given_up_first(pack):
    batch, chunk = sizes(pack, 40)
    limits = range(2 * batch + 8 * chunk, 10 * batch + 8 * chunk, batch // 4)
    ahead = [divide_memory(limit, pack, 40, test_images_bytes=0).prefetch for limit in limits]
    assert set(ahead) == {0, 1, 2}
    assert ahead == sorted(ahead)


def test_a_bound_that_is_too_small_says_how_much_is_needed(pack):
    batch, _ = sizes(pack, 8)
    with pytest.raises(
        ConfigError, match=r"batches of 8 images .* MB; raise `memory`, or lower `batch_size`"
    ):
        divide_memory(batch, pack, 8, test_images_bytes=0)


@pytest.mark.parametrize("threads", [1, 100])
@pytest.mark.parametrize("batch_size", [1, 3000])
def test_the_bound_that_the_message_names_is_enough(pack, monkeypatch, threads, batch_size):
    monkeypatch.setattr(module, "cores", lambda: threads)
    test = {"test_images_bytes": 5_000_000, "test_least_bytes": 3_000_000}
    with pytest.raises(ConfigError, match="memory are too little") as caught:
        divide_memory(1000, pack, batch_size, **test)
    enough = int(re.search(r"take ([\d,]+) MB", str(caught.value))[1].replace(",", "")) * 10**6
    for limit in range(enough, 3 * enough, enough // 20):
        assert divide_memory(limit, pack, batch_size, **test).cache_bytes > 0


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("batch_size", [1, 8, 40])
@pytest.mark.parametrize("test", [0, 10_000, 10**7])
@pytest.mark.parametrize("least", [0, 7777])
def test_the_bound_that_has_so_much_for_the_training_pack(
    pack, monkeypatch, threads, batch_size, test, least
):
    monkeypatch.setattr(module, "cores", lambda: threads)
    sizes = {"test_images_bytes": test, "test_least_bytes": least}
    for cache_bytes in (1, 10_001, 123_457, 10**7 + 2):
        enough = limit_for(cache_bytes, pack, batch_size, **sizes)
        for limit in range(enough, 3 * enough, enough // 50):
            assert divide_memory(limit, pack, batch_size, **sizes).cache_bytes >= cache_bytes


def test_what_it_gives_is_enough_for_a_loader_of_two_packs(make_pack):
    first, _ = make_pack("a.h5", samples=12, chunk_samples=4)
    second, _ = make_pack("b.h5", samples=9, chunk_samples=3)
    both = open_packs([first, second])
    batch, _ = sizes(both.packs[0], 4)
    for limit in range(2 * batch, 40 * batch, batch):
        try:
            found = divide_memory(limit, both, 4, test_images_bytes=0)
        except ConfigError:
            continue
        loader = PackLoader(
            both, 4, shuffle=True, cache_bytes=found.cache_bytes, prefetch=found.prefetch, backend="scipy"
        )
        assert sum(len(labels) for _, labels in loader) == 21
