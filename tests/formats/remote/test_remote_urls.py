"""What is taken for a URL, and what of it is shown."""

from pathlib import Path

import pytest

from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.remote.locations import RemoteFile, as_remote, without_credentials

pytest.importorskip("aiohttp")
pytest.importorskip("fsspec")


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
        "http:///p.h5",
        "https://a:se-cret@/p.h5",
        "http://:80/p.h5",
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
