import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from random_coefficients import header_of, pixels_of, random_coefficients

from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.coefficients import QuantizedCoefficients, SparseCoefficients
from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.augmentation import Augmentation, draw
from edgeprune_runtime.decode.kernels import library
from edgeprune_runtime.decode.native import NativeDecoder, native_kernel
from edgeprune_runtime.decode.plan import make_plan
from edgeprune_runtime.decode.scipy_backend import ScipyDecoder
from edgeprune_runtime.decode.torch_backend import TorchDecoder

needs_kernel = pytest.mark.skipif(library() is None, reason="the kernel is not compiled here")

SPARSE = [("sparse-f32", size, "full", "rgb") for size in [(32, 32), (20, 12), (1, 7), (64, 64), (33, 64)]]
WHOLE = [
    ("quantized", size, "full", color)
    for size in [(32, 32), (20, 12), (5, 3), (64, 17)]
    for color in ("rgb", "ycbcr")
]
TILES = [
    ("quantized", size, tile, "ycbcr")
    for size in [(96, 64), (50, 70), (17, 5), (32, 32)]
    for tile in ("8", "16", "32")
]
KINDS = SPARSE + WHOLE + TILES
NAMES = ["-".join((codec, "x".join(map(str, size)), tile, color)) for codec, size, tile, color in KINDS]


def decoders(plan):
    """Every way there is to decode a plan on this CPU, by name."""
    torch_alone = TorchDecoder(plan, device="cpu", dtype="float32")
    torch_alone._kernel = None
    found = {"scipy": ScipyDecoder(plan, device="cpu", dtype="float32"), "torch": torch_alone}
    if library() is not None:
        found["native"] = NativeDecoder(plan, device="cpu", dtype="float32")
        found["torch, native"] = TorchDecoder(plan, device="cpu", dtype="float32")
    return found


def resolutions(header):
    """Full size, and a half and a quarter where they are whole."""
    yield None
    for share in (2, 4):
        sides = [side // share for side in header.shape[1:]]
        tiled = header.tile_shape != header.shape[1:]
        if min(sides) and not (tiled and any(side % share for side in header.shape[1:])):
            yield tuple(sides)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "size", "tile", "color"), KINDS, ids=NAMES)
@pytest.mark.parametrize("augment", ["none", "flip", "crop+flip"])
def test_all_decoders_agree_to_1e_5(codec, size, tile, color, augment):
    header = header_of(codec, size, tile=tile, color=color)
    stored = random_coefficients(header)
    rows = np.random.default_rng(1).integers(0, len(stored), 13)
    for resolution in resolutions(header):
        plan = make_plan(header, normalize=False, resolution=resolution)
        crops = draw(augment, seed=0, epoch=0, batch=0, count=13, height=plan.height, width=plan.width)
        images = {name: np.asarray(d.images(stored, rows, crops)) for name, d in decoders(plan).items()}
        for name, found in images.items():
            assert found.shape == (13, 3, plan.height, plan.width)
            np.testing.assert_allclose(found, images["scipy"], atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "size", "tile", "color"), WHOLE + TILES)
