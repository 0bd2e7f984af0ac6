import gc
import os
import pickle
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from edgeprune_formats import PackLayoutError, open_pack, verify_pack
from edgeprune_formats.hdf5 import checksum


def dense_of(pack, chunk):
    return pack.read_chunk(chunk).to_dense(12, 20)


def rows_of(sample, chunk):
    rows = sample.header.chunk_rows(chunk)
    return sample.dense[rows.start : rows.stop]


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_reads_in_any_order(sample):
    with open_pack(str(sample.path)) as pack:
        for chunk in (2, 0, 1, 1, 2):
            np.testing.assert_array_equal(dense_of(pack, chunk), rows_of(sample, chunk))


def test_says_what_it_is(sample):
    with open_pack(sample.path) as pack:
        assert repr(pack) == f"Pack({str(sample.path)!r}, 7 images (3, 12, 20), sparse-f32)"


@pytest.mark.parametrize("chunk", [-1, 3, 10**9])
def test_no_such_chunk(sample, chunk):
    with open_pack(sample.path) as pack, pytest.raises(IndexError, match="of 3"):
        pack.read_chunk(chunk)


def test_pickle(sample):
    with open_pack(sample.path) as pack:
        pack.read_chunk(0)
        with pickle.loads(pickle.dumps(pack)) as copy:
            assert copy.header == pack.header
            assert copy.labels.tolist() == pack.labels.tolist()
            assert copy.source_index.tolist() == pack.source_index.tolist()
            assert copy.scores.tolist() == sample.scores.tolist()
            np.testing.assert_array_equal(dense_of(copy, 1), rows_of(sample, 1))


def test_close_then_read(sample):
    pack = open_pack(sample.path)
    for _ in range(3):
        np.testing.assert_array_equal(dense_of(pack, 2), rows_of(sample, 2))
        pack.close()
        pack.close()


def test_scores_are_read_once_when_asked_for(sample):
    pack = open_pack(sample.path)
    scores = pack.scores
    pack.close()
    sample.path.unlink()
    assert pack.scores is scores
    assert pickle.loads(pickle.dumps(pack)).scores.tolist() == sample.scores.tolist()


def test_absence_of_scores_is_kept_too(tools, tmp_path):
    with open_pack(tools.write(tmp_path / "p.h5", scored=False).path) as pack:
        assert pack.scores is None
        pack.close()
        pack.path.unlink()
        assert pack.scores is None


def test_close_lets_go_of_the_file(sample):
    # Files that other tests have left are counted as well, so not to be closed in between.
    gc.collect()
    pack = open_pack(sample.path)
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    pack.read_chunk(0)
    in_a_thread(lambda: pack.read_chunk(1))
    pack.close()
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == before


def test_threads_each_get_the_right_data(sample):
    start = threading.Barrier(6)
    with open_pack(sample.path) as pack:

        def read(turn):
            start.wait()
            chunks = [(turn + step) % 3 for step in range(30)]
            return all(np.array_equal(dense_of(pack, chunk), rows_of(sample, chunk)) for chunk in chunks)

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(read, range(6))) == [True] * 6


def test_many_short_threads_do_not_pile_up_handles(sample):
    with open_pack(sample.path) as pack:
        before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
        for _ in range(20):
            in_a_thread(lambda: pack.read_chunk(0))
        after = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    assert after - before <= 2


def test_file_replaced_since_opened(tools, sample):
    with open_pack(sample.path) as pack:
        np.testing.assert_array_equal(dense_of(pack, 0), rows_of(sample, 0))
        tools.write(sample.path, seed=1)
        with pytest.raises(PackLayoutError, match="changed since it was opened"):
            in_a_thread(lambda: pack.scores)
        with pytest.raises(PackLayoutError, match="changed since it was opened") as caught:
            in_a_thread(lambda: pack.read_chunk(0))
        assert str(sample.path) in str(caught.value)
        pack.close()
        with pytest.raises(PackLayoutError, match="changed since it was opened"):
            pack.read_chunk(0)


def test_file_replaced_before_a_pickle_is_read(tools, sample):
    with open_pack(sample.path) as pack:
        frozen = pickle.dumps(pack)
    tools.write(sample.path, seed=1)
    with pytest.raises(PackLayoutError, match="changed since it was opened"):
        pickle.loads(frozen).read_chunk(0)


