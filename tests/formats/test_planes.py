"""Packs of 1 to 32 channels, of 8 or 16 bits: all codecs, in C and in numpy."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from plane_packs import encoded_pixels, plane_header, plane_pack, plane_pixels, plane_spectra

from edgeprune_formats import ConfigError, PackFormatError, PackWriter, open_pack, verify_pack
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coding import native
from edgeprune_formats.coding.kernels import NumpyKernels
from edgeprune_formats.tiles import color_spaces

CHANNELS = [1, 2, 3, 4, 13, 14, 32]
CODEC = get_codec("quantized")


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", CHANNELS)
def test_c_and_numpy_encode_planes_to_the_same_bytes(monkeypatch, compiled, channels, bits):
    pixels = plane_pixels(9, channels, 19, 21, bits)
    header = plane_header(pixels, tile="8", chunk_samples=9, color_space=color_spaces(channels)[-1])
    made = []
    for kernels in (compiled, NumpyKernels()):
        monkeypatch.setattr("edgeprune_formats.codecs.quantized.encoding_kernels", lambda k=kernels: k)
        made.append(CODEC.encode_pixels(header, pixels))
    assert made[0][0]["payload"].tobytes() == made[1][0]["payload"].tobytes()
    assert made[0][1] == pytest.approx(made[1][1], rel=1e-6)
    decoded = CODEC.decode(header, made[0][0], 9)
    spectra = plane_spectra(header, pixels)
    assert made[0][1] == pytest.approx(decoded.squared_error(header, spectra), rel=1e-4)
    assert made[0][1] / pixels.size < header.step**2


@pytest.mark.first_are_quick(3)
@pytest.mark.parametrize("channels", CHANNELS)
def test_c_and_numpy_decode_planes_to_the_same_integers(monkeypatch, channels):
    if native._library() is None:
        pytest.skip("no compiled decoder here")
    pixels = plane_pixels(5, channels, 16, 16, 16)
    header = plane_header(pixels, chunk_samples=5)
    arrays, _ = CODEC.encode_pixels(header, pixels)
    ours = CODEC.decode(header, arrays, 5)
    monkeypatch.setattr("edgeprune_formats.codecs.quantized.decode_native", lambda *given: None)
    reference = CODEC.decode(header, arrays, 5)
    np.testing.assert_array_equal(ours.values, reference.values)
    np.testing.assert_array_equal(ours.extents, reference.extents)


def test_a_gray_pack_is_one_plane_of_that_of_three_equal_planes():
    gray = plane_pixels(12, 1, 24, 24)
    one, error = encoded_pixels(plane_header(gray, chunk_samples=12), gray)
    color = np.repeat(gray, 3, axis=1)
    three, error_of_three = encoded_pixels(plane_header(color, chunk_samples=12), color)
    for plane in range(3):
        np.testing.assert_array_equal(three.values[:, plane], one.values[:, 0])
    assert error_of_three == pytest.approx(3 * error, rel=1e-5)


def test_16_bits_that_hold_8_bit_pixels_give_nearly_the_same_integers():
    pixels = plane_pixels(12, 4, 16, 16)
    wide = pixels.astype(np.uint16) * 257
    eight, _ = encoded_pixels(plane_header(pixels, chunk_samples=12), pixels)
    sixteen, _ = encoded_pixels(plane_header(wide, chunk_samples=12), wide)
    assert (eight.values != sixteen.values).mean() < 1e-3


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize("codec", ["sparse-f32", "sparse-f16", "quantized"])
@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 16), (4, 16), (32, 8)])
def test_files_keep_channels_and_bits(tmp_path, codec, channels, bits):
    pixels = plane_pixels(5, channels, 8, 12, bits)
    header = plane_header(pixels, codec)
    path = plane_pack(tmp_path / "pack.h5", header, pixels)
    assert verify_pack(path) == []
    with open_pack(path) as pack:
        facts = (pack.header.channels, pack.header.bits, pack.header.color_space, pack.header.std)
        assert facts == (channels, bits, color_spaces(channels)[0], header.std)
        error = sum(
            pack.read_chunk(chunk).squared_error(header, plane_spectra(header, pixels[rows]))
            for chunk, rows in ((c, list(header.chunk_rows(c))) for c in range(header.chunks))
        )
    bound = {"sparse-f32": 1e-12, "sparse-f16": 1e-6, "quantized": header.step**2}[codec]
    assert error / pixels.size < bound


def test_packs_of_8_bits_say_nothing_of_bits(tmp_path):
    pixels = plane_pixels(2, 3, 8, 8)
    path = plane_pack(tmp_path / "pack.h5", plane_header(pixels), pixels)
    with h5py.File(path) as file:
        assert "bits" not in file.attrs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"channels": 33, "mean": (0.5,) * 33, "std": (1.0,) * 33, "color_space": "planes"},
            "between 1 and 32",
        ),
        ({"channels": 0, "mean": (), "std": ()}, "between 1 and 32"),
        ({"bits": 12}, "12 is not 8 or 16"),
        ({"color_space": "rgb"}, "'rgb' with 4 channels; known: planes"),
        ({"color_space": "gray"}, "'gray' with 4 channels; known: planes"),
        ({"channels": 1, "mean": (0.5,), "std": (1.0,)}, "'planes' with 1 channels; known: gray"),
        (
            {"channels": 3, "mean": (0.5,) * 3, "std": (1.0,) * 3},
            "'planes' with 3 channels; known: rgb, ycbcr",
        ),
        ({"mean": (0.5,) * 3}, "not one finite number a channel"),
        ({"height": 2**12, "width": 2**12 + 1, "components": 1, "tile": "8"}, "exceeds 67108864 values"),
    ],
)
def test_headers_that_are_none_are_refused_by_the_writer(tmp_path, changes, words):
    header = replace(plane_header(plane_pixels(2, 4, 8, 8)), **changes)
    with pytest.raises(ConfigError, match=words):
        PackWriter(tmp_path / "pack.h5", header, np.zeros(2, int), np.arange(2))
    assert list(tmp_path.iterdir()) == []


def _set(name, value):
    def change(file):
        file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("bits", np.int64(4)), "bits: 4 is not 8 or 16"),
        (_set("bits", np.float64(16)), "bits: of the wrong type"),
        (_set("bits", np.array([16, 16])), "bits: of shape"),
        (_set("channels", np.int64(5)), "mean"),
        (_set("channels", np.int64(2**40)), "mean"),
        (_set("color_space", np.bytes_("gray")), "'gray' with 4 channels"),
        (_set("format_version", np.bytes_("1.2")), "EdgePack 1.2 has no images of 4 channels"),
    ],
)
def test_files_whose_header_is_none_are_refused(tmp_path, change, words):
    pixels = plane_pixels(2, 4, 8, 8, 16)
    path = plane_pack(tmp_path / "pack.h5", plane_header(pixels), pixels)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(PackFormatError, match=words) as caught, open_pack(path, isolated=False):
        pass
    assert caught.value.problem in verify_pack(path, isolated=False)


def test_bits_mean_nothing_in_a_file_of_an_earlier_version(tmp_path):
    pixels = plane_pixels(2, 3, 8, 8, 16)
    path = plane_pack(tmp_path / "pack.h5", plane_header(pixels), pixels)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.bytes_("1.2")
    with open_pack(path, isolated=False) as pack:
        assert pack.header.bits == 8


def test_a_step_too_small_for_16_bit_integers_is_refused():
    pixels = np.zeros((2, 1, 32, 32), np.uint16)
    with pytest.raises(ConfigError, match="a coefficient exceeds 16 bits"):
        CODEC.encode_pixels(plane_header(pixels, step=2e-4), pixels)
