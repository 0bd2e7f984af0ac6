import zlib

import h5py
import numpy as np
import pytest

from edgeprune_formats import (
    ConfigError,
    PackChecksumError,
    PackLayoutError,
    PackLimitError,
    PackVersionError,
    codecs,
    open_pack,
    verify_pack,
)
from edgeprune_formats.codecs import codec_names, get_codec
from edgeprune_formats.coefficients import SparseCoefficients, pack_positions, position_dtype


class Rounded(codecs.Codec):
    """One deflated stream of int16 values and their positions."""

    name = "test-rounded"

    def fields(self, header):
        return (codecs.Field("stream", np.dtype(np.uint8), None),)

    def encode(self, header, coefficients, mask, *, rounding):
        shape = (len(coefficients), header.channels, header.components)
        values = np.rint(coefficients[mask] * 100).astype("<i2").reshape(shape)
        flat = np.nonzero(mask.reshape(shape[0] * shape[1], -1))[1].reshape(shape)
        positions = pack_positions(flat, header.height, header.width)
        raw = zlib.compress(values.tobytes() + positions.tobytes())
        return {"stream": np.frombuffer(raw, np.uint8)}

    def encode_coefficients(self, header, coefficients):
        raw = zlib.compress(
            np.rint(coefficients.values * 100).astype("<i2").tobytes() + coefficients.positions.tobytes()
        )
        return {"stream": np.frombuffer(raw, np.uint8)}

    def problems(self, header, arrays):
        try:
            length = len(zlib.decompress(arrays["stream"].tobytes()))
        except zlib.error as error:
            return [("stream", f"does not inflate: {error}")]
        each = (
            header.channels * header.components * (2 + position_dtype(header.height, header.width).itemsize)
        )
        return [("stream", f"{length} B")] if length % each else []

    def decode(self, header, arrays, samples):
        raw = zlib.decompress(arrays["stream"].tobytes())
        dtype = position_dtype(header.height, header.width)
        count = len(raw) // (2 + dtype.itemsize)
        shape = (-1, header.channels, header.components)
        values = np.frombuffer(raw, "<i2", count).reshape(shape).astype(np.float32) / np.float32(100)
        return SparseCoefficients(values, np.frombuffer(raw, dtype, count, 2 * count).reshape(shape))


@pytest.fixture
def registered():
    codecs.register(Rounded())
    yield
    codecs._CODECS.pop(Rounded.name)


@pytest.fixture
def streamed(registered, tools, tmp_path):
    """A pack of 3 chunks whose streams differ in length."""
    return tools.write(tmp_path / "p.h5", tools.header(codec=Rounded.name), pieces=[2, 5])


def offsets_of(file):
    return file["samples/stream_offsets"][...]


def set_offsets(file, offsets):
    file["samples/stream_offsets"][...] = offsets
    crc = zlib.crc32(np.asarray(offsets, "<u8").tobytes())
    file["samples/stream_offsets"].attrs["crc32"] = np.uint32(crc)


def test_registered_codec_is_known(registered):
    assert Rounded.name in codec_names()
    assert list(codec_names()) == sorted(codec_names())
    assert get_codec(Rounded.name).name == Rounded.name


@pytest.mark.parametrize("name", ["quantized", Rounded.name])
def test_a_name_is_registered_once(registered, name):
    class Another(Rounded):
        pass

    Another.name = name
    kept = get_codec(name)
    with pytest.raises(ConfigError, match=f"codec '{name}' is registered already"):
        codecs.register(Another())
    assert get_codec(name) is kept


def test_unknown_codec_names_the_known():
    with pytest.raises(ConfigError, match="sparse-f32"):
        get_codec("test-rounded")


def test_stream_round_trip(streamed, tools):
    np.testing.assert_allclose(tools.read_dense(streamed.path), streamed.dense, atol=0.005001)
    assert verify_pack(streamed.path, isolated=False) == []
    with h5py.File(streamed.path, "r") as file:
        offsets = offsets_of(file)
        assert offsets[0] == 0
        assert (np.diff(offsets.astype(int)) > 0).all()
        assert len(file["samples/stream"]) == offsets[-1]


def test_streams_are_stored_once_and_alike(streamed, tools, tmp_path):
    again = tools.write(tmp_path / "q.h5", streamed.header)
    assert again.path.read_bytes() == streamed.path.read_bytes()


