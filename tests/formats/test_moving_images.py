"""Images that go from pack to pack as they are stored."""

import errno
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from random_coefficients import header_of, quantized_pack, random_coefficients

from edgeprune_formats import ConfigError, PackWriteError, PackWriter, open_pack, verify_pack
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coefficients import QuantizedCoefficients
from edgeprune_formats.packs import writer as writer_module
from edgeprune_formats.packs.transactions import pack_transaction

KINDS = [
    ("sparse-f32", (12, 20), {}),
    ("sparse-f16", (12, 20), {}),
    ("sparse-f16", (5, 300), {}),
    ("quantized", (12, 20), {}),
    ("quantized", (37, 50), {"tile": "16", "color": "ycbcr"}),
]
ARGUMENTS = ("codec", "size", "options")


def coefficients_of(header):
    coefficients = random_coefficients(header)
    if header.codec == "sparse-f16":
        return replace(coefficients, values=coefficients.values.astype("<f2").astype(np.float32))
    return coefficients


def whole(path):
    with open_pack(path) as pack:
        coefficients = pack.empty_coefficients(len(pack))
        for chunk in range(pack.header.chunks):
            coefficients.write(pack.header.chunk_rows(chunk).start, pack.read_chunk(chunk))
    return coefficients


def arrays_of(coefficients):
    return vars(coefficients).values()


def writer_of(path, header, **options):
    labels = np.arange(header.samples) % len(header.class_names)
    return PackWriter(path, header, labels, np.arange(header.samples), **options)


def store(path, header, coefficients, pieces=None, **options):
    with writer_of(path, header, **options) as writer:
        start = 0
        for count in pieces or [len(coefficients)]:
            writer.append_coefficients(coefficients.take(slice(start, start + count)))
            start += count
    return path


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [[9], [1, 0, 5, 3]])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(ARGUMENTS, KINDS)
def test_coefficients_come_back_bit_for_bit(tmp_path, codec, size, options, compression, pieces):
    header = header_of(codec, size, **options)
    coefficients = coefficients_of(header)
    path = store(tmp_path / "p.h5", header, coefficients, pieces, compression=compression)
    assert verify_pack(path) == []
    read = whole(path)
    assert read.values.tobytes() == coefficients.values.tobytes()
    if isinstance(coefficients, QuantizedCoefficients):
        diagonal = np.add.outer(*map(np.arange, header.tile_shape)).reshape(-1)
        assert (np.where(coefficients.values != 0, diagonal, 0).max(axis=-1) <= read.extents).all()
    else:
        assert read.positions.tobytes() == coefficients.positions.tobytes()
    with open_pack(path) as pack:
        assert pack.compression == ("none" if codec == "quantized" else compression)


@pytest.mark.parametrize(ARGUMENTS, KINDS)
def test_images_of_any_pack_and_chunk_keep_all_that_their_pack_has(tmp_path, codec, size, options):
    header = header_of(codec, size, **options)
    first = store(tmp_path / "a.h5", header, coefficients_of(header))
    given = whole(first)
    order = np.random.default_rng(3).permutation(len(given))
    shuffled = given.take(order)
    other = replace(header, chunk_samples=2)
    again = whole(store(tmp_path / "b.h5", other, shuffled))
    for one, two in zip(arrays_of(again), arrays_of(shuffled), strict=True):
        assert one.tobytes() == two.tobytes()


@pytest.mark.slow
def test_what_the_encoder_wrote_is_written_alike(tmp_path):
    path = quantized_pack(tmp_path / "p.h5", tile="8", color="ycbcr")
    with open_pack(path) as pack:
        codec = get_codec("quantized")
        for chunk in range(pack.header.chunks):
            stored = pack.read_payload(chunk)
            coefficients = pack.decode_payload(chunk, stored)
            again = codec.encode_coefficients(pack.header, coefficients)
            assert again["payload"].tobytes() == stored["payload"].tobytes()


def test_levels_that_differ_by_more_than_16_bits_come_back(tmp_path):
    header = header_of("quantized", (16, 16), tile="8", samples=4)
    shape = (4, 3, 4)
    values = np.zeros((*shape, 64), np.int16)
    values[..., 0] = np.where(np.arange(4) % 2, 2**15 - 1, -(2**15))
    coefficients = QuantizedCoefficients(values, np.zeros(shape, np.uint16))
    assert whole(store(tmp_path / "p.h5", header, coefficients)).values.tobytes() == values.tobytes()


