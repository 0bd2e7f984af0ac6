from dataclasses import replace

import numpy as np
import pytest

from edgeprune_formats import (
    ConfigError,
    PackFormatError,
    PackLayoutError,
    PackWriter,
    codecs,
    open_pack,
    verify_pack,
)
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coding import native
from edgeprune_formats.coding.payload import parse_payload
from edgeprune_formats.coding.rounding import ROUNDINGS
from edgeprune_formats.coefficients import QuantizedCoefficients
from edgeprune_formats.tiles import dct_basis, from_tiles, to_tiles

CODEC = get_codec("quantized")


def spectra_of(samples, height, width, seed=0):
    """Spectra of smooth random images on [0, 1], and the images."""
    random = np.random.default_rng(seed)
    fall = 1 / (1 + np.add.outer(np.arange(height), np.arange(width))) ** 1.5
    spectra = random.normal(size=(samples, 3, height, width)) * fall * 4
    spectra[:, :, 0, 0] += 0.5 * np.sqrt(height * width)
    images = dct_basis(height).T @ spectra @ dct_basis(width)
    return spectra.astype(np.float32), images


def header_of(tools, samples=40, height=32, width=32, tile="full", color="ycbcr", step=0.05, chunk=None):
    header = tools.header(samples=samples, height=height, width=width, components=height * width)
    return replace(
        header,
        codec="quantized",
        tile=tile,
        color_space=color,
        step=step,
        chunk_samples=chunk or samples,
    )


def write(path, header, spectra, rounding="deadzone"):
    labels = np.arange(header.samples) % len(header.class_names)
    mask = np.ones(spectra.shape, bool)
    with PackWriter(path, header, labels, np.arange(header.samples), rounding=rounding) as writer:
        writer.append(spectra, mask)
        writer.finish()
        return writer.squared_error


def pixels_of(path):
    with open_pack(path) as pack:
        header = pack.header
        parts = [pack.read_chunk(chunk) for chunk in range(header.chunks)]
    values = np.concatenate([part.values for part in parts]) * header.step
    size = (header.height, header.width)
    return from_tiles(values, header.tile_shape, header.grid, size, header.color_space) + 0.5


SIZES = [
    (32, 32, "full"),
    (32, 32, "8"),
    (24, 40, "full"),
    (50, 37, "8"),
    (50, 37, "16"),
    (64, 96, "32"),
    (1, 1, "full"),
    (1, 9, "8"),
]


@pytest.mark.slow
@pytest.mark.parametrize("color", ["rgb", "ycbcr"])
@pytest.mark.parametrize(("height", "width", "tile"), SIZES)
def test_round_trip_is_within_the_step(tools, tmp_path, height, width, tile, color):
    header = header_of(tools, 9, height, width, tile, color, step=0.01, chunk=4)
    spectra, images = spectra_of(9, height, width)
    error = write(tmp_path / "p.h5", header, spectra)
    decoded = pixels_of(tmp_path / "p.h5")
    assert decoded.shape == images.shape
    assert np.sqrt(np.mean((decoded - images) ** 2)) < 0.02
    assert np.sum((decoded - images) ** 2) == pytest.approx(error, rel=1e-3)
    assert verify_pack(tmp_path / "p.h5") == []


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_smaller_steps_cost_bytes_and_gain_quality(tools, tmp_path, rounding):
    spectra, _ = spectra_of(64, 32, 32)
    errors, sizes = [], []
    for number, step in enumerate((0.4, 0.2, 0.1, 0.05, 0.02)):
        path = tmp_path / f"{number}.h5"
        errors.append(write(path, header_of(tools, 64, step=step), spectra, rounding))
        sizes.append(path.stat().st_size)
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)


