import subprocess
import sys
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

from edgeprune_formats import (
    PackChecksumError,
    PackFormatError,
    PackLayoutError,
    PackLimitError,
    open_pack,
    verify_pack,
)

# Reads a pack with little more memory than an interpreter that has imported the reader.
CONFINED = """
import resource, sys
from edgeprune_formats import PackFormatError, open_pack, verify_pack
open_pack(sys.argv[1] + ".sound", isolated=False).read_chunk(0)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
problems = verify_pack(sys.argv[1], isolated=False)
try:
    with open_pack(sys.argv[1], isolated=False) as pack:
        for chunk in range(pack.header.chunks):
            pack.read_chunk(chunk)
except PackFormatError as error:
    print(type(error).__name__, str(error))
assert problems and not any("memory" in str(problem).lower() for problem in problems), problems
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_while_refusing(path):
    """Bytes that Python allocates at most while the pack is refused, and the error."""
    tracemalloc.start()
    try:
        with pytest.raises(PackFormatError) as caught:
            read_all(path)
        return tracemalloc.get_traced_memory()[1], caught.value
    finally:
        tracemalloc.stop()


def read_all(path):
    with open_pack(path, isolated=False) as pack:
        assert pack.scores is not None
        for chunk in range(pack.header.chunks):
            pack.read_chunk(chunk)


def hollow(file, name, shape, dtype, **options):
    """A dataset of any declared size that takes no room in the file."""
    crc = file[name].attrs.get("crc32") if name in file else None
    if name in file:
        del file[name]
    dataset = file.create_dataset(name, shape, dtype, **options)
    dataset.attrs["crc32"] = np.uint32(0 if crc is None else crc)


@pytest.mark.parametrize("samples", [10**6, 2**31 - 1])
@pytest.mark.parametrize("declared", ["attribute", "labels", "source_index", "scores", "checksums", "all"])
def test_giant_number_of_samples(tools, sample, samples, declared):
    with h5py.File(sample.path, "r+") as file:
        if declared in ("attribute", "all"):
            file.attrs["samples"] = samples
        if declared in ("labels", "all"):
            hollow(file, "labels", (samples,), "<i4")
        if declared in ("source_index", "all"):
            hollow(file, "source_index", (samples,), "<i8")
        if declared in ("scores", "all"):
            hollow(file, "scores", (samples,), "<f4")
        if declared in ("checksums", "all"):
            hollow(file, "samples/values_crc32", (-(-samples // 3),), "<u4")
        if declared == "all":
            for name, dtype in (("values", "<f4"), ("indices", "<u2")):
                hollow(file, f"samples/{name}", (samples, 3, 40), dtype, chunks=(3, 3, 40))
    peak, error = peak_while_refusing(sample.path)
    assert type(error) in (PackLayoutError, PackLimitError)
    assert peak < 2**20
    assert error.problem in verify_pack(sample.path, isolated=False)


def test_giant_spectra_that_the_file_does_not_hold(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        for name, value in {"height": 4096, "width": 4096, "components": 2**22}.items():
            file.attrs[name] = value
        file.attrs["chunk_samples"] = 1
        for name, dtype in (("values", "<f4"), ("indices", "<u4")):
            shape = (7, 3, 2**22)
            hollow(file, f"samples/{name}", shape, dtype, chunks=(1, *shape[1:]))
            hollow(file, f"samples/{name}_crc32", (7,), "<u4")
            file[f"samples/{name}_crc32"][...] = 0
    peak, error = peak_while_refusing(sample.path)
    assert isinstance(error, PackFormatError)
    assert peak < 2**20


def test_scores_that_the_file_does_not_hold(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        hollow(file, "scores", (7,), "<f4")
    tools.assert_refused(sample.path, PackLimitError, "/scores: ", "does not hold")


@pytest.mark.parametrize("name", ["class_names", "provenance"])
def test_giant_text(tools, sample, name):
    with h5py.File(sample.path, "r+") as file:
        hollow(file, name, (1000,) if name == "class_names" else (), "S2000000000")
    peak, error = peak_while_refusing(sample.path)
    assert (type(error), error.problem.location) == (PackLimitError, f"/{name}")
    assert peak < 2**20


def test_more_classes_than_allowed(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "class_names", np.full(2**20 + 1, b"a"))
    tools.assert_refused(sample.path, PackLimitError, "/class_names: ")


def test_provenance_longer_than_allowed(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        text = b'{"a": "' + b"x" * 2**24 + b'"}'
        tools.put(file, "provenance", np.array(text, f"S{len(text)}"))
    tools.assert_refused(sample.path, PackLimitError, "/provenance: ")


def put_raw(path, name, chunk, raw, filter_mask=0):
    with h5py.File(path, "r+") as file:
        dataset = file["samples"][name]
        start = (chunk * dataset.chunks[0], *(0 for _ in dataset.shape[1:]))
        dataset.id.write_direct_chunk(start, raw, filter_mask)


@pytest.fixture
def large(tools, tmp_path):
    """A gzip pack whose chunks of values are 192 KiB when expanded."""
    header = tools.header(samples=16, height=32, width=32, components=1024, chunk_samples=16)
    return tools.write(tmp_path / "p.h5", header, compression="gzip")


@pytest.mark.slow
def test_deflate_bomb_in_a_chunk_of_allowed_size(tools, large):
    raw = zlib.compress(bytes(150 * 2**20), 9)
    assert len(raw) < 16 * 3 * 1024 * 4
    put_raw(large.path, "values", 0, raw)
    peak, error = peak_while_refusing(large.path)
    assert (type(error), error.problem.location) == (PackChecksumError, "/samples/values chunk 0")
    assert peak < 2 * 2**20
    assert error.problem in verify_pack(large.path, isolated=False)


def test_deflate_bomb_larger_than_its_chunk(tools, gzip_sample):
    put_raw(gzip_sample.path, "values", 1, zlib.compress(bytes(40 * 2**20), 9))
    peak, error = peak_while_refusing(gzip_sample.path)
    assert (type(error), error.problem.location) == (PackLimitError, "/samples/values chunk 1")
    assert peak < 2**20
    assert error.problem in verify_pack(gzip_sample.path, isolated=False)


@pytest.mark.parametrize(
    "raw",
    [zlib.compress(bytes(1439)), zlib.compress(bytes(1441)), zlib.compress(b""), b"\0", b"x" * 90],
    ids=["one byte short", "one byte long", "nothing", "one byte", "no deflate"],
)
def test_chunk_that_does_not_expand_to_its_size(tools, gzip_sample, raw):
    put_raw(gzip_sample.path, "values", 1, raw)
    tools.assert_refused(gzip_sample.path, PackChecksumError, "/samples/values chunk 1: ")


@pytest.mark.parametrize("mask", [1, 2, 3, 0xFFFF])
def test_filters_switched_off_for_a_chunk(tools, gzip_sample, mask):
    put_raw(gzip_sample.path, "values", 1, bytes(1440), mask)
    tools.assert_refused(gzip_sample.path, PackLayoutError, "/samples/values chunk 1: ", "filter mask")


def test_chunk_after_the_end_of_the_deflate_stream_is_ignored_or_refused(tools, gzip_sample):
    with h5py.File(gzip_sample.path, "r") as file:
        raw = file["samples/values"].id.read_direct_chunk((3, 0, 0))[1]
    put_raw(gzip_sample.path, "values", 1, raw + b"appended")
    problems = verify_pack(gzip_sample.path, isolated=False)
    if not problems:
        np.testing.assert_array_equal(tools.read_dense(gzip_sample.path), gzip_sample.dense)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("attack", "kind", "location"),
    [
        ("checksums in a bomb", "PackLayoutError", "/samples/values_crc32"),
        ("deflate bomb", "PackChecksumError", "/samples/values chunk 0"),
        ("giant samples", "PackLimitError", "/labels"),
    ],
)
def test_refused_within_little_memory(tools, sample, large, attack, kind, location):
    path = large.path if attack == "deflate bomb" else sample.path
    path.with_name(path.name + ".sound").write_bytes(path.read_bytes())
    if attack == "deflate bomb":
        put_raw(path, "values", 0, zlib.compress(bytes(150 * 2**20), 9))
    with h5py.File(path, "r+") as file:
        if attack == "giant samples":
            file.attrs["samples"] = 2**31 - 1
            hollow(file, "labels", (2**31 - 1,), "<i4")
        if attack == "checksums in a bomb":
            good = file["samples/values_crc32"][...]
            del file["samples/values_crc32"]
            inflated = 2**26
            dataset = file["samples"].create_dataset(
                "values_crc32",
                (3,),
                "<u4",
                maxshape=(None,),
                chunks=(inflated,),
                compression="gzip",
                shuffle=True,
            )
            # After the shuffle the first bytes of all elements come first, then the second ...
            squeeze = zlib.compressobj(1)
            raw = b""
            for plane in range(4):
                raw += squeeze.compress(bytes(int(crc) >> 8 * plane & 255 for crc in good))
                raw += squeeze.compress(bytes(inflated - 3))
            dataset.id.write_direct_chunk((0,), raw + squeeze.flush())
    command = [sys.executable, "-c", CONFINED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    error, resident = done.stdout.splitlines()
    assert error.startswith(f"{kind} {path}: {location}: ")
    assert int(resident) < 100 * 1024
