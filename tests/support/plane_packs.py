"""Packs of images of any number of channels, of 8 or 16 bits."""

import numpy as np

from edgeprune_formats import PackHeader, PackWriter
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.tiles import color_spaces, dct_basis


def plane_pixels(samples, channels, height, width, bits=8, seed=0):
    """Smooth random pixels, uint8 or uint16 [n, C, H, W]."""
    random = np.random.default_rng(seed)
    rough = random.normal(size=(samples, channels, height, width))
    for axis in (2, 3):
        for _ in range(3):
            rough = (rough + np.roll(rough, 1, axis)) / 2
    noisy = rough * 1.6 + 0.5 + random.normal(size=rough.shape) / 255
    scaled = np.rint(np.clip(noisy, 0, 1) * (2**bits - 1))
    return scaled.astype(np.uint16 if bits == 16 else np.uint8)


def plane_header(pixels, codec="quantized", **changes):
    """The header of a pack of these pixels, all components kept."""
    n, channels, height, width = pixels.shape
    facts = {
        "samples": n,
        "channels": channels,
        "height": height,
        "width": width,
        "components": height * width,
        "codec": codec,
        "chunk_samples": max(1, n // 2),
        "class_names": ("cat", "dog"),
        "mean": (0.5,) * channels,
        "std": tuple((0.2 + 0.01 * np.arange(channels)).tolist()),
        "color_space": color_spaces(channels)[0],
        "step": 0.02 if codec == "quantized" else 0.0,
        "bits": 8 * pixels.itemsize,
    }
    return PackHeader(**(facts | changes))


def plane_spectra(header, pixels):
    """The spectra of whole images, float32 [n, C, H, W]."""
    scaled = pixels / (2**header.bits - 1)
    return (dct_basis(header.height) @ scaled @ dct_basis(header.width).T).astype(np.float32)


def plane_pack(path, header, pixels):
    """Write a pack of these pixels."""
    labels = np.arange(header.samples) % 2
    with PackWriter(path, header, labels, np.arange(header.samples)) as writer:
        writer.append(plane_spectra(header, pixels), np.ones(pixels.shape, bool))
    return path


def encoded_pixels(header, pixels):
    """The integers of pixels that `quantized` encodes, as one chunk, and their squared error."""
    codec = get_codec("quantized")
    arrays, error = codec.encode_pixels(header, pixels)
    return codec.decode(header, arrays, len(pixels)), error
