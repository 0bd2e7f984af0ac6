import json
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_formats import FORMAT_VERSION, PackWriter, open_pack, verify_pack
from edgeprune_formats.coefficients import (
    SparseCoefficients,
    column_bits,
    pack_positions,
    position_dtype,
    unpack_positions,
)
from edgeprune_formats.packs.chunks import plan_chunk_samples

SIZES = {
    "32x32": {"height": 32, "width": 32, "components": 512},
    "12x20": {},
    "224x224": {"samples": 3, "height": 224, "width": 224, "components": 100, "chunk_samples": 2},
    "300x300": {"samples": 3, "height": 300, "width": 300, "components": 100, "chunk_samples": 2},
    "one component": {"components": 1},
    "all components": {"components": 240},
    "one image": {"samples": 1, "chunk_samples": 1},
    "one chunk": {"chunk_samples": 7},
    "image by image": {"chunk_samples": 1},
}


def read_plainly(path):
    """Dense spectra by h5py and numpy from the layout alone."""
    with h5py.File(path, "r") as file:
        values = file["samples/values"][...]
        packed = file["samples/indices"][...].astype(np.int64)
        samples, channels, height, width = (
            int(file.attrs[name]) for name in ("samples", "channels", "height", "width")
        )
    bits = 0
    while 2**bits < width:
        bits += 1
    rows, columns = packed // 2**bits, packed % 2**bits
    dense = np.zeros((samples, channels, height, width), np.float32)
    for image in range(samples):
        for channel in range(channels):
            dense[image, channel, rows[image, channel], columns[image, channel]] = values[image, channel]
    return dense


def pieces_of(samples):
    """Odd piece sizes that do not fit the chunks: 1, 3, 2, 5, 1, 3 ..."""
    pieces, sizes = [], (1, 3, 2, 5)
    while sum(pieces) < samples:
        pieces.append(min(sizes[len(pieces) % 4], samples - sum(pieces)))
    return pieces


@pytest.mark.parametrize("scored", [True, False])
def test_scores_come_back_exactly_or_are_none(tools, tmp_path, scored):
    made = tools.write(tmp_path / "p.h5", scored=scored)
    with open_pack(made.path) as pack:
        assert pack.header.format_version == FORMAT_VERSION
        if scored:
            assert pack.scores.dtype == np.float32
            assert pack.scores.tobytes() == made.scores.tobytes()
        else:
            assert pack.scores is None
    assert verify_pack(made.path) == []


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("size", SIZES)
def test_comes_back_exactly(tools, tmp_path, size, compression):
    header = tools.header(**SIZES[size])
    pieces = pieces_of(header.samples)
    made = tools.write(tmp_path / "p.h5", header, compression=compression, pieces=pieces)
    with open_pack(made.path) as pack:
        assert pack.header == header
        assert len(pack) == header.samples
        assert pack.labels.dtype == pack.source_index.dtype == np.int64
        assert pack.labels.tolist() == made.labels.tolist()
        assert pack.source_index.tolist() == made.source_index.tolist()
        for chunk in range(header.chunks):
            coefficients = pack.read_chunk(chunk)
            rows = header.chunk_rows(chunk)
            assert coefficients.values.dtype == np.float32
            assert coefficients.values.shape == (len(rows), 3, header.components)
            dense = coefficients.to_dense(header.height, header.width)
            np.testing.assert_array_equal(dense, made.dense[rows.start : rows.stop])
    assert verify_pack(made.path) == []


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("size", "dtype"), [("32x32", "<u2"), ("12x20", "<u2"), ("224x224", "<u2"), ("300x300", "<u4")]
)
def test_layout_is_open_to_plain_h5py(tools, tmp_path, size, dtype, compression):
    header = tools.header(**SIZES[size])
    made = tools.write(tmp_path / "p.h5", header, compression=compression)
    with h5py.File(made.path, "r") as file:
        shape = (header.samples, 3, header.components)
        assert file["samples/values"].shape == file["samples/indices"].shape == shape
        assert file["samples/values"].dtype == np.dtype("<f4")
        assert file["samples/indices"].dtype == np.dtype(dtype)
        assert file["labels"][...].tolist() == made.labels.tolist()
        assert file["source_index"][...].tolist() == made.source_index.tolist()
        assert [name.decode() for name in file["class_names"][...]] == ["ant", "bee", "Käfer"]
        assert json.loads(file["provenance"][()]) == header.provenance
        assert file.attrs["format"] == b"edgepack"
        assert file.attrs["format_version"] == FORMAT_VERSION.encode()
        assert file["scores"].dtype == np.dtype("<f4")
        assert file["scores"].chunks is None
        assert file["scores"][...].tolist() == made.scores.tolist()
        assert file.attrs["mean"].tolist() == [0.5, 0.25, 0.125]
    np.testing.assert_array_equal(read_plainly(made.path), made.dense)


