"""Bounds of what a reader computes or shows, held before anything is allocated by it."""

import json
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from edgeprune_formats import (
    ConfigError,
    PackFormatError,
    PackLayoutError,
    PackLimitError,
    PackVersionError,
    open_pack,
)
from edgeprune_formats.codecs import sparse_f16
from edgeprune_formats.coding import native
from edgeprune_formats.coding import payload as payload_module
from edgeprune_formats.coding.kernels import NumpyKernels
from edgeprune_formats.coding.payload import decode_payload, encode_payload, parse_payload
from edgeprune_formats.coding.rans import SYMBOLS_PER_LANE, StreamError
from edgeprune_formats.packs.header_checks import header_problems
from edgeprune_formats.packs.provenance import parse_provenance
from edgeprune_formats.tiles import scan_order


@pytest.mark.parametrize(("chunk_samples", "sound"), [(32, True), (33, False)])
def test_bitmaps_of_a_chunk(tools, chunk_samples, sound):
    # 4 bytes of bitmaps a frequency for 32 images: 2^28 in all.
    header = tools.header(
        samples=100, height=4096, width=5461, components=1, codec="sparse-f16", chunk_samples=chunk_samples
    )
    header = replace(header, channels=3)
    found = [problem for problem in header_problems(header) if "bitmaps" in problem.message]
    assert [problem.kind for problem in found] == [] if sound else ["limit"]


def test_bitmaps_beyond_the_bound_are_refused_before_they_are_read(tools, tmp_path, monkeypatch):
    header = tools.header(samples=16, codec="sparse-f16", chunk_samples=16)
    made = tools.write(tmp_path / "p.h5", header)
    monkeypatch.setattr(sparse_f16, "MAX_BITMAP_BYTES", 3 * 12 * 20 * 2 - 1)
    tools.assert_refused(made.path, PackLimitError, "/ attribute chunk_samples: ", "bitmaps of 1440 B")
    with pytest.raises(ConfigError, match="bitmaps"):
        tools.write(tmp_path / "other.h5", header)


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 20])
def test_bitmaps_are_listed_eight_images_at_a_time(tools, samples):
    mask = np.zeros((samples, 3, 40), bool)
    order = np.argsort(np.random.default_rng(0).random(mask.shape), axis=2)[..., :5]
    np.put_along_axis(mask, order, True, axis=2)
    bitmaps = np.packbits(mask.transpose(1, 2, 0), axis=2)
    positions = np.zeros((samples, 3, 5), np.uint16)
    packed = np.arange(40, dtype=np.uint32) * 3
    assert sparse_f16._list(bitmaps, packed, positions)
    np.testing.assert_array_equal(positions, np.sort(order, axis=2) * 3)
    bitmaps[1, 7, -1] ^= 128
    assert not sparse_f16._list(bitmaps, packed, positions)