def test_reader_without_the_codec(streamed, tools):
    kept = codecs._CODECS.pop(Rounded.name)
    try:
        tools.assert_refused(streamed.path, PackVersionError, "/ attribute codec: ", "test-rounded")
    finally:
        codecs.register(kept)


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_corrupted_stream(streamed, tools, chunk):
    with h5py.File(streamed.path, "r+") as file:
        place = int(offsets_of(file)[chunk + 1]) - 3
        file["samples/stream"][place] ^= 0x10
    tools.assert_refused(
        streamed.path, PackChecksumError, f"/samples/stream chunk {chunk}: ", "copy the file"
    )
    assert len(verify_pack(streamed.path, isolated=False)) == 1


def test_corrupted_stream_with_a_right_checksum(streamed, tools):
    with h5py.File(streamed.path, "r+") as file:
        start, stop = (int(v) for v in offsets_of(file)[1:3])
        file["samples/stream"][stop - 3] ^= 0x10
        file["samples/stream_crc32"][1] = zlib.crc32(file["samples/stream"][start:stop].tobytes())
    tools.assert_refused(streamed.path, PackLayoutError, "/samples/stream chunk 1: ", "does not inflate")


def test_corrupted_offsets(streamed, tools):
    with h5py.File(streamed.path, "r+") as file:
        file["samples/stream_offsets"][1] += 1
    tools.assert_refused(streamed.path, PackChecksumError, "/samples/stream_offsets: ", "checksum")


@pytest.mark.parametrize("kind", ["descending", "beyond the stream", "beyond int64"])
def test_offsets_that_make_no_sense(streamed, tools, kind):
    with h5py.File(streamed.path, "r+") as file:
        offsets = offsets_of(file)
        if kind == "descending":
            offsets[1], offsets[2] = offsets[2], offsets[1]
        elif kind == "beyond the stream":
            offsets[3] += 1
        else:
            offsets[3] = 2**64 - 1
        set_offsets(file, offsets)
    problems = verify_pack(streamed.path, isolated=False)
    assert problems
    assert all(problem.location.startswith("/samples/stream") for problem in problems)
    assert {problem.kind for problem in problems} <= {"layout", "limit", "checksum"}
    with pytest.raises((PackLayoutError, PackLimitError, PackChecksumError)):
        tools.read_dense(streamed.path)


@pytest.mark.parametrize("name", ["stream", "stream_offsets", "stream_crc32"])
def test_part_of_a_stream_missing(streamed, tools, name):
    with h5py.File(streamed.path, "r+") as file:
        del file["samples"][name]
    tools.assert_refused(streamed.path, PackLayoutError, f"/samples/{name}: ", "missing")


def test_stream_of_a_giant_declared_length(streamed, tools):
    with h5py.File(streamed.path, "r+") as file:
        del file["samples/stream"]
        file["samples"].create_dataset("stream", (2**40,), "u1")
    tools.assert_refused(streamed.path, PackLimitError, "/samples/stream: ")


@pytest.mark.parametrize("options", [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"}])
def test_stream_behind_an_hdf5_filter(streamed, tools, options):
    with h5py.File(streamed.path, "r+") as file:
        data = file["samples/stream"][...]
        del file["samples/stream"]
        file["samples"].create_dataset("stream", data=data, maxshape=(None,), chunks=(2**20,), **options)
    word = "filters" if options["compression"] == "lzf" else "chunked"
    tools.assert_refused(streamed.path, PackLayoutError, "/samples/stream: ", word)


def test_stream_cannot_carry_more_than_its_file(streamed, tools):
    with h5py.File(streamed.path, "r+") as file:
        data = file["samples/stream"][...]
        del file["samples/stream"]
        file["samples"].create_dataset("stream", data=np.stack([data, data]))
    tools.assert_refused(streamed.path, PackLayoutError, "/samples/stream: ", "shape")


def test_pack_reads_after_its_codec_is_registered_again(streamed, tools):
    with open_pack(streamed.path, isolated=False) as pack:
        kept = codecs._CODECS.pop(Rounded.name)
        with pytest.raises(ConfigError, match="unknown codec"):
            pack.read_chunk(0)
        codecs.register(kept)
        assert len(pack.read_chunk(0)) == 3