def test_replaced_by_a_file_of_same_size_and_time(tools, sample, tmp_path):
    times = sample.path.stat()
    with open_pack(sample.path) as pack:
        other = tools.write(tmp_path / "other.h5", seed=1)
        assert other.path.stat().st_size == times.st_size
        other.path.replace(sample.path)
        os.utime(sample.path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(PackLayoutError, match="changed since it was opened"):
            pack.read_chunk(0)


def test_file_removed_since_opened(sample):
    with open_pack(sample.path) as pack:
        sample.path.unlink()
        with pytest.raises(FileNotFoundError, match=r"pack\.h5"):
            pack.read_chunk(0)


@pytest.mark.parametrize("use", [open_pack, verify_pack])
def test_missing_file(tmp_path, use):
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        use(tmp_path / "none.h5")


@pytest.mark.parametrize("use", [open_pack, verify_pack])
def test_folder(tmp_path, use):
    with pytest.raises(OSError, match=tmp_path.name):
        use(tmp_path)


@pytest.mark.parametrize("use", [open_pack, verify_pack])
def test_path_below_a_file(sample, use):
    with pytest.raises(NotADirectoryError, match=r"pack\.h5"):
        use(sample.path / "below.h5")


def test_symbolic_link_to_the_file(sample, tmp_path):
    (tmp_path / "link.h5").symlink_to(sample.path)
    with open_pack(tmp_path / "link.h5") as pack:
        np.testing.assert_array_equal(dense_of(pack, 0), rows_of(sample, 0))


def test_reading_changes_nothing(tools, sample):
    before = sample.path.read_bytes(), sample.path.stat().st_mtime_ns
    sample.path.chmod(0o444)
    tools.read_dense(sample.path)
    assert verify_pack(sample.path) == []
    assert before == (sample.path.read_bytes(), sample.path.stat().st_mtime_ns)
    assert tools.names(sample.path.parent) == ["pack.h5"]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("codec", ["sparse-f32", "sparse-f16", "quantized"])
def test_chunks_are_read_into_coefficients_that_are_given(tools, tmp_path, codec, compression):
    step = 0.02 if codec == "quantized" else 0.0
    header = tools.header(codec=codec, step=step, samples=8, height=16, width=16)
    path = tools.write(tmp_path / "p.h5", header, compression=compression).path
    with open_pack(path) as pack:
        coefficients = pack.empty_coefficients(3)
        for chunk, count in enumerate((3, 3, 2)):
            coefficients.values[...] = 99
            given, fresh = pack.read_chunk(chunk, coefficients), pack.read_chunk(chunk)
            assert len(given) == len(fresh) == count
            assert np.shares_memory(given.values, coefficients.values)
            for own, other in zip(vars(given).values(), vars(fresh).values(), strict=True):
                assert own.dtype == other.dtype
                np.testing.assert_array_equal(own, other)
        payload = pack.read_payload(0, coefficients)
        # One too small is left alone.
        small = pack.empty_coefficients(2)
        np.testing.assert_array_equal(pack.read_chunk(2, small).values, pack.read_chunk(2).values)
        in_place = any(np.shares_memory(array, coefficients.values) for array in payload.values())
        assert in_place == (codec == "sparse-f32" and compression == "none")


def test_checksums_are_those_of_zlib():
    random = np.random.default_rng(0)
    for size in (0, 1, 7, 64, 1000, 12345):
        array = random.integers(0, 256, size, np.uint8)
        assert checksum(array) == zlib.crc32(array.tobytes())


def test_a_relative_path_stays_what_it_was(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(sample.path.parent)
    with open_pack(sample.path.name) as pack:
        assert str(pack.path) == sample.path.name
        monkeypatch.chdir("/")
        np.testing.assert_array_equal(dense_of(pack, 2), rows_of(sample, 2))


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
def test_a_file_that_this_process_has_open_in_h5py(sample, locking, mode):
    options = {} if locking is None else {"locking": locking}
    with h5py.File(sample.path, mode, **options) as theirs:
        with open_pack(sample.path) as pack:
            np.testing.assert_array_equal(dense_of(pack, 0), rows_of(sample, 0))
            assert verify_pack(sample.path) == []
        assert len(theirs["labels"][...]) == len(pack)


def test_a_file_closed_for_others_is_opened_again(tools, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune_formats.packs.handles._MOST_FILES", 2)
    samples = [tools.write(tmp_path / f"{seed}.h5", seed=seed) for seed in range(4)]
    packs = [open_pack(one.path) for one in samples]

    def read():
        for _ in range(2):
            for pack, one in zip(packs, samples, strict=True):
                np.testing.assert_array_equal(dense_of(pack, 1), rows_of(one, 1))
        return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)

    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(read).result() - before == 2