@pytest.mark.slow
def test_rdo_costs_less_at_equal_error(tools, tmp_path):
    spectra, _ = spectra_of(400, 32, 32)

    def cost(rounding, step):
        path = tmp_path / f"{rounding}{step}.h5"
        error = write(path, header_of(tools, 400, step=step), spectra, rounding)
        with open_pack(path) as pack:
            return error, pack.payload_bytes

    error, size = cost("rdo", 0.08)
    steps = np.geomspace(0.07, 0.1, 6)
    errors, sizes = np.array([cost("deadzone", step) for step in steps]).T
    assert errors[0] < error < errors[-1]
    assert size < np.interp(error, errors, sizes)


def test_nearest_is_within_half_a_step(tools, tmp_path):
    spectra, _ = spectra_of(20, 32, 32)
    header = header_of(tools, 20, color="rgb", step=0.1)
    write(tmp_path / "p.h5", header, spectra, "nearest")
    with open_pack(tmp_path / "p.h5") as pack:
        values = np.concatenate([pack.read_chunk(chunk).values for chunk in range(pack.header.chunks)])
    # The mean of an image lies around half of the range in a pack.
    expected = to_tiles(spectra, header.tile_shape, header.grid, "rgb") / header.step
    np.testing.assert_array_equal(values, np.rint(expected))


def test_masked_components_are_dropped(tools, tmp_path):
    spectra, _ = spectra_of(6, 16, 16)
    header = replace(header_of(tools, 6, 16, 16, color="rgb", step=0.01), components=30)
    mask = np.zeros(spectra.shape, bool)
    mask.reshape(6, 3, -1)[:, :, :30] = True
    with PackWriter(tmp_path / "p.h5", header, np.zeros(6, int), np.arange(6)) as writer:
        writer.append(spectra, mask)
    with open_pack(tmp_path / "p.h5") as pack:
        values = pack.read_chunk(0).values
    assert not values[..., 30:].any()
    assert values[..., :30].any()


@pytest.fixture(params=["built", "scalar"])
def native_decoder(request, monkeypatch):
    """The compiled decoder, and the same without vectors."""
    if request.param == "scalar":
        library = request.getfixturevalue("scalar_library")
        monkeypatch.setattr(native, "_library", lambda: library)
    elif native._library() is None:
        pytest.skip("no compiled decoder here")


@pytest.mark.slow
@pytest.mark.usefixtures("native_decoder")
@pytest.mark.parametrize(("height", "width", "tile"), SIZES)
def test_native_and_numpy_decode_alike(tools, monkeypatch, height, width, tile):
    header = header_of(tools, 70, height, width, tile, step=0.01)
    spectra, _ = spectra_of(70, height, width)
    arrays = CODEC.encode(header, spectra, np.ones(spectra.shape, bool))
    native = CODEC.decode(header, arrays, 70)
    monkeypatch.setattr("edgeprune_formats.codecs.quantized.decode_native", lambda *_: None)
    plain = CODEC.decode(header, arrays, 70)
    assert isinstance(plain, QuantizedCoefficients)
    np.testing.assert_array_equal(native.values, plain.values)
    np.testing.assert_array_equal(native.extents, plain.extents)


def test_nothing_lies_beyond_the_extents(tools):
    header = header_of(tools, 30, 48, 48, "16")
    spectra, _ = spectra_of(30, 48, 48)
    coefficients = CODEC.decode(header, CODEC.encode(header, spectra, np.ones(spectra.shape, bool)), 30)
    diagonal = np.add.outer(np.arange(16), np.arange(16)).reshape(-1)
    assert not coefficients.values[diagonal > coefficients.extents[..., None]].any()
    assert coefficients.extents.max() < 30


def test_tiles_come_back():
    spectra, images = spectra_of(3, 21, 34)
    tiles = to_tiles(spectra, (8, 8), (3, 5), "ycbcr")
    assert tiles.shape == (3, 3, 15, 64)
    pixels = from_tiles(tiles, (8, 8), (3, 5), (21, 34), "ycbcr") + 0.5
    np.testing.assert_allclose(pixels, images, atol=2e-5)