def test_coefficients_of_another_layout_or_shape_are_refused(tmp_path):
    header = header_of("sparse-f32", (12, 20))
    others = [header_of("quantized", (12, 20)), replace(header, components=7)]
    for other in others:
        with pytest.raises(ConfigError, match="must be as"), writer_of(tmp_path / "p.h5", header) as writer:
            writer.append_coefficients(random_coefficients(other))
    with pytest.raises(ConfigError, match="more than the 9"), writer_of(tmp_path / "p.h5", header) as writer:
        writer.append_coefficients(random_coefficients(replace(header, samples=10)))
    with pytest.raises(ConfigError, match="8 of the 9"), writer_of(tmp_path / "p.h5", header) as writer:
        writer.append_coefficients(random_coefficients(replace(header, samples=8)))
    assert list(tmp_path.iterdir()) == []


def test_spectra_and_coefficients_do_not_mix(tools, tmp_path):
    header = header_of("sparse-f32", (12, 20))
    coefficients, mask, _ = tools.spectra(header)

    def mix():
        with writer_of(tmp_path / "p.h5", header) as writer:
            writer.append(coefficients[:2], mask[:2])
            writer.append_coefficients(random_coefficients(header).take(slice(2, 9)))

    with pytest.raises(ConfigError, match="not in both"):
        mix()
    assert list(tmp_path.iterdir()) == []


def three(folder):
    header = header_of("sparse-f32", (12, 20))
    return header, coefficients_of(header), [folder / f"{name}.h5" for name in "abc"]


@pytest.mark.parametrize("sealed", [True, False])
def test_packs_appear_together(tmp_path, sealed):
    header, coefficients, paths = three(tmp_path)
    with pack_transaction() as enter:
        for path in paths:
            writer = enter(writer_of(path, header))
            writer.append_coefficients(coefficients)
            if sealed:
                writer.seal()
        assert not any(path.exists() for path in paths)
    assert sorted(tmp_path.iterdir()) == paths
    assert all(verify_pack(path) == [] for path in paths)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError])
def test_an_error_leaves_none_of_them(tmp_path, error):
    header, coefficients, paths = three(tmp_path)

    def fail():
        with pack_transaction() as enter:
            for path in paths[:2]:
                writer = enter(writer_of(path, header))
                writer.append_coefficients(coefficients)
                writer.seal()
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_one_that_lacks_images_leaves_none_of_them(tmp_path):
    header, coefficients, paths = three(tmp_path)

    def write():
        with pack_transaction() as enter:
            for path, count in zip(paths, (9, 9, 4), strict=True):
                enter(writer_of(path, header)).append_coefficients(coefficients.take(slice(count)))

    with pytest.raises(ConfigError, match="4 of the 9"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blocked", [0, 1, 2])
def test_a_name_that_cannot_be_taken_leaves_none_of_them(tmp_path, blocked):
    header, coefficients, paths = three(tmp_path)

    def write():
        with pack_transaction() as enter:
            for path in paths:
                enter(writer_of(path, header)).append_coefficients(coefficients)
            paths[blocked].mkdir()

    with pytest.raises(PackWriteError, match=paths[blocked].name):
        write()
    assert list(tmp_path.iterdir()) == [paths[blocked]]


def test_a_disk_that_fails_once_all_have_their_names_takes_none_away(tmp_path, monkeypatch):
    header, coefficients, paths = three(tmp_path)

    def failing(path):
        raise OSError(errno.EIO, "Input/output error")

    def write():
        with pack_transaction() as enter:
            for path in paths:
                enter(writer_of(path, header)).append_coefficients(coefficients)
            for writer_path in paths:
                assert not writer_path.exists()
            monkeypatch.setattr("edgeprune_formats.packs.transactions.sync", failing)

    with pytest.raises(PackWriteError, match="Input/output error"):
        write()
    assert sorted(tmp_path.iterdir()) == paths
    assert all(verify_pack(path) == [] for path in paths)


@pytest.mark.parametrize("nth", [0, 2])
@pytest.mark.parametrize("had", [True, False])
def test_a_signal_while_they_get_their_names_takes_none_away(tmp_path, monkeypatch, nth, had):
    header, coefficients, paths = three(tmp_path)
    if had:
        for path in paths:
            path.write_bytes(b"older")
    publish, calls = writer_module.publish, []

    def interrupted(*about, **options):
        calls.append(about)
        if len(calls) == nth + 1:
            os.kill(os.getpid(), signal.SIGINT)
        publish(*about, **options)

    def write():
        with pack_transaction() as enter:
            for path in paths:
                enter(writer_of(path, header)).append_coefficients(coefficients)

    monkeypatch.setattr(writer_module, "publish", interrupted)
    # A shell ignores SIGINT for what it starts in the background.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sorted(tmp_path.iterdir()) == paths
    assert all(verify_pack(path) == [] for path in paths)
