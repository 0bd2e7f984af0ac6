import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
from batch_copies import same
from damaging import damage_chunk
from random_coefficients import quantized_pack

from edgeprune_formats import ConfigError, PackChecksumError, open_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_runtime import PackLoader
from edgeprune_runtime.loading.chunks.cache import SmallCacheError
from edgeprune_runtime.loading.chunks.prefetch import Prefetcher


@pytest.fixture(params=["sparse-f32", "quantized"])
def codec(request):
    return request.param


@pytest.fixture
def path(codec, make_pack, tmp_path):
    """A pack of 53 images in 8 chunks of 7."""
    if codec == "quantized":
        return quantized_pack(tmp_path / "q.h5", size=(16, 16))
    return make_pack(samples=53, size=(16, 16), components=50, chunk_samples=7)[0]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    # Looking at every object that there is takes longer than most of these tests.
    if threads():
        gc.collect()
    for thread in threads():
        thread.join(10)
    assert threads() == []


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "edgeprune-prefetch"]


def wait_until_full(prefetcher, depth):
    """Wait until so many items are made, or the iterator has ended."""
    shared = prefetcher._shared
    with shared._changed:
        assert shared._changed.wait_for(lambda: len(shared._items) == depth or shared._end is not None, 60)


def loader(path, **options):
    return PackLoader(path, 8, True, 1, **{"backend": "native", "augment": True, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "chunks", "backend", "shuffle"),
    [
        # Each pair of values.
        (codec, chunks, ("torch", "scipy")[(kind + number) % 2], (kind + number // 2) % 2 == 1)
        for kind, codec in enumerate(("sparse-f32", "quantized"))
        for number, chunks in enumerate((0.5, 1, 2, 3, 4.5, 7, 100))
    ],
)
def test_batches_are_the_same_bit_for_bit(path, chunks, backend, shuffle):
    header = open_pack(path).header
    cache_bytes = int(chunks * header.chunk_samples * memory_bytes(header))
    options = {"backend": backend, "augment": True, "cache_bytes": cache_bytes}
    without = PackLoader(path, 8, shuffle, prefetch=0, **options)
    epochs = [list(without), list(without)]
    for prefetch in (1, 2, 50):
        prefetcher = PackLoader(path, 8, shuffle, prefetch=prefetch, **options)
        assert same(list(prefetcher), epochs[0])
        assert same(list(prefetcher), epochs[1])


@pytest.mark.slow
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_the_state_counts_batches_that_were_handed_out(path, stop):
    header = open_pack(path).header
    cache_bytes = 3 * header.chunk_samples * memory_bytes(header)
    original = loader(path, cache_bytes=cache_bytes, prefetch=5)
    batches = iter(original)
    for _ in range(stop):
        next(batches)
    source = batches.gi_frame.f_locals.get("source")
    if isinstance(source, Prefetcher):
        wait_until_full(source, 5)
    state = json.loads(json.dumps(original.state_dict()))
    assert state["batch"] == stop
    assert state == {**state, "window": 1}
    rest = list(batches)
    for prefetch in (0, 3):
        resumed = loader(path, cache_bytes=cache_bytes, prefetch=prefetch)
        resumed.load_state_dict(state)
        assert same(list(resumed), rest)


def test_a_wider_window_of_an_older_state_is_kept(path):
    header = open_pack(path).header
    cache_bytes = 4 * header.chunk_samples * memory_bytes(header)
    orders = []
    for prefetch in (0, 2):
        resumed = loader(path, cache_bytes=cache_bytes, prefetch=prefetch)
        slots = resumed._reader.cache.slots
        resumed.load_state_dict({**resumed.state_dict(), "window": slots})
        orders.append(list(resumed))
        assert resumed.state_dict()["window"] == slots
    assert same(*orders)
    assert not same(orders[0], list(loader(path, cache_bytes=cache_bytes)))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_bytes_that_an_error_names_are_enough_and_so_are_more(make_pack, tmp_path, codec, prefetch):
    if codec == "quantized":
        path = quantized_pack(tmp_path / "q.h5", size=(16, 16), samples=120, chunk_samples=3)
    else:
        path, _ = make_pack(samples=120, chunk_samples=3, components=20)
    header = open_pack(path).header
    chunk_bytes = header.chunk_samples * memory_bytes(header)

    def resumed(cache_bytes, window):
        ours = loader(path, cache_bytes=cache_bytes, prefetch=prefetch)
        ours.load_state_dict({**ours.state_dict(), "window": window})
        return ours

    for window in (2, 17, header.chunks):
        with pytest.raises(SmallCacheError, match="cache_bytes=") as caught:
            resumed(chunk_bytes, window)
        enough = caught.value.cache_bytes
        assert f"`cache_bytes={enough}`" in str(caught.value)
        for cache_bytes in range(enough, (header.chunks + 2) * chunk_bytes, 3 * chunk_bytes // 2 + 1):
            assert resumed(cache_bytes, window).state_dict()["window"] == window
    assert len(list(resumed(enough, window))) == 15
    with pytest.raises(ConfigError, match=f"window is {header.chunks + 1}"):
        resumed(enough, header.chunks + 1)


def test_the_bytes_that_an_error_names_are_enough(path):
    header = open_pack(path).header
    chunk_bytes = header.chunk_samples * memory_bytes(header)
    state = {**loader(path, cache_bytes=5 * chunk_bytes).state_dict(), "window": 5}
    small = loader(path, cache_bytes=3 * chunk_bytes)
    with pytest.raises(ConfigError, match="cache_bytes=") as caught:
        small.load_state_dict(state)
    enough = int(str(caught.value).split("cache_bytes=")[1].split("`")[0])
    larger = loader(path, cache_bytes=enough)
    larger.load_state_dict(state)
    assert len(list(larger)) == 7


@pytest.mark.slow
def test_leaving_an_epoch_ends_its_thread(path):
    # So that the others need not look at all that there is.
    gc.collect()
    gc.freeze()
    ours = loader(path)
    for _ in range(3):
        for _batch in ours:
            assert len(threads()) == 1
            break
        gc.collect()
        assert threads() == []
    with pytest.raises(ZeroDivisionError):
        fail_at_the_first(ours)
    gc.collect()
    assert threads() == []
    whole = iter(loader(path))
    assert threads() == []
    list(whole)
    assert threads() == []


def fail_at_the_first(batches):
    for _ in batches:
        raise ZeroDivisionError


def test_several_iterators_may_be_mixed(path):
    header = open_pack(path).header
    ours = loader(path, cache_bytes=2 * header.chunk_samples * memory_bytes(header))
    alone = [list(ours), list(ours)]
    ours.set_epoch(0)
    first, second = iter(ours), iter(ours)
    mixed = [[], []]
    for _ in range(7):
        mixed[0].append(next(first))
        mixed[1].append(next(second))
    assert next(first, None) is next(second, None) is None
    assert same(mixed[0], alone[0])
    assert same(mixed[1], alone[1])


def test_damage_surfaces_as_what_it_is_after_the_sound_batches(make_pack):
    path, _ = make_pack(samples=53, components=20, chunk_samples=7)
    damage_chunk(path, 2, "values")
    ours = PackLoader(path, 7, backend="scipy", prefetch=4)
    for _ in range(2):
        ours.set_epoch(0)
        batches = iter(ours)
        assert len([next(batches), next(batches)]) == 2
        with pytest.raises(PackChecksumError, match=r"pack.h5: /samples/values chunk 2"):
            next(batches)
        assert next(batches, None) is None
        assert ours.state_dict()["batch"] == 2


def test_a_loader_can_be_pickled_in_mid_epoch(path):
    ours = loader(path)
    batches = iter(ours)
    next(batches)
    again = pickle.loads(pickle.dumps(ours))
    again.load_state_dict(ours.state_dict())
    assert same(list(again), list(batches))


@pytest.mark.parametrize("prefetch", [-1, 1.5])
def test_prefetch_is_a_number_of_batches(path, prefetch):
    with pytest.raises((ConfigError, TypeError)):
        loader(path, prefetch=prefetch)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(("codec", "backend"), [("sparse-f32", "scipy"), ("quantized", "native")])
def test_a_fork_in_mid_epoch_goes_on_in_both_processes(path, backend):
    ours = loader(path, backend=backend)
    expected = list(ours)
    for _ in range(10):
        ours.set_epoch(0)
        batches = iter(ours)
        got = [next(batches), next(batches)]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ok = same(got + list(batches), expected)
                ours.set_epoch(0)
                code = 0 if ok and same(list(ours), expected) else 2
            finally:
                os._exit(code)
        assert same(got + list(batches), expected)
        deadline = time.monotonic() + 60
        while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(found[1]) == 0


FORKED = """
import os, sys, threading, time
from edgeprune_runtime import PackLoader
from edgeprune_runtime.loading.chunks.prefetch import Prefetcher

begun, finish = threading.Event(), threading.Event()

def slow():
    begun.set()
    finish.wait(60)
    yield 0

prefetcher = Prefetcher(slow(), 1)
begun.wait(60)
loader = PackLoader(sys.argv[1], 8, True, backend=sys.argv[2], device="cpu")
loader._reader._lock.__enter__()
started = time.monotonic()
child = os.fork()
if child == 0:
    images = len([label for _, labels in loader for label in labels])
    own = PackLoader(sys.argv[1], 8, True, backend=sys.argv[2], device="cpu")
    os._exit(0 if images == len([label for _, labels in own for label in labels]) == 53 else 1)
print("took", time.monotonic() - started)
loader._reader._lock.__exit__(None, None, None)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
finish.set()
prefetcher.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(("codec", "backend"), [("sparse-f32", "native"), ("quantized", "scipy")])
def test_a_fork_waits_for_no_thread_and_its_child_can_load(path, backend):
    """Though a thread prepares an item for long, and another holds the loader's lock."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(path), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    took, child = (line.split()[1] for line in done.stdout.splitlines())
    assert float(took) < 5
    assert child == "0"


@pytest.mark.slow
def test_nothing_is_registered_to_run_at_forks():
    code = "import os; os.register_at_fork = None; import edgeprune_runtime.loading.loader"
    # The modules that do so are loaded before.
    code = "import h5py, threading, random, logging, concurrent.futures.thread\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_products_of_matrices_by_numpy_stay_in_the_thread_that_asks(path):
    """A fork that falls into one hangs with some builds of OpenBLAS."""
    batches = iter(loader(path, backend="scipy"))
    next(batches)
    assert threads() == []
    assert next(batches) is not None


LEFT_OPEN = """
import sys
from edgeprune_runtime import PackLoader
loader = PackLoader(sys.argv[1], 2, True, backend=sys.argv[2], device="cpu", prefetch=8)
batches = iter(loader)
next(batches)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "backend"), [("sparse-f32", "torch"), ("quantized", "scipy")])
def test_an_interpreter_ends_in_mid_epoch(path, backend):
    command = [sys.executable, "-W", "error", "-c", LEFT_OPEN, str(path), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_no_more_than_depth_items_are_made():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    prefetcher = Prefetcher(items(), 3)
    wait_until_full(prefetcher, 3)
    assert made == [0, 1, 2]
    assert next(prefetcher) == 0
    wait_until_full(prefetcher, 3)
    assert made == [0, 1, 2, 3]
    prefetcher.close()
    assert next(prefetcher, None) is None
    assert made == [0, 1, 2, 3]


def test_an_error_comes_once_and_after_the_items_before_it():
    def items():
        yield 1
        raise ZeroDivisionError("here")

    prefetcher = Prefetcher(items(), 5)
    wait_until_full(prefetcher, 5)
    assert next(prefetcher) == 1
    with pytest.raises(ZeroDivisionError, match="here"):
        next(prefetcher)
    assert next(prefetcher, None) is None


def test_a_collected_one_ends_its_thread_and_closes_the_iterator():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    prefetcher = Prefetcher(items(), 2)
    assert next(prefetcher) == 0
    cycle = [prefetcher]
    cycle.append(cycle)
    del prefetcher, cycle
    gc.collect()
    assert closed.wait(10)
