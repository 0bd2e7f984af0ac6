"""Far packs that are fetched: from a real server that cuts, changes and lies, and from other filesystems."""

import errno
import hashlib
import socket
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import web_server

from edgeprune_formats import (
    ConfigError,
    NotAPackError,
    PackChecksumError,
    RemoteError,
    open_pack,
    verify_pack,
)
from edgeprune_formats.packs import remote as far
from edgeprune_formats.remote import fetch as fetching
from edgeprune_formats.remote import progress, receive, web
from edgeprune_formats.remote.fetch import fetch, fetch_small
from edgeprune_formats.remote.locations import RemoteFile, as_remote, without_credentials

pytest.importorskip("aiohttp")
fsspec = pytest.importorskip("fsspec")

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = CONTENT[::-1]


@pytest.fixture(scope="module")
def running():
    server = web_server.WebServer()
    yield server
    server.stop()


@pytest.fixture
def server(running, tmp_path):
    running.begin_anew()
    running.files["/p.h5"] = CONTENT

    def written(place):
        """Wait until what was sent is on the disk: what a client has not read is lost by a cut."""
        for _ in range(200):
            if sum(part.stat().st_size for part in tmp_path.glob("cache/urls/*.part")) >= place:
                return
            time.sleep(0.01)

    running.at_cut = written
    return running


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache, with tries that do not wait."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(receive, "PAUSES", (0.0,) * 3)
    return tmp_path / "cache"


@pytest.fixture
def checks(monkeypatch):
    """Verify in this process, in place of one for each test; give the files that were verified."""
    seen = []

    def examine(path, *, verify):
        assert verify
        seen.append(path)
        return verify_pack(path)

    monkeypatch.setattr(far, "examine", examine)
    return seen


def digest(content):
    return hashlib.sha256(content).hexdigest()


def got(url):
    """Fetch a file; give its content, of which the copy says the right digest."""
    copy = fetch(as_remote(url))
    content = copy.path.read_bytes()
    assert copy.sha256 == digest(content)
    return content


def kept(cache):
    return [path for path in (cache / "files").rglob("*") if path.is_file() and path.suffix != ".json"]


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


