"""Headers and random coefficients of every codec, and what they decode to by the book."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.fft import idctn

from edgeprune_formats import PackHeader, PackWriter
from edgeprune_formats.coefficients import QuantizedCoefficients, SparseCoefficients, pack_positions
from edgeprune_formats.tiles import color_matrix, color_shift

SAMPLES = 9


def header_of(codec, size, *, tile="full", color="rgb", components=None, samples=SAMPLES, chunk_samples=4):
    return PackHeader(
        samples=samples,
        channels=3,
        height=size[0],
        width=size[1],
        components=components or max(1, size[0] * size[1] // 2),
        codec=codec,
        chunk_samples=chunk_samples,
        class_names=("cat", "dog", "bird"),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        color_space=color,
        tile=tile,
        step=0.03 if codec == "quantized" else 0.0,
    )


def random_coefficients(header, seed=0):
    random = np.random.default_rng(seed)
    return (quantized_coefficients if header.step else sparse_coefficients)(header, random)


def sparse_coefficients(header, random):
    pixels = header.height * header.width
    shape = (header.samples, header.channels)
    order = random.random((*shape, pixels)).argsort(axis=2)[..., : header.components]
    values = random.normal(size=order.shape).astype(np.float32) * 0.3
    return SparseCoefficients(values, pack_positions(np.sort(order, axis=2), header.height, header.width))


def quantized_coefficients(header, random):
    height, width = header.tile_shape
    tiles = header.grid[0] * header.grid[1]
    shape = (header.samples, header.channels, tiles)
    extents = random.integers(0, height + width - 1, shape)
    extents[random.random(shape) < 0.4] //= 5
    diagonal = np.add.outer(np.arange(height), np.arange(width)).reshape(-1)
    values = np.rint(random.laplace(size=(*shape, height * width)) * 9 / (1 + diagonal))
    values *= diagonal <= extents[..., None]
    return QuantizedCoefficients(values.astype(np.int16), extents.astype(np.uint16))


def pixels_of(header, coefficients):
    """Return the images of quantized coefficients on [0, 1], float64 [n, C, H, W]."""
    n, channels, _, _ = coefficients.values.shape
    (down, across), (height, width) = header.grid, header.tile_shape
    spectra = coefficients.values.reshape(n, channels, down, across, height, width) * header.step
    tiles = idctn(spectra, axes=(4, 5), norm="ortho").swapaxes(3, 4)
    planes = tiles.reshape(n, channels, down * height, across * width)[..., : header.height, : header.width]
    shifted = planes + color_shift(header.color_space)[:, None, None]
    return np.einsum("ij,njhw->nihw", color_matrix(header.color_space), shifted)


def quantized_pack(path, **options):
    """Write a pack of smooth random images, 53 of 32x32 in chunks of 7 unless `options` say otherwise."""
    path.write_bytes(_quantized_pack(**options))
    return path


@cache
def _quantized_pack(*, size=(32, 32), samples=53, chunk_samples=7, **options):
    """Return the bytes of such a pack; encoding it takes a second."""
    header = header_of(
        "quantized",
        size,
        components=size[0] * size[1],
        samples=samples,
        chunk_samples=chunk_samples,
        **options,
    )
    random = np.random.default_rng(0)
    fading = 1 / (1 + np.add.outer(np.arange(size[0]), np.arange(size[1]))) ** 2
    spectra = random.normal(size=(samples, 3, *size)) * fading * np.sqrt(size[0] * size[1]) * 0.3
    labels = random.integers(0, 3, samples)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pack.h5"
        with PackWriter(path, header, labels, np.arange(samples)) as writer:
            writer.append(spectra.astype(np.float32), np.ones(spectra.shape, bool))
        return path.read_bytes()