def decoded(header, payload):
    """What a chunk of all images decodes to; None where it is refused."""
    try:
        return CODEC.decode(header, {"payload": payload}, header.samples)
    except codecs.ContentError:
        return None


@pytest.fixture(scope="module")
def damaged(tools):
    """A header, and damaged payloads of it with what the slow decoder, that of numpy, makes of them."""
    count = 120
    header = header_of(tools, count, 16, 16, "8", step=0.02)
    spectra, _ = spectra_of(count, 16, 16)
    payload = CODEC.encode(header, spectra, np.ones(spectra.shape, bool))["payload"]
    assert len(parse_payload(payload.data, 3, 64).states) > 8
    random, found = np.random.default_rng(5), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeprune_formats.codecs.quantized.decode_native", lambda *_: None)
        for trial in range(80):
            raw = payload.copy()
            if trial % 4 == 0:
                raw = raw[: random.integers(len(raw))]
            else:
                raw[random.integers(len(raw))] ^= 1 << random.integers(8)
            found.append((raw, decoded(header, raw)))
    return header, found


@pytest.mark.slow
@pytest.mark.usefixtures("native_decoder")
def test_damaged_payloads_end_alike_in_both_decoders(damaged):
    header, found = damaged
    for trial, (raw, other) in enumerate(found):
        one = decoded(header, raw)
        assert (one is None) == (other is None), trial
        if one is not None:
            np.testing.assert_array_equal(one.values, other.values)
            np.testing.assert_array_equal(one.extents, other.extents)
    assert 40 < sum(other is None for _, other in found) < 80


def test_a_wrong_payload_with_a_right_checksum_is_refused(tools, tmp_path):
    header = header_of(tools, 12, 16, 16)
    spectra, _ = spectra_of(12, 16, 16)
    path = tmp_path / "p.h5"
    write(path, header, spectra)
    import zlib

    import h5py

    with h5py.File(path, "r+") as file:
        payload = file["samples/payload"]
        payload[-1] = payload[-1] ^ 0xFF
        payload[-9] = payload[-9] ^ 0xFF
        file["samples/payload_crc32"][0] = zlib.crc32(payload[...].tobytes())
    with pytest.raises(PackLayoutError, match="/samples/payload chunk 0"), open_pack(path) as pack:
        pack.read_chunk(0)
    assert [problem.kind for problem in verify_pack(path)] == ["layout"]


@pytest.mark.parametrize(
    "change",
    [
        {"step": 0.0},
        {"step": -1.0},
        {"step": float("nan")},
        {"tile": "12"},
        {"color_space": "lab"},
        {"codec": "sparse-f32", "step": 0.0, "color_space": "ycbcr"},
        {"codec": "sparse-f16", "step": 0.0, "color_space": "rgb", "tile": "8"},
        {"height": 300, "width": 300, "components": 9},
    ],
)
def test_headers_that_make_no_sense(tools, tmp_path, change):
    header = replace(header_of(tools), **change)
    with pytest.raises(ConfigError):
        PackWriter(tmp_path / "p.h5", header, np.zeros(40, int), np.arange(40))


def test_too_fine_a_step_is_refused(tools, tmp_path):
    spectra, _ = spectra_of(4, 128, 128)
    with pytest.raises(ConfigError, match="16 bits; lower the quality"):
        write(tmp_path / "p.h5", header_of(tools, 4, 128, 128, step=1e-5), spectra)
    assert list(tmp_path.iterdir()) == []


def test_missing_step_is_named(tools, tmp_path):
    import h5py

    path = tmp_path / "p.h5"
    write(path, header_of(tools, 5, 16, 16), spectra_of(5, 16, 16)[0])
    with h5py.File(path, "r+") as file:
        del file.attrs["step"]
    with pytest.raises(PackFormatError, match="attribute step: missing"):
        open_pack(path)
