"""Far packs: by a web server and other filesystems, verified and kept, and what goes wrong."""

import socket
import sys

import numpy as np
import pytest
from fetched_files import CONTENT, digest, got, kept

from edgeprune_formats import (
    ConfigError,
    NotAPackError,
    PackChecksumError,
    RemoteError,
    open_pack,
    verify_pack,
)
from edgeprune_formats.remote.fetch import fetch, fetch_small
from edgeprune_formats.remote.locations import as_remote, without_credentials

pytest.importorskip("aiohttp")
fsspec = pytest.importorskip("fsspec")


def test_a_pack_is_fetched_and_verified_once(server, sample, checks, tools):
    server.files["/a b.h5"] = sample.path.read_bytes()
    url = server.url("/a%20b.h5")
    for number in range(3):
        with open_pack(url) as pack:
            assert (pack.path.name, pack.fetched.url) == ("a_b.h5", url)
            assert pack.fetched.sha256 == digest(server.files["/a b.h5"])
            np.testing.assert_array_equal(tools.read_dense(pack.path), sample.dense)
        assert (len(server.log), len(checks)) == (number + 1, 1)
    assert verify_pack(url) == []
    # By its digest nobody is asked.
    open_pack(f"http://nowhere.invalid/else.h5#sha256={pack.fetched.sha256}").close()
    assert len(server.log) == 4


def test_the_same_content_under_two_urls_is_kept_once(server, sample, checks, cache):
    for name in ("/a.h5", "/b.h5"):
        server.files[name] = sample.path.read_bytes()
        with open_pack(server.url(name), isolated=False if name == "/a.h5" else None) as pack:
            assert pack.path.name == "a.h5"
    (path,) = kept(cache)
    assert path.read_bytes() == sample.path.read_bytes()
    assert len(checks) == 1
    assert not [*(cache / "urls").glob("*.part")]
    # It is known to be sound, under either URL.
    open_pack(server.url("/a.h5")).close()
    assert len(checks) == 1


def test_what_is_no_sound_pack_is_not_kept(server, sample, checks, cache, tools):
    with pytest.raises(NotAPackError, match="no HDF5 file") as caught:
        open_pack(server.url())
    assert str(caught.value).startswith(f"{server.url()}: this is no HDF5 file")
    tools.flip(sample.path, tools.chunk_place(sample.path, "values", 1)[0] + 3)
    server.files["/p.h5"] = sample.path.read_bytes()
    with pytest.raises(PackChecksumError, match="/samples/values chunk 1"):
        open_pack(server.url())
    assert [problem.kind for problem in verify_pack(server.url())] == ["checksum"]
    assert kept(cache) == []
    # Whoever trusts it has it as it is.
    open_pack(server.url(), isolated=False).close()
    assert len(kept(cache)) == 1
    with pytest.raises(PackChecksumError):
        open_pack(server.url())
    assert kept(cache) == []


@pytest.mark.slow
def test_it_is_verified_in_another_process(server, sample):
    server.files["/p.h5"] = sample.path.read_bytes()
    open_pack(server.url()).close()
    server.files["/p.h5"] = b"\x89HDF\r\n\x1a\n" + bytes(2000)
    with pytest.raises(PackChecksumError):
        open_pack(server.url())


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


PORT = closed_port()
FAULTS = {
    "gone": (lambda server: server.url("/gone"), "there is no such file (404)"),
    "forbidden": (lambda server: server.url("/forbidden"), "does not let us have it (403)"),
    "trouble": (lambda server: server.url("/trouble"), "answers 500"),
    "to a file": (lambda server: server.url("/to-a-file"), "sends us on"),
    "in circles": (lambda server: server.url("/circle"), "sends us on"),
    "no server": (lambda server: f"http://127.0.0.1:{PORT}/p.h5", "cannot be reached (Connection refused)"),
    "no host": (lambda server: "http://nowhere.invalid/p.h5", "no such host"),
    "no TLS": (lambda server: server.url().replace("http:", "https:"), "TLS fails"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_without_credentials(server, cache, fault):
    server.files |= {
        "/forbidden": 403,
        "/trouble": 500,
        "/to-a-file": "file:///etc/hostname",
        "/circle": "/circle",
    }
    make, words = FAULTS[fault]
    url = make(server).replace("://", "://anna:pass-word@") + "?token=se-cret"
    with pytest.raises(RemoteError) as caught:
        open_pack(url)
    text = str(caught.value)
    assert words in text
    assert text.startswith(f"{make(server)}?...: ")
    assert "\n" not in text
    assert not any(word in text for word in ("anna", "pass-word", "se-cret"))
    assert kept(cache) == []


def test_credentials_go_to_the_server_and_nowhere_else(server, sample, checks, cache):
    server.files["/p.h5"] = sample.path.read_bytes()
    url = server.url("/p.h5?token=se-cret", user="anna:pass-word@")
    with open_pack(url) as pack:
        assert pack.fetched.url == f"{server.url()}?..."
    path, _, headers = server.log[0]
    assert path == "/p.h5?token=se-cret"
    assert headers["Authorization"].startswith("Basic ")
    written = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    names = " ".join(str(path) for path in cache.rglob("*"))
    for word in ("anna", "pass-word", "se-cret"):
        assert word not in names + repr(as_remote(url)) + str(as_remote(url)) + without_credentials(
            f"<{url}>"
        )
        assert word.encode() not in written
    assert oct(next(iter(cache.iterdir())).stat().st_mode)[-3:] == "700"


def test_a_cache_that_cannot_be_made_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RemoteError, match=r"not a directory.*set EDGEPRUNE_CACHE"):
        fetch(as_remote("memory://p.h5"))


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/deep/p.h5", CONTENT)
    assert fetch(as_remote("memory://deep/p.h5")).path.is_relative_to(
        tmp_path / "xdg" / "edgeprune" / "files"
    )


def test_other_filesystems_serve_as_well(sample, checks):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/packs/p.h5", sample.path.read_bytes())
    with open_pack("memory://packs/p.h5") as pack:
        assert len(pack) == 7
    memory.pipe_file("/packs/p.h5", CONTENT)
    assert got("memory://packs/p.h5") == CONTENT
    with pytest.raises(RemoteError, match=r"memory://packs/q\.h5: there is no such file"):
        open_pack("memory://packs/q.h5")
    with pytest.raises(RemoteError, match="is a folder"):
        open_pack("memory://packs")
    assert fetch_small(as_remote("memory://packs/p.h5"), len(CONTENT)) == CONTENT
    with pytest.raises(RemoteError, match="larger than 10 B"):
        fetch_small(as_remote("memory://packs/p.h5"), 10)


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [
        ("https://host/p.h5", "fsspec", r"pip install 'edgeprune\[remote\]'"),
        ("https://host/p.h5", "aiohttp", r"needs aiohttp; pip install 'edgeprune\[remote\]'"),
        ("gs://bucket/p.h5", "gcsfs", "needs gcsfs; pip install gcsfs"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, url, module, install):
    monkeypatch.setitem(sys.modules, module, None)
    if module != "fsspec":
        monkeypatch.setattr(fsspec, "get_filesystem_class", lambda scheme: __import__(module))
    with pytest.raises(ConfigError, match=install):
        open_pack(url)
