"""The parts of the coding of `quantized`: order of frequencies, prediction, ranges, and streams."""

import numpy as np
import pytest

from edgeprune_formats.coding import native
from edgeprune_formats.coding.kernels import NumpyKernels
from edgeprune_formats.coding.payload import (
    decode_payload,
    encode_payload,
    parse_payload,
    predict_dc,
    restore_dc,
)
from edgeprune_formats.coding.rans import Decoder, StreamError, encode, lookup_table, normalized
from edgeprune_formats.tiles import scan_order


def outcome(payload, scan, compiled):
    """What a stream decodes to, int16 [C, F, N], or why it does not."""
    values = np.zeros((40, 3, 1, len(scan.raster)), np.int16)
    try:
        if compiled:
            native.decode_native(payload, scan, 40, 1, values)
            return values[..., scan.raster].transpose(1, 2, 3, 0).reshape(3, 40, -1).tolist()
        planes, _ = decode_payload(payload, scan, 40)
    except StreamError as error:
        return str(error)
    for number, plane in enumerate(planes):
        values[:, number, 0, scan.raster] = plane
    return values[..., scan.raster].transpose(1, 2, 3, 0).reshape(3, 40, -1).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_values_beyond_16_bits_wrap_alike_in_both_decoders(seed):
    if native._library() is None:
        pytest.skip("no compiled decoder here")
    random = np.random.default_rng(seed)
    scan = scan_order(5, 5)
    planes = [np.rint(random.normal(0, 5000, (25, 40))).astype(np.int32) for _ in range(3)]
    for plane in planes:
        # Of the last classes, and -1 in 16 bits: a context that takes its magnitude for 1 or for 15 differs.
        plane[random.random(plane.shape) < 0.15] = 65535
    payload = parse_payload(encode_payload(planes, scan, NumpyKernels()), 3, 25)
    assert outcome(payload, scan, True) == outcome(payload, scan, False)


@pytest.mark.parametrize("shape", [(5, 7), (8, 8), (1, 1), (1, 6)])
def test_any_integers_come_back(shape):
    random = np.random.default_rng(3)
    scan, places = scan_order(*shape), shape[0] * shape[1]
    scale = np.geomspace(9000, 0.05, places)[:, None]
    planes = [np.rint(random.normal(size=(places, 50)) * scale / 2).astype(np.int32) for _ in range(3)]
    planes[2][:] = 0
    payload = parse_payload(encode_payload(planes, scan, NumpyKernels()), 3, places)
    decoded, _ = decode_payload(payload, scan, 50)
    for plane, values in zip(planes, decoded, strict=True):
        np.testing.assert_array_equal(plane, values)


def test_dc_prediction_comes_back():
    values = np.random.default_rng(0).integers(-20000, 20000, (3, 2, 12, 4)).astype(np.int16)
    changed = np.ascontiguousarray(values.transpose(1, 3, 0, 2).reshape(2, 4, 36))
    predict_dc(changed, (3, 4))
    narrow = changed.reshape(2, 4, 3, 12).transpose(2, 0, 3, 1).copy()
    assert (narrow[..., 0] != values[..., 0]).any()
    restore_dc(narrow, (3, 4))
    np.testing.assert_array_equal(narrow, values)


def test_scan_covers_every_frequency_once():
    scan = scan_order(5, 9)
    assert sorted(scan.raster.tolist()) == list(range(45))
    assert scan.last_of_band[0] == 0
    assert scan.last_of_band[-1] == 12
    earlier = np.where(scan.neighbors == 45, -1, scan.neighbors)
    assert (earlier < np.arange(45)[:, None]).all()


def test_ranges_come_back_and_approach_the_entropy():
    random = np.random.default_rng(1)
    share = np.array([0.9, 0.06, 0.03, 0.01])
    symbols = random.choice(4, 40_000, p=share)
    counts = np.bincount(symbols, minlength=16)[None]
    frequencies = normalized(counts)
    assert frequencies.sum() == 4096
    rows = np.zeros(len(symbols), int)
    states, words = encode([(rows[:101], symbols[:101]), (rows[101:], symbols[101:])], frequencies, 16)
    decoder = Decoder(lookup_table(frequencies), states, words)
    found = np.concatenate([decoder.run(rows[:101]), decoder.run(rows[101:])])
    decoder.finish()
    np.testing.assert_array_equal(found, symbols)
    entropy = -(share * np.log2(share)).sum() * len(symbols) / 8
    assert 2 * len(words) < 1.02 * entropy + 64
    with pytest.raises(StreamError):
        Decoder(lookup_table(frequencies), states, words[:-1]).run(rows)


def test_a_decoder_of_another_version_is_left_alone(monkeypatch):
    class Library:
        def ep_interface(self):
            return native.INTERFACE - 1

    monkeypatch.setattr(native, "load_library", lambda folder: Library())
    assert native._library.__wrapped__() is None
    monkeypatch.setattr(native, "load_library", lambda folder: object())
    assert native._library.__wrapped__() is None