def payload_with_lanes(tiles, lanes, monkeypatch):
    scan = scan_order(8, 8)
    # None is zero, so that all are coded, and a band for each tile.
    values = np.random.default_rng(0).integers(1, 20, (64, tiles)).astype(np.int32)
    monkeypatch.setattr(payload_module, "SYMBOLS_PER_LANE", 65 * tiles // lanes)
    return parse_payload(encode_payload([values], scan, NumpyKernels()), 1, 64), scan


def decode_compiled(payload, scan, tiles):
    if native.decode_native(payload, scan, tiles, 1, np.empty((tiles, 1, 1, 64), np.int16)) is None:
        decode_payload(payload, scan, tiles)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("lanes", [1, 2])
def test_states_for_the_symbols(monkeypatch, lanes):
    most = 2 * SYMBOLS_PER_LANE * lanes // 65
    for tiles, sound in ((most, True), (most + 1, False)):
        payload, scan = payload_with_lanes(tiles, lanes, monkeypatch)
        assert len(payload.states) == lanes
        for decode in (decode_payload, decode_compiled):
            if sound:
                decode(payload, scan, tiles)
            else:
                with pytest.raises(StreamError, match="too few states"):
                    decode(payload, scan, tiles)


def nested(depth):
    return json.loads('{"a":' * (depth - 1) + "{}" + "}" * (depth - 1))


def put_provenance(tools, path, text):
    with h5py.File(path, "r+") as file:
        tools.put(file, "provenance", np.array(text.encode(), h5py.string_dtype("utf-8", len(text.encode()))))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (json.dumps(nested(65)), "deeper"),
        ("[" * 5000 + "]" * 5000, "deeper"),
        ('{"a": [' + "[" * 63 + "]" * 63 + "]}", "deeper"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"b": {"a": 1, "a": 1}}', "twice"),
        ('{"a": ' + "9" * 400 + "}", "too large"),
        ('{"a": [-' + "9" * 400 + "]}", "too large"),
        ('{"a": ' + "9" * 5000 + "}", "not a JSON object"),
        ('{"a": 1e400}', "not a JSON object"),
        ('{"a": NaN}', "NaN"),
    ],
    ids=range(10),
)
def test_provenance_that_readers_do_not_read_alike(tools, sample, text, word):
    put_provenance(tools, sample.path, text)
    tools.assert_refused(sample.path, PackLayoutError, "/provenance: not a JSON object", word)


def test_provenance_at_its_bounds(tools, sample, tmp_path):
    put_provenance(tools, sample.path, json.dumps(nested(64)))
    open_pack(sample.path, isolated=False).close()
    assert parse_provenance(b'{"a": ' + b"9" * 300 + b"}") == {"a": 10**300 - 1}
    for wrong in (nested(65), {"seed": 10**400}):
        with pytest.raises(ConfigError, match="provenance"):
            tools.write(tmp_path / "p.h5", tools.header(provenance=wrong))


@pytest.mark.parametrize(("size", "sound"), [(4096, True), (4097, False)])
def test_length_of_names(tools, sample, size, sound):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "class_names", np.array([b"a", b"b", b"c"], f"S{size}"))
    if sound:
        assert open_pack(sample.path, isolated=False).header.class_names == ("a", "b", "c")
    else:
        tools.assert_refused(sample.path, PackLimitError, "/class_names: ", "4097 B each")


@pytest.mark.parametrize("version", ["\u0661.\u0662", "1.\u0663", "1.3", "1." + "9" * 400])
def test_digits_of_the_version(tools, sample, version):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["format_version"] = np.bytes_(version.encode())
    if version == "1.3":
        open_pack(sample.path, isolated=False).close()
    else:
        tools.assert_refused(sample.path, PackVersionError, "/ attribute format_version: ", "not MAJOR.MINOR")


CHOSEN = {"coreset": {"score": "el2n", "keep_end": "high"}}


def test_scores_that_are_promised_and_absent(tools, tmp_path):
    with pytest.raises(ConfigError, match="`scores`"):
        tools.write(tmp_path / "p.h5", tools.header(provenance=CHOSEN), scored=False)
    made = tools.write(tmp_path / "p.h5", tools.header(provenance=CHOSEN))
    with h5py.File(made.path, "r+") as file:
        del file["scores"]
    tools.assert_refused(made.path, PackLayoutError, "/scores: missing", "provenance")
    for promise in ({"coreset": "el2n"}, {"coreset": {"score": "random"}}, {}):
        put_provenance(tools, made.path, json.dumps(promise))
        with open_pack(made.path, isolated=False) as pack:
            assert pack.scores is None


def test_checksum_of_a_giant_text_is_not_computed(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        del file["provenance"]
        dataset = file.create_dataset("provenance", (), "S20000000")
        dataset[()] = b"{}"
        dataset.attrs["crc32"] = np.uint32(zlib.crc32(b""))
    with pytest.raises(PackFormatError, match="/provenance"):
        open_pack(sample.path, isolated=False)