def test_uncompressed_takes_six_bytes_a_coefficient(tools, tmp_path):
    header = tools.header(samples=8, height=32, width=32, components=512, chunk_samples=4)
    made = tools.write(tmp_path / "p.h5", header)
    with h5py.File(made.path, "r") as file:
        stored = [file["samples"][name].id.get_storage_size() for name in ("values", "indices")]
    assert stored == [8 * 3 * 512 * 4, 8 * 3 * 512 * 2]
    # Table 5 of the paper: 9216 bytes an image at 50% pruning.
    assert sum(stored) == 8 * 9216 == 8 * SparseCoefficients.image_bytes(header)
    assert made.path.stat().st_size < sum(stored) + 10_000


def test_above_sixteen_bits_takes_eight_bytes_a_coefficient(tools, tmp_path):
    header = tools.header(samples=2, height=300, width=300, components=50, chunk_samples=1)
    made = tools.write(tmp_path / "p.h5", header)
    with h5py.File(made.path, "r") as file:
        stored = [file["samples"][name].id.get_storage_size() for name in ("values", "indices")]
    assert stored == [2 * 3 * 50 * 4] * 2


def test_gzip_is_smaller_on_compressible_spectra(tools, tmp_path):
    header = tools.header(components=240)
    sizes = [
        tools.write(tmp_path / name, header, compression=name).path.stat().st_size
        for name in ("none", "gzip")
    ]
    assert sizes[1] < sizes[0]


@pytest.mark.slow
@pytest.mark.skipif(h5py.version.hdf5_version_tuple < (2, 0, 0), reason="older HDF5 stores times")
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_same_input_gives_the_same_bytes(tools, tmp_path, compression):
    first = tools.write(tmp_path / "first.h5", compression=compression)
    time.sleep(1.1)  # HDF5 counts in seconds: a time stored anywhere in the file would differ.
    second = tools.write(tmp_path / "second.h5", compression=compression, pieces=[2, 1, 4])
    assert first.path.read_bytes() == second.path.read_bytes()


def test_special_float_values_come_back_bit_for_bit(tools, tmp_path):
    header = tools.header(samples=1, chunk_samples=1, components=240)
    made = tools.write(tmp_path / "p.h5", header)
    extreme = [0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 1.1754944e-38, 1 / 3]
    coefficients = np.resize(np.array(extreme, np.float32), (1, 3, 12, 20))
    with PackWriter(made.path, header, np.zeros(1, int), np.zeros(1, int)) as writer:
        writer.append(coefficients, np.ones(coefficients.shape, bool))
    assert tools.read_dense(made.path).tobytes() == coefficients.tobytes()


@settings(max_examples=60, deadline=None, database=None)
@given(height=st.integers(1, 2**16), width=st.integers(1, 2**16), data=st.data())
def test_positions_round_trip(height, width, data):
    largest = height * width - 1
    flat = [*sorted(data.draw(st.sets(st.integers(0, largest), max_size=20))), largest]
    packed = pack_positions(np.array(flat), height, width)
    rows, columns = unpack_positions(packed, width)
    assert [divmod(position, width) for position in flat] == list(zip(rows, columns, strict=True))
    assert packed.tolist() == [(p // width) << column_bits(width) | p % width for p in flat]
    assert packed.dtype == position_dtype(height, width)


@pytest.mark.parametrize(
    ("height", "width", "bits", "itemsize"),
    [(1, 1, 0, 2), (12, 20, 5, 2), (32, 32, 5, 2), (256, 256, 8, 2), (257, 256, 8, 4), (65536, 65536, 16, 4)],
)
def test_position_width(height, width, bits, itemsize):
    assert column_bits(width) == bits
    assert position_dtype(height, width).itemsize == itemsize


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(1, 10**6), st.integers(1, 10**7), st.integers(1, 2**26))
def test_planned_chunks_are_nearly_equal_and_bounded(samples, sparse_bytes, image_values):
    size = plan_chunk_samples(samples, sparse_bytes, image_values)
    chunks = -(-samples // size)
    assert 1 <= size <= min(samples, 4096)
    assert size == 1 or size * sparse_bytes <= 2**21
    assert size == 1 or size * image_values <= 2**24
    assert 0 <= chunks * size - samples <= chunks