@pytest.mark.parametrize("normalize", [False, True])
def test_quantized_images_are_the_inverse_transform_of_their_tiles(codec, size, tile, color, normalize):
    header = header_of(codec, size, tile=tile, color=color)
    stored = random_coefficients(header)
    expected = pixels_of(header, stored)
    if normalize:
        expected = (expected - np.reshape(header.mean, (3, 1, 1))) / np.reshape(header.std, (3, 1, 1))
    plan = make_plan(header, normalize=normalize, resolution=None)
    for name, decoder in decoders(plan).items():
        found = np.asarray(decoder.images(stored, np.arange(len(stored))))
        np.testing.assert_allclose(found, expected, atol=3e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("tile", ["full", "8", "16", "32"])
def test_a_lower_resolution_keeps_the_brightness_of_each_tile(tile):
    header = header_of("quantized", (64, 32), tile=tile, color="ycbcr")
    stored = random_coefficients(header)
    rows = np.arange(len(stored))
    full = pixels_of(header, stored)
    sides = [side // 2 for side in header.tile_shape]
    plan = make_plan(header, normalize=False, resolution=(32, 16))
    for decoder in decoders(plan).values():
        half = np.asarray(decoder.images(stored, rows))
        for image, small in zip(full, half, strict=True):
            means = tile_means(image, header.tile_shape)
            np.testing.assert_allclose(tile_means(small, sides), means, atol=1e-5)


def tile_means(image, sides):
    channels, height, width = image.shape
    shape = channels, height // sides[0], sides[0], width // sides[1], sides[1]
    return image.reshape(shape).mean(axis=(2, 4))


@needs_kernel
@pytest.mark.parametrize("codec", ["sparse-f32", "quantized"])
def test_the_number_of_threads_changes_no_bit(codec):
    header = header_of(codec, (32, 32))
    stored = random_coefficients(header)
    kernel = native_kernel(make_plan(header, normalize=True, resolution=None))
    rows = np.random.default_rng(0).integers(0, len(stored), 200)
    crops = draw("crop+flip", seed=0, epoch=0, batch=0, count=200, height=32, width=32)
    batches = []
    for threads in (1, 2, 5):
        batches.append(np.empty((200, 3, 32, 32), np.float32))
        kernel.decode(stored, rows, crops, batches[-1].ctypes.data, threads)
    assert all(np.array_equal(batch, batches[0]) for batch in batches[1:])


@needs_kernel
def test_positions_outside_the_spectrum_are_written_nowhere():
    header = header_of("sparse-f32", (20, 12), components=50)
    coefficients = random_coefficients(header)
    random = np.random.default_rng(0)
    wild = random.integers(0, 2**16, coefficients.positions.shape).astype(coefficients.positions.dtype)
    plan = make_plan(header, normalize=False, resolution=None)
    decoder = NativeDecoder(plan, device="cpu", dtype="float32")
    sound = decoder.images(coefficients, np.arange(9))
    decoder.images(SparseCoefficients(coefficients.values, wild), np.arange(9))
    np.testing.assert_array_equal(decoder.images(coefficients, np.arange(9)), sound)


@needs_kernel
def test_extents_beyond_the_tile_mean_the_whole_tile():
    header = header_of("quantized", (32, 32), tile="16")
    coefficients = random_coefficients(header)
    plan = make_plan(header, normalize=False, resolution=None)
    decoder = NativeDecoder(plan, device="cpu", dtype="float32")
    beyond = QuantizedCoefficients(coefficients.values, np.full_like(coefficients.extents, 2**16 - 1))
    rows = np.arange(len(coefficients))
    np.testing.assert_allclose(decoder.images(beyond, rows), decoder.images(coefficients, rows), atol=1e-6)


@needs_kernel
@pytest.mark.parametrize("row", [-1, 9, 2**40])
def test_an_image_outside_the_block_is_an_index_error(row):
    header = header_of("quantized", (32, 32))
    plan = make_plan(header, normalize=False, resolution=None)
    decoder = NativeDecoder(plan, device="cpu", dtype="float32")
    with pytest.raises(IndexError):
        decoder.images(random_coefficients(header), np.array([0, row]))


@needs_kernel
@pytest.mark.parametrize(("row", "column"), [(-1, 0), (32, 0), (0, -1), (0, 32)])
def test_a_crop_outside_the_image_is_an_index_error(row, column):
    header = header_of("quantized", (32, 32))
    plan = make_plan(header, normalize=False, resolution=None)
    decoder = NativeDecoder(plan, device="cpu", dtype="float32")
    rows, columns = np.full((1, 32), row), np.full((1, 32), column)
    with pytest.raises(IndexError):
        decoder.images(random_coefficients(header), np.array([0]), Augmentation(rows, columns))


@needs_kernel
def test_the_native_backend_gives_arrays_and_survives_pickling(make_pack):
    path, _ = make_pack(samples=9)
    loader = PackLoader(path, 4, backend="native", normalize=True)
    images, labels = next(iter(loader))
    assert isinstance(images, np.ndarray)
    assert isinstance(labels, np.ndarray)
    again, _ = next(iter(pickle.loads(pickle.dumps(loader))))
    np.testing.assert_array_equal(again, next(iter(PackLoader(path, 4, backend="native", normalize=True)))[0])


@needs_kernel
def test_the_native_backend_says_what_it_cannot_do(make_pack):
    path, _ = make_pack(samples=3, size=(80, 100), components=50)
    with pytest.raises(ConfigError, match=r"up to 64x64, not 80x100; use"):
        PackLoader(path, backend="native")
    small, _ = make_pack("small.h5", samples=3)
    with pytest.raises(ConfigError, match="on the cpu"):
        PackLoader(small, backend="native", device="cuda")
    with pytest.raises(ConfigError, match="not bfloat16"):
        PackLoader(small, backend="native", dtype="bfloat16")
    assert next(iter(PackLoader(small, backend="native", dtype="float16")))[0].dtype == np.float16


WITHOUT = """
import sys
import numpy as np
from edgeprune_formats import ConfigError
from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.kernels import library

assert library() is None
try:
    PackLoader(sys.argv[1], backend="native")
except ConfigError as error:
    assert "compiled kernel" in str(error)
else:
    raise AssertionError("no error")
np.save(sys.argv[2], np.concatenate([np.asarray(images) for images, _ in PackLoader(sys.argv[1], 4)]))
"""


@pytest.mark.slow
def test_everything_but_the_native_backend_works_without_the_kernel(make_pack, tmp_path):
    path, _ = make_pack(samples=9)
    command = [sys.executable, "-c", WITHOUT, str(path), str(tmp_path / "images.npy")]
    environment = {**os.environ, "EDGEPRUNE_NATIVE": "0"}
    subprocess.run(command, env=environment, check=True, timeout=120)
    ours = np.concatenate([np.asarray(images) for images, _ in PackLoader(path, 4, device="cpu")])
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), ours, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "tile", "resolution", "message"),
    [
        ((64, 64), "16", 30, "30 does not fit this pack's tiles of 16 pixels; choose one of 4, 8, 12"),
        ((64, 64), "8", 20, "choose one of 8, 16, 24"),
        ((50, 70), "16", (25, 34), "34 does not fit"),
    ],
)
def test_a_resolution_that_cuts_pixels_is_refused_with_those_that_do_not(size, tile, resolution, message):
    header = header_of("quantized", size, tile=tile)
    with pytest.raises(ConfigError, match=message):
        make_plan(header, normalize=False, resolution=resolution)


@pytest.mark.parametrize(("size", "tile", "half"), [((50, 70), "16", (25, 35)), ((33, 33), "8", (17, 17))])
def test_a_tile_at_the_edge_gives_the_pixels_that_it_touches(size, tile, half):
    header = header_of("quantized", size, tile=tile)
    plan = make_plan(header, normalize=False, resolution=half)
    assert plan.tile == (int(tile) // 2,) * 2
    for decoder in decoders(plan).values():
        assert decoder.images(random_coefficients(header), np.arange(2)).shape == (2, 3, *half)


def test_torch_leaves_large_spectra_to_its_own_products(make_pack):
    path, _ = make_pack(samples=3, size=(80, 100), components=700)
    header = open_pack(path).header
    assert native_kernel(make_plan(header, normalize=False, resolution=None)) is None
    assert isinstance(next(iter(PackLoader(path, 2, device="cpu")))[0], torch.Tensor)