def test_a_file_that_changed_is_fetched_anew_and_one_that_did_not_is_not(server):
    assert got(server.url()) == CONTENT
    server.files["/p.h5"] = OTHER
    assert got(server.url()) == OTHER
    server.cuts = [0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert got(server.url()) == OTHER


def test_where_nobody_answers_the_copy_is_taken_with_a_warning(server, monkeypatch):
    with pytest.raises(RemoteError):
        got(server.url("/else"))
    got(server.url())
    server.files["/p.h5"] = 503
    with pytest.warns(UserWarning, match="answers 503.*the copy in the cache"):
        assert got(server.url()) == CONTENT


def test_a_copy_that_was_changed_on_the_disk_is_fetched_again(server):
    copy = fetch(as_remote(server.url()))
    copy.path.write_bytes(OTHER)
    assert got(f"{server.url()}#sha256={copy.sha256}") == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("versions", [True, False])
def test_a_fetch_goes_on_after_cuts(server, ranges, versions):
    server.has_ranges, server.has_versions = ranges, versions
    server.cuts = [100_000, 0, 150_000]
    assert got(server.url()) == CONTENT
    starts = [int(text[6:].partition("-")[0]) for text in server.ranges()]
    assert len(starts) == 4
    if versions and ranges:
        assert starts == [0, 100_000, 100_000, 250_000]
    if not versions:
        assert starts == [0] * 4


def test_a_later_fetch_goes_on_with_the_part(server, cache):
    server.cuts = [200_000, 0, 0, 0, 0]
    with pytest.raises(RemoteError, match="the connection was cut; try again"):
        fetch(as_remote(server.url()))
    assert kept(cache) == []
    server.log.clear()
    assert got(server.url()) == CONTENT
    assert server.ranges() == ["bytes=200000-"]
    assert not list((cache / "urls").glob("*.part*"))


def test_an_interrupted_fetch_goes_on(server, cache):
    def interrupted(line, done, size):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receive.FetchLine, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(as_remote(server.url()))
    assert kept(cache) == []
    assert got(server.url()) == CONTENT
    assert server.ranges()[1] > "bytes=1"


@pytest.mark.parametrize("other", [OTHER, OTHER[:1000]])
@pytest.mark.parametrize("when", ["between", "within"])
def test_a_file_that_changes_is_never_glued_together(server, when, other):
    server.cuts = [200_000, 0, 0, 0, 0] if when == "between" else [200_000]
    if when == "between":
        with pytest.raises(RemoteError):
            fetch(as_remote(server.url()))
        server.files["/p.h5"] = other
    else:
        server.before = lambda path: len(server.log) == 2 and server.files.update({"/p.h5": other})
    assert got(server.url()) == other


@pytest.mark.parametrize(
    ("headers", "is_version"),
    [
        ({"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, True),
        ({"Last-Modified": "Thu, 01 Jan 2099 00:00:00 GMT"}, False),
        ({"Last-Modified": "yesterday"}, False),
        ({"ETag": 'W/"1"'}, False),
    ],
)
def test_only_what_changes_with_each_byte_is_a_version(server, headers, is_version):
    server.has_versions, server.extra = False, headers
    server.cuts = [100_000]
    assert got(server.url()) == CONTENT
    assert server.ranges()[1] == ("bytes=100000-" if is_version else "bytes=0-")


def test_what_is_sent_compressed_is_refused(server):
    server.extra = {"Content-Encoding": "gzip"}
    with pytest.raises(RemoteError, match="sends it compressed"):
        fetch(as_remote(server.url()))


def test_a_file_that_changes_each_time_is_left_alone(server):
    server.cuts = [1000] * 20
    server.before = lambda path: server.files.update({"/p.h5": CONTENT + bytes(len(server.log))})
    with pytest.raises(RemoteError, match="changes again and again"):
        fetch(as_remote(server.url()))


def test_a_part_without_a_version_is_glued_only_under_a_digest(server, cache):
    server.has_versions = False
    server.cuts = [200_000] + [0] * 4
    with pytest.raises(RemoteError):
        fetch(as_remote(server.url()))
    server.files["/p.h5"] = OTHER
    assert got(server.url()) == OTHER
    server.cuts = [100_000, 100_000]
    server.log.clear()
    server.files["/p.h5"] = CONTENT
    assert got(f"{server.url()}#sha256={digest(CONTENT)}") == CONTENT
    assert server.ranges() == ["bytes=0-", "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_tells_a_greater_length_keeps_nothing(server, cache, ranges):
    server.has_ranges, server.lie = ranges, 5000
    with pytest.raises(RemoteError, match=r"try again|cut"):
        fetch(as_remote(server.url()))
    assert kept(cache) == []


def test_without_a_length_a_digest_is_needed(server, cache):
    server.has_ranges = server.has_lengths = False
    with pytest.raises(RemoteError, match=r"a cut would go unnoticed.*#sha256="):
        fetch(as_remote(server.url()))
    assert got(f"{server.url()}#sha256={digest(CONTENT)}") == CONTENT


def test_another_digest_is_refused_and_names_both(server, cache):
    with pytest.raises(RemoteError) as caught:
        fetch(as_remote(f"{server.url()}#sha256={digest(OTHER)}"))
    assert digest(CONTENT) in str(caught.value)
    assert digest(OTHER) in str(caught.value)
    assert kept(cache) == []


def test_what_is_no_sound_pack_is_not_kept(server, sample, checks, cache, tools):
    with pytest.raises(NotAPackError, match="no HDF5 file") as caught:
        open_pack(server.url())
    assert str(caught.value).startswith(f"{server.url()}: /: ")
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


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(web, "READ_SECONDS", 0.1)
    gate = threading.Event()
    server.before = lambda path: gate.wait(5)
    with pytest.raises(RemoteError, match="no answer in"):
        fetch(as_remote(server.url()))
    gate.set()


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


def test_two_at_once_share_the_work(server):
    server.before = lambda path: threading.Event().wait(0.2)
    found = []
    url = f"{server.url()}#sha256={digest(CONTENT)}"
    threads = [threading.Thread(target=lambda: found.append(got(url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 3
    assert len(server.log) == 1


def test_a_full_disk_is_told_and_leaves_nothing(server, cache, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5}))
    with pytest.raises(RemoteError, match=r"needs 1\.3 MB in .*cache, whose disk has 0\.0 MB free"):
        fetch(as_remote(server.url()))
    monkeypatch.undo()
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(cache))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "receive", full)
    with pytest.raises(
        RemoteError, match=r"cache: .*\(no space left on device\); free some.*EDGEPRUNE_CACHE"
    ):
        fetch(as_remote(server.url()))
    assert not list(cache.rglob("*.part*"))


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


def test_a_small_file_is_kept_for_when_nobody_answers(server):
    assert fetch_small(as_remote(server.url()), 10**6) == CONTENT
    server.files["/p.h5"] = 503
    with pytest.warns(UserWarning, match="the copy in the cache"):
        assert fetch_small(as_remote(server.url()), 10**6) == CONTENT


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


@pytest.mark.parametrize("name", ["name:with.h5", "C:pack.h5", "s3:pack.h5", "file:pack.h5"])
def test_paths_with_a_colon_are_paths(sample, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    sample.path.rename(name)
    assert as_remote(name) is None
    with open_pack(name) as pack:
        assert pack.path == Path(name)


def test_only_known_schemes_make_a_url():
    for text in ("file:///etc/hostname", "local://x", "simplecache::http://h/p", "unknown://h/p", "x://y"):
        assert as_remote(text) is None
    remote = as_remote(f"HTTPS://anna:x@Host/a/.b%2Fp.h5?x=1#SHA256={'AB' * 32}")
    assert str(remote) == "https://Host/a/.b%2Fp.h5?..."
    assert (remote.name, remote.sha256) == ("p.h5", "ab" * 32)
    assert remote.beside(".sig").url == "https://anna:x@Host/a/.b%2Fp.h5.sig?x=1"
    assert str(as_remote("abfs://box@account/p.h5")) == "abfs://box@account/p.h5"
    assert as_remote("s3://bucket/a#b.h5").url == "s3://bucket/a#b.h5"
    assert as_remote("http://h/").name == "pack.h5"
    assert as_remote("http://u:p@h/x").key == as_remote("http://h/x").key != as_remote("http://h/x?1").key


@pytest.mark.parametrize(
    "text",
    [
        "http://a:se-cret@h/p#sha256=12",
        "http://a:se-cret@h/p#else",
        "http://",
        "http://a:se-cret@h:x/",
        "s3:///",
    ],
)
def test_what_cannot_be_a_url_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        open_pack(text)
    assert "se-cret" not in str(caught.value)


def test_a_url_that_became_a_path_is_told():
    with pytest.raises(ConfigError, match="give a URL as str"):
        open_pack(Path("https://host/p.h5"))
    with pytest.raises(ConfigError, match="give a URL as str"):
        as_remote(Path("hf://datasets/one/p.h5"))
    # A source, not a URL that lost a slash.
    assert as_remote("hf:/no/such/folder") is None


def test_what_a_library_says_shows_no_credentials():
    assert without_credentials("http:/a:b@h/p?x=1: no, ftp://u@h/a@b, csv:/a@b?") == (
        "http:/h/p?...: no, ftp://h/a@b, csv:/a@b?"
    )
    remote = RemoteFile("s3://anna:se-cret@bucket/p.h5?sign=abc")
    said = remote.hide("at s3://anna:se-cret@bucket/p.h5?sign=abc: anna:se-cret, sign=abc, https://x:y@z/?q")
    assert not any(word in said for word in ("se-cret", "abc", "x:y", "?q"))


def test_a_terminal_sees_rate_and_time_left_and_nobody_else(monkeypatch, capsys):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.FetchLine("a\x1b.h5") as line:
        line(10**6, 10**7)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.FetchLine("a\x1b.h5", 10**6) as line:
        line(3 * 10**6, 10**7)
        line(3 * 10**6, None)
    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert shown[1] == "a\\x1b.h5: 3.0 of 10.0 MB, 1.00 MB/s, ETA 0:07"
    assert shown[2].startswith("a\\x1b.h5: 3.0 MB, ")
    assert shown[3] == ""
