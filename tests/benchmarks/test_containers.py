import struct
import zlib

import numpy as np
import pytest

from edgeprune_benchmarks.codec.containers import avif_payload, jpeg_payload, png_payload, webp_payload

SEGMENT = b"\xff\xe0\x00\x04ab"
SCAN = b"\xff\xda\x00\x03x"


@pytest.fixture
def imagecodecs():
    return pytest.importorskip("imagecodecs")


@pytest.fixture
def image():
    random = np.random.default_rng(0)
    smooth = random.integers(0, 256, (9, 9, 3)).astype(float).repeat(8, 0).repeat(8, 1)
    return (smooth + random.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def test_jpeg_by_hand_with_stuffed_zeros_restarts_and_two_scans():
    first, second = b"\x01\xff\x00\x02\xff\xd0\x03", b"\x04\xff\xd7\x05"
    file = b"\xff\xd8" + SEGMENT + SCAN + first + SEGMENT + SCAN + second + b"\xff\xd9"
    assert jpeg_payload(file) == len(first) + len(second)


@pytest.mark.parametrize("subsampling", ["420", "444"])
def test_jpeg_of_a_real_encoder(imagecodecs, image, subsampling):
    file = imagecodecs.jpeg8_encode(image, 85, subsampling=subsampling, optimize=True)
    scan = file.index(b"\xff\xda")
    (length,) = struct.unpack_from(">H", file, scan + 2)
    assert file.endswith(b"\xff\xd9")
    assert jpeg_payload(file) == len(file) - (scan + 2 + length) - 2


def test_png_of_a_real_encoder(imagecodecs, image):
    file = imagecodecs.png_encode(image[:20, :20], level=9)
    start = file.index(b"IDAT") + 4
    inflate = zlib.decompressobj()
    assert len(inflate.decompress(file[start:])) == 20 * (20 * 3 + 1)
    # What follows the deflated rows is a checksum and IEND.
    assert png_payload(file) == len(file) - start - len(inflate.unused_data)


def test_png_in_several_chunks():
    chunks = [(b"IHDR", bytes(13)), (b"IDAT", b"12345"), (b"tEXt", b"a"), (b"IDAT", b"678"), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n"
    file += b"".join(struct.pack(">I4s", len(body), kind) + body + bytes(4) for kind, body in chunks)
    assert png_payload(file) == 5 + 3


@pytest.mark.parametrize(("lossless", "header"), [(False, 10), (True, 5)])
def test_webp_of_a_real_encoder(imagecodecs, image, lossless, header):
    file = imagecodecs.webp_encode(image, level=80, lossless=lossless, method=6)
    kind = b"VP8L" if lossless else b"VP8 "
    start = file.index(kind)
    (length,) = struct.unpack_from("<I", file, start + 4)
    assert webp_payload(file) == length - header
    # Nothing but a padding byte follows the bitstream.
    assert 0 <= len(file) - (start + 8 + length) <= 1


def test_webp_without_a_bitstream_is_refused():
    with pytest.raises(ValueError, match="no VP8"):
        webp_payload(b"RIFF\x04\x00\x00\x00WEBPEXIF\x02\x00\x00\x00ab")


def test_avif_of_a_real_encoder(imagecodecs, image):
    file = imagecodecs.avif_encode(image, level=70, speed=8, pixelformat="420")
    # In these files the coded picture is all that comes last.
    assert avif_payload(file) == len(file) - file.index(b"mdat") - 4
    assert avif_payload(file) > len(file) / 2


def test_boxes_of_every_kind_of_length():
    box = struct.pack(">I4s", 12, b"free") + b"1234"
    long = struct.pack(">I4sQ", 1, b"mdat", 16 + 5) + b"12345"
    last = struct.pack(">I4s", 0, b"mdat") + b"123"
    assert avif_payload(box + long + box + last) == 5 + 3
