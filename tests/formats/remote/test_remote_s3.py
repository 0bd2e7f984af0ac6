"""A far pack in S3, as moto imitates it."""

import warnings

import pytest

from edgeprune_formats import RemoteError, open_pack, verify_pack
from edgeprune_formats.packs import remote as far
from edgeprune_formats.packs.remote import look_into
from edgeprune_formats.remote import ranges
from edgeprune_formats.remote.locations import as_remote


@pytest.fixture
def bucket(monkeypatch):
    """A function that puts bytes under a key."""
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setattr(far, "examine", lambda path, *, verify: verify_pack(path))
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    yield lambda key, content: files.pipe_file(f"bucket/{key}", content)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_packs_in_s3_are_fetched_and_looked_into(bucket, sample, monkeypatch):
    content = sample.path.read_bytes()
    bucket("deep/p.h5", content)
    with open_pack("s3://bucket/deep/p.h5") as pack:
        assert (len(pack), pack.fetched.url) == (7, "s3://bucket/deep/p.h5")
        digest = pack.fetched.sha256
    monkeypatch.setattr(ranges, "BLOCK", 1024)
    with look_into(as_remote("s3://bucket/deep/p.h5"), pytest.fail) as pack:
        assert 0 < pack.ranges.bytes_read < pack.file_bytes == len(content)
    bucket("deep/p.h5", b"x" + content)
    with pytest.raises(RemoteError, match=digest[::-1]):
        open_pack(f"s3://bucket/deep/p.h5#sha256={digest[::-1]}")
    with pytest.raises(RemoteError, match="there is no such file"):
        open_pack("s3://bucket/deep/q.h5")
    # Of the digest there is a copy, whatever lies there now.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_pack(f"s3://bucket/deep/p.h5#sha256={digest}").close()
