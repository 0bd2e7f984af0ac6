"""Fetching from a real server that cuts, changes and lies."""

import errno
import sys
import threading
import warnings

import pytest
from fetched_files import CONTENT, OTHER, digest, got, kept

from edgeprune_formats import RemoteError
from edgeprune_formats.remote import fetch as fetching
from edgeprune_formats.remote import progress, receive, web
from edgeprune_formats.remote.fetch import fetch, fetch_small
from edgeprune_formats.remote.locations import as_remote

pytest.importorskip("aiohttp")
pytest.importorskip("fsspec")


def test_a_file_that_changed_is_fetched_anew_and_one_that_did_not_is_not(server):
    assert got(server.url()) == CONTENT
    server.files["/p.h5"] = OTHER
    assert got(server.url()) == OTHER
    asked = len(server.ranges())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert got(server.url()) == OTHER
    # A byte tells that it is still the same.
    assert server.ranges()[asked:] == ["bytes=0-0"]


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


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(web, "READ_SECONDS", 0.1)
    gate = threading.Event()
    server.before = lambda path: gate.wait(5)
    with pytest.raises(RemoteError, match="no answer in"):
        fetch(as_remote(server.url()))
    gate.set()


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


def test_a_small_file_is_kept_for_when_nobody_answers(server):
    assert fetch_small(as_remote(server.url()), 10**6) == CONTENT
    server.files["/p.h5"] = 503
    with pytest.warns(UserWarning, match="the copy in the cache"):
        assert fetch_small(as_remote(server.url()), 10**6) == CONTENT


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
