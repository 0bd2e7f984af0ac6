import numpy as np
import pytest

from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_runtime import PackLoader, open_packs
from edgeprune_runtime.loading.chunks import memory as module
from edgeprune_runtime.loading.chunks.memory import default_limit, divide_memory

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
