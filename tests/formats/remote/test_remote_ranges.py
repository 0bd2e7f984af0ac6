"""Far packs of which only parts are read."""

import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import web_server

from edgeprune_formats import NotAPackError, PackFormatError, RemoteError, open_pack
from edgeprune_formats.packs import remote as far
from edgeprune_formats.packs.remote import look_into
from edgeprune_formats.remote import ranges
from edgeprune_formats.remote.locations import as_remote
from edgeprune_formats.remote.ranges import Ranges

pytest.importorskip("aiohttp")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(ranges, "BLOCK", 1024)
    monkeypatch.setattr(far, "examine", lambda path, *, verify: [])
    server = web_server.WebServer()
    yield server
    server.stop()


@pytest.fixture
def url(server, sample):
    server.files["/p.h5"] = sample.path.read_bytes()
    return as_remote(server.url())


def told_nothing(line):
    raise AssertionError(line)


def test_only_what_is_read_is_asked_for(server, url, sample, tmp_path):
    with look_into(url, told_nothing) as pack:
        before = pack.ranges.bytes_read
        assert 0 < before < pack.file_bytes == sample.path.stat().st_size
        np.testing.assert_array_equal(pack.labels, sample.labels)
        np.testing.assert_array_equal(pack.scores, sample.scores)
        dense = pack.read_chunk(2).to_dense(12, 20)
        np.testing.assert_array_equal(dense, sample.dense[6:])
        assert before < pack.ranges.bytes_read < pack.file_bytes
        count = pack.ranges.requests
        pack.read_chunk(2)
        assert pack.ranges.requests == count == len(server.log)
    assert not (tmp_path / "cache").exists()


def test_blocks_are_bounded_and_a_run_is_one_request(server, monkeypatch):
    monkeypatch.setattr(ranges, "_MOST_BLOCKS", 4)
    content = np.random.default_rng(0).bytes(50_000)
    server.files["/p.h5"] = content
    found = Ranges(as_remote(server.url()))
    for start, stop in ((0, 10), (3000, 30_000), (29_999, 50_000), (49_999, 60_000), (0, 50_000), (7, 7)):
        assert found.read(start, stop) == content[start:stop]
        assert len(found._blocks) <= 4
    assert found.requests == 4
    found.close()


def test_a_file_that_changes_is_told(server, url, sample):
    with look_into(url, told_nothing) as pack:
        server.files["/p.h5"] = server.files["/p.h5"] + b"x"
        with pytest.raises(RemoteError, match="has changed while it was read; try again"):
            pack.read_chunk(2)


def test_an_answer_that_is_cut_is_told(server, url):
    with look_into(url, told_nothing) as pack:
        server.cuts = [10] * 9
        with pytest.raises(RemoteError, match="cut"):
            pack.read_chunk(2)
    server.cuts = [1024, 10, 10]
    with pytest.raises(RemoteError, match="cut"):
        look_into(url, told_nothing)


def test_an_interrupt_while_hdf5_reads_is_one(server, url, monkeypatch):
    pack = look_into(url, told_nothing)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pack.ranges, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack.read_chunk(0)
    pack.close()


CUT = """
import sys
from edgeprune_formats import RemoteError
from edgeprune_formats.packs.remote import look_into
from edgeprune_formats.remote import ranges
from edgeprune_formats.remote.locations import as_remote

ranges.BLOCK = 1024
read, left = ranges.Ranges.read, [int(sys.argv[2])]

def cut(*about):
    left[0] -= 1
    if left[0] < 0:
        raise RemoteError("cut off")
    return read(*about)

ranges.Ranges.read = cut
pack = look_into(as_remote(sys.argv[1]), print)
pack.read_chunk(0)
raise RemoteError("cut off")
"""


@pytest.mark.slow
def test_a_process_that_a_failed_read_ends_does_not_crash(server, url):
    """Wherever the read fails: while HDF5 opens the file, and in what comes after."""
    begun = [
        subprocess.Popen([sys.executable, "-c", CUT, str(url), str(read)], stderr=subprocess.PIPE, text=True)
        for read in range(0, 48, 6)
    ]
    for process in begun:
        _, err = process.communicate()
        assert err.splitlines()[-1] == "edgeprune_formats.errors.RemoteError: cut off"
        assert process.returncode == 1


def test_frames_of_the_caller_keep_their_variables(server, url, monkeypatch):
    def fails():
        kept = "kept"
        raise ValueError(kept)

    with look_into(url, told_nothing) as pack:
        monkeypatch.setattr(pack.ranges, "read", cut_off)
        try:
            fails()
        except ValueError as error:
            before = error.__traceback__.tb_next.tb_frame
            with pytest.raises(RemoteError, match="cut off"):
                pack.read_chunk(0)
        assert before.f_locals == {"kept": "kept"}


def cut_off(*_):
    raise RemoteError("cut off")


def test_without_ranges_all_is_fetched_and_it_is_said(server, url):
    server.has_ranges, lines = False, []
    with look_into(url, lines.append) as pack:
        assert pack.fetched.url == str(url)
    assert lines == [f"{url}: its server sends no ranges, so all of it is fetched"]


def test_a_pack_that_is_not_plain_is_fetched_and_examined_first(server, url, sample, tmp_path):
    old = tmp_path / "old.h5"
    with h5py.File(sample.path) as one, h5py.File(old, "w") as other:
        for name in one:
            one.copy(name, other)
        other.attrs.update(one.attrs)
    server.files["/p.h5"], lines = old.read_bytes(), []
    with pytest.raises(PackFormatError, match=r"not stored as EdgePack 1\.3"):
        look_into(url, lines.append)
    assert len(lines) == 1


def test_what_is_damaged_or_no_pack_is_refused(server, url, sample, tools):
    sound = server.files["/p.h5"]
    for content in (b"", b"<html>", b"PK\x03\x04" + bytes(100)):
        server.files["/p.h5"] = content
        with pytest.raises(NotAPackError):
            look_into(url, told_nothing)
    with h5py.File(sample.path, "r+") as file:
        file["labels"][0] = 1
    server.files["/p.h5"] = sample.path.read_bytes()
    assert server.files["/p.h5"] != sound
    with pytest.raises(PackFormatError, match=f"^{url}: /labels"):
        look_into(url, told_nothing)


def test_by_its_digest_it_comes_from_the_cache(server, url, sample):
    with open_pack(url) as pack:
        digest = pack.fetched.sha256
    shutil.rmtree(sample.path.parent / "none", ignore_errors=True)
    server.log.clear()
    with look_into(as_remote(f"{url}#sha256={digest}"), told_nothing) as pack:
        assert len(pack) == 7
    assert server.log == []
