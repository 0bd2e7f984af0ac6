"""The image codecs that packs are measured against, one call an image: imagecodecs, for JPEG also Pillow."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import EdgePruneError

from .containers import avif_payload, jpeg_payload, png_payload, webp_payload

__all__ = ["LOSSLESS", "LOSSY", "Peer", "decode_all", "encode_all", "jpeg_library", "jxl_distance"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Peer:
    """One codec at settings that are fixed but for its quality.

    Attributes
    ----------
    name : str
        As tables show it.
    encode : callable
        From an image uint8 [H, W, 3] and a level to a file.
    decode : callable
        From a file to an image, uint8 [H, W, 3 or 4].
    payload : callable
        Bytes of a file without its container.
    levels : (int, int)
        Lowest and highest level; a higher one is better, and larger.
    setting : callable
        What a level means, in words.
    """

    name: str
    encode: Callable[[Image, int], bytes]
    decode: Callable[[bytes], Image]
    payload: Callable[[bytes], int]
    levels: tuple[int, int] = (0, 0)
    setting: Callable[[float], str] = lambda level: f"q{level:g}"


def encode_all(peer: Peer, images: NDArray[np.uint8], level: int) -> list[bytes]:
    """Return a file for each image of uint8 [N, 3, H, W]."""
    shown = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    # The encoders leave the GIL while they work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(_encode, peer, level), shown))


def decode_all(peer: Peer, files: Sequence[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the images of files, uint8 [N, 3, H, W].

    Raises
    ------
    EdgePruneError
        A decoded image has not the shape (3, H, W) of its original.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images: NDArray[np.uint8] = np.stack(list(pool.map(partial(_decode, peer, shape), files)))
    return images


def _encode(peer: Peer, level: int, image: Image) -> bytes:
    return bytes(peer.encode(image, level))


def _decode(peer: Peer, shape: tuple[int, ...], file: bytes) -> Image:
    image: Image = np.asarray(peer.decode(file))[..., :3].transpose(2, 0, 1)
    if image.shape != tuple(shape) or image.dtype != np.uint8:
        raise EdgePruneError(f"{peer.name} decodes to {image.dtype}{image.shape}, not uint8{shape}")
    return image


def jxl_distance(level: float) -> float:
    """Return JPEG XL's Butteraugli distance of a level: 249 is distance 0.1, and 0 is 25, the largest."""
    return round(25 - level / 10, 3)


def _codec(name: str) -> Callable[..., Any]:
    """Return a function of imagecodecs that is imported when it is first called."""

    def call(*arguments: Any, **options: Any) -> Any:
        import imagecodecs

        return getattr(imagecodecs, name)(*arguments, **options)

    return call


@cache
def jpeg_library() -> str:
    """Return the package that encodes JPEG: Pillow where imagecodecs is not installed."""
    return "imagecodecs" if importlib.util.find_spec("imagecodecs") else "Pillow"


def _jpeg(subsampling: str) -> Peer:
    encode, decode = _codec("jpeg8_encode"), _codec("jpeg8_decode")

    def encoded(image: Image, level: int) -> bytes:
        if jpeg_library() == "Pillow":
            return _pillow_jpeg(image, level, subsampling)
        file: bytes = encode(image, level, subsampling=subsampling, optimize=True)
        return file

    def decoded(file: bytes) -> Image:
        image: Image = _pillow_pixels(file) if jpeg_library() == "Pillow" else decode(file)
        return image

    return Peer(f"JPEG {':'.join(subsampling)}", encoded, decoded, jpeg_payload, (1, 100))


def _pillow_jpeg(image: Image, level: int, subsampling: str) -> bytes:
    from PIL import Image as Images

    file = io.BytesIO()
    Images.fromarray(image).save(
        file, "JPEG", quality=level, subsampling=":".join(subsampling), optimize=True
    )
    return file.getvalue()


def _pillow_pixels(file: bytes) -> Image:
    from PIL import Image as Images

    return np.asarray(Images.open(io.BytesIO(file)))


def _peer(
    name: str,
    codec: str,
    options: Callable[[float], dict[str, Any]],
    payload: Callable[[bytes], int],
    levels: tuple[int, int] = (0, 0),
    setting: Callable[[float], str] = Peer.setting,
) -> Peer:
    """Return a codec of imagecodecs; `options` gives those of its encoder at a level."""
    encode, decode = _codec(f"{codec}_encode"), _codec(f"{codec}_decode")
    return Peer(name, lambda image, level: encode(image, **options(level)), decode, payload, levels, setting)


def _avif(pixels: str) -> Peer:
    def options(level: float) -> dict[str, Any]:
        return {"level": level, "speed": 4, "pixelformat": pixels, "numthreads": 1}

    return _peer(f"AVIF {':'.join(pixels)}", "avif", options, avif_payload, (0, 99))


def _jpegxl(effort: int) -> Peer:
    def options(level: float) -> dict[str, Any]:
        distance = jxl_distance(level)
        return {"distance": distance, "effort": effort, "usecontainer": False, "numthreads": 1}

    # The payload is all: a bare codestream already.
    name, setting = f"JPEG XL e{effort}", lambda level: f"d{jxl_distance(level):g}"
    return _peer(name, "jpegxl", options, len, (0, 249), setting)


def _raw() -> Peer:
    """Return pixels as they are; the shape of square images follows from their number."""

    def decode(file: bytes) -> Image:
        pixels = np.frombuffer(file, np.uint8)
        side = round((len(pixels) / 3) ** 0.5)
        return pixels.reshape(side, -1, 3)

    return Peer("raw uint8", lambda image, _: image.tobytes(), decode, len)


_WEBP = _peer(
    "WebP", "webp", lambda level: {"level": level, "lossless": False, "method": 6}, webp_payload, (0, 100)
)
LOSSLESS = (
    _raw(),
    _peer("PNG", "png", lambda _: {"level": 9}, png_payload),
    _peer("WebP, lossless", "webp", lambda _: {"lossless": True, "method": 6}, webp_payload),
)
LOSSY = (_jpeg("420"), _jpeg("444"), _WEBP, _avif("420"), _avif("444"), _jpegxl(7), _jpegxl(9))
