"""The encoder of `quantized` in C against the one in numpy, and from pixels against from spectra."""

from dataclasses import replace

import numpy as np
import pytest

from edgeprune_formats import ConfigError
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coding import native
from edgeprune_formats.coding.kernels import NumpyKernels
from edgeprune_formats.coding.rounding import ROUNDINGS
from edgeprune_formats.tiles import dct_basis

CODEC = get_codec("quantized")


def images_of(samples, height, width, seed=0):
    """Pixels with the spectrum of photographs: smooth, with some noise."""
    random = np.random.default_rng(seed)
    rough = random.normal(size=(samples, 3, height, width))
    for axis in (2, 3):
        for _ in range(3):
            rough = (rough + np.roll(rough, 1, axis)) / 2
    return np.clip(rough * 400 + 128 + random.normal(size=rough.shape), 0, 255).astype(np.uint8)


def header_of(tools, samples, height, width, tile="full", color="ycbcr", step=0.05):
    header = tools.header(samples=samples, height=height, width=width, components=height * width)
    changes = {"codec": "quantized", "tile": tile, "color_space": color, "step": step}
    return replace(header, chunk_samples=samples, **changes)


def encoded(monkeypatch, kernels, header, pixels, rounding="rdo"):
    monkeypatch.setattr("edgeprune_formats.codecs.quantized.encoding_kernels", lambda: kernels)
    arrays, error = CODEC.encode_pixels(header, pixels, rounding=rounding)
    return arrays["payload"].tobytes(), error


def spectra_of(pixels):
    height, width = pixels.shape[2:]
    return (dct_basis(height) @ (pixels / 255) @ dct_basis(width).T).astype(np.float32)


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    ("samples", "height", "width", "tile", "color", "step"),
    [
        (40, 32, 32, "full", "ycbcr", 0.05),
        (70, 28, 28, "full", "rgb", 0.001),
        (13, 33, 47, "8", "ycbcr", 0.02),
        (3, 100, 75, "32", "rgb", 0.01),
        (2, 90, 131, "16", "ycbcr", 0.2),
        (30, 80, 81, "8", "ycbcr", 0.1),
        (3, 5, 7, "full", "rgb", 0.1),
        (1, 1, 1, "full", "rgb", 0.1),
    ],
)
def test_c_and_numpy_encode_to_the_same_bytes(
    tools, monkeypatch, compiled, samples, height, width, tile, color, step, rounding
):
    header = header_of(tools, samples, height, width, tile, color, step)
    pixels = images_of(samples, height, width)
    ours, error = encoded(monkeypatch, compiled, header, pixels, rounding)
    reference, same = encoded(monkeypatch, NumpyKernels(), header, pixels, rounding)
    assert ours == reference
    assert error == pytest.approx(same, rel=1e-6)


@pytest.mark.parametrize("kind", ["black", "white", "noise", "one pixel", "checkerboard"])
def test_c_and_numpy_agree_on_images_that_are_no_photographs(tools, monkeypatch, kind):
    if native._library() is None:
        pytest.skip("no compiled encoder here")
    pixels = np.full((65, 3, 16, 16), 255 if kind == "white" else 0, np.uint8)
    if kind == "noise":
        pixels[...] = np.random.default_rng(2).integers(0, 256, pixels.shape)
    if kind == "one pixel":
        pixels[64, 2, 15, 15] = 255
    if kind == "checkerboard":
        pixels[:, :, ::2, ::2] = pixels[:, :, 1::2, 1::2] = 255
    for step in (0.0005, 0.3):
        header = header_of(tools, 65, 16, 16, "8", step=step)
        ours, _ = encoded(monkeypatch, native.encoding_kernels(), header, pixels)
        assert ours == encoded(monkeypatch, NumpyKernels(), header, pixels)[0]
        decoded = CODEC.decode(header, {"payload": np.frombuffer(ours, np.uint8)}, 65)
        assert decoded.squared_error(header, spectra_of(pixels)) / pixels.size < step**2


def test_integers_of_the_widest_range_are_coded_alike(monkeypatch, tools):
    if native._library() is None:
        pytest.skip("no compiled encoder here")
    random = np.random.default_rng(4)
    header = header_of(tools, 9, 16, 16, "8")
    coefficients = CODEC.layout.empty(header, 9)
    coefficients.values[...] = random.integers(-(2**15), 2**15, coefficients.values.shape)
    coefficients.values[random.random(coefficients.values.shape) < 0.6] = 0
    made = []
    for kernels in (native.encoding_kernels(), NumpyKernels()):
        monkeypatch.setattr("edgeprune_formats.codecs.quantized.encoding_kernels", lambda k=kernels: k)
        made.append(CODEC.encode_coefficients(header, coefficients)["payload"])
    np.testing.assert_array_equal(*made)
    decoded = CODEC.decode(header, {"payload": made[0]}, 9)
    np.testing.assert_array_equal(decoded.values, coefficients.values)


@pytest.mark.parametrize(
    ("height", "width", "tile", "color"),
    [(24, 24, "full", "rgb"), (30, 45, "8", "ycbcr"), (40, 16, "16", "rgb")],
)
def test_pixels_and_their_spectra_give_the_same_pack(tools, height, width, tile, color):
    header = header_of(tools, 20, height, width, tile, color, step=0.03)
    pixels = images_of(20, height, width, seed=6)
    arrays, error = CODEC.encode_pixels(header, pixels)
    spectra = spectra_of(pixels)
    others = CODEC.encode(header, spectra, np.ones(spectra.shape, bool))
    ours, theirs = (CODEC.decode(header, one, 20) for one in (arrays, others))
    # A coefficient halfway between two integers may fall to either side.
    assert (ours.values != theirs.values).mean() < 1e-3
    assert error == pytest.approx(ours.squared_error(header, spectra), rel=1e-5)


@pytest.mark.slow
def test_encoding_of_one_thread_leaves_that_of_another_alone(tools):
    from concurrent.futures import ThreadPoolExecutor

    header = header_of(tools, 30, 32, 32)
    batches = [images_of(30, 32, 32, seed) for seed in range(6)]
    one_by_one = [CODEC.encode_pixels(header, batch)[0]["payload"].tobytes() for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: CODEC.encode_pixels(header, batch)[0]["payload"], batches * 3))
    assert [payload.tobytes() for payload in together] == one_by_one * 3


@pytest.mark.parametrize("kernels", [NumpyKernels(), None])
def test_coefficients_beyond_16_bits_are_refused(tools, monkeypatch, kernels):
    header = header_of(tools, 2, 32, 32, step=2e-4)
    with pytest.raises(ConfigError, match="16 bits"):
        encoded(monkeypatch, kernels or native.encoding_kernels(), header, np.zeros((2, 3, 32, 32), np.uint8))


def test_a_codec_of_spectra_takes_no_pixels(tools):
    with pytest.raises(NotImplementedError):
        get_codec("sparse-f32").encode_pixels(tools.header(), np.zeros((1, 3, 8, 8), np.uint8))
