import zlib
from dataclasses import replace

import numpy as np
import pytest

from edgeprune_formats import open_pack, verify_pack
from edgeprune_formats.codecs import ContentError, get_codec
from edgeprune_formats.coefficients import pack_positions


def test_sparse_f16_halves_values_and_keeps_positions(tools, tmp_path):
    header = tools.header()
    single = tools.write(tmp_path / "single.h5", header)
    half = tools.write(tmp_path / "half.h5", replace(header, codec="sparse-f16"))
    with open_pack(single.path) as one, open_pack(half.path) as other:
        for chunk in range(one.header.chunks):
            first, second = one.read_chunk(chunk), other.read_chunk(chunk)
            np.testing.assert_array_equal(first.positions, second.positions)
            np.testing.assert_array_equal(first.values.astype(np.float16), second.values)
    assert verify_pack(half.path) == []
    with open_pack(single.path) as one, open_pack(half.path) as other:
        assert other.payload_bytes < one.payload_bytes / 2


@pytest.mark.slow
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [(12, 20), (300, 200)])
def test_sparse_f16_refuses_bitmaps_of_another_count(tools, monkeypatch, native, size):
    if not native:
        monkeypatch.setattr("edgeprune_formats.codecs.sparse_f16.positions_native", lambda *_: None)
    codec = get_codec("sparse-f16")
    header = tools.header(codec="sparse-f16", samples=77, height=size[0], width=size[1])
    spectra, mask, _ = tools.spectra(header)
    samples = len(mask)
    arrays = codec.encode(header, spectra, mask)
    coefficients = codec.decode(header, arrays, samples)
    flat = np.nonzero(mask.reshape(samples * header.channels, -1))[1]
    np.testing.assert_array_equal(coefficients.positions.ravel(), pack_positions(flat, *size))
    other = codec.encode(header, spectra, np.roll(mask, 1, axis=3))
    codec.decode(header, {**arrays, "positions": other["positions"]}, samples)

    def refused(mask):
        bitmap = np.packbits(mask.reshape(len(mask), -1).T, axis=1).tobytes()
        stream = np.frombuffer(zlib.compress(bitmap), np.uint8)
        with pytest.raises(ContentError, match=r"not exactly \d+ positions"):
            codec.decode(header, {**arrays, "positions": stream}, samples)

    more, fewer = mask.copy(), mask.copy()
    more[0, 0] = True
    fewer[-1, -1] = False
    refused(more)
    refused(fewer)
    assert samples % 8
    refused(np.concatenate([mask, mask[:1]]))
    cut = {**arrays, "positions": arrays["positions"][:-12]}
    with pytest.raises(ContentError, match="in place of"):
        codec.decode(header, cut, samples)
