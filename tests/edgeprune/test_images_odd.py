"""Images that are sound, with something odd beside their pixels, or odd in how those are written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import SourceError
from edgeprune.sources import open_source
from edgeprune.sources.decoding.images import IMAGE_SUFFIXES, read_image

ROW = np.array([[10, 20, 30]], np.uint8)  # stands upright when it is turned by orientation 6


def entry(tag: int, kind: int, count: int, value: bytes, order: str = ">") -> bytes:
    return struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")


def exif(*entries: bytes, order: str = ">", after: bytes = b"") -> bytes:
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + b"\0" * 4 + after


SIX = {
    "short": entry(0x0112, 3, 1, b"\0\6"),
    "long": entry(0x0112, 4, 1, b"\0\0\0\6"),
    "byte": entry(0x0112, 1, 1, b"\6"),
    "undefined": entry(0x0112, 7, 1, b"\6"),
    "text": entry(0x0112, 2, 2, b"6\0"),
    "signed": entry(0x0112, 9, 1, b"\0\0\0\6"),
    "two shorts": entry(0x0112, 3, 2, b"\0\6\0\0"),
    # After one entry, the data begins at byte 26.
    "rational": entry(0x0112, 5, 1, struct.pack(">I", 26)),
}


@pytest.mark.parametrize("kind", SIX)
def test_orientation_of_any_type_is_applied(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(ROW).save(path, exif=exif(SIX[kind], after=struct.pack(">II", 6, 1)))
    assert read_image(path, None)[..., 0].tolist() == [[10], [20], [30]]


@pytest.mark.parametrize(
    "broken",
    [
        entry(0x010F, 2, 500, struct.pack(">I", 9000)),  # text beyond the end
        entry(0x011A, 5, 1, struct.pack(">I", 0xFFFFFFFF)),  # a rational nowhere
        entry(0x0128, 3, 0, b""),  # of no value
        entry(0x010E, 99, 1, b"abcd"),  # of no known type
        entry(0x8769, 2, 4, b"abc\0"),  # the EXIF folder as text
        entry(0x8825, 4, 1, b"\xff\xff\xff\xff"),  # the GPS folder nowhere
        entry(0x0100, 12, 1, b"abcd"),  # a double in 4 bytes
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_counts_beside_a_broken_tag(tmp_path: Path, broken: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    block = exif(broken, SIX["short"], broken)
    block = b"Exif\0\0" + block if suffix == "jpg" else block
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(path, exif=block)
    assert read_image(path, None).shape == (8, 4, 3)


@pytest.mark.parametrize("value", [b"\0\0", b"\0\x09", b"\xff\xff"])
def test_an_orientation_that_is_none_is_passed_over(tmp_path: Path, value: bytes) -> None:
    Image.fromarray(ROW).save(tmp_path / "a.png", exif=exif(entry(0x0112, 3, 1, value)))
    assert read_image(tmp_path / "a.png", None).shape == (1, 3, 3)


def chunk(kind: bytes, data: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def png(path: Path, *chunks: bytes, damage: int = 0) -> Path:
    header = struct.pack(">IIBBBBB", 3, 1, 8, 0, 0, 0, 0)
    body = [chunk(b"IHDR", header, damage), *chunks, chunk(b"IDAT", zlib.compress(b"\0" + ROW.tobytes()))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b""))
    return path


LARGE = b"x" * (3 * 2**20)


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"gAMA", struct.pack(">I", 45455), wrong=1),
        chunk(b"pHYs", b"\0" * 9, wrong=7),
        chunk(b"tEXt", b"Comment\0good", wrong=1),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LARGE)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(LARGE)),
        chunk(b"iCCP", b"profile\0\0" + b"not zlib"),
        chunk(b"cHRM", b"short"),
    ],
    ids=["gamma", "pixel size", "text", "packed text", "international text", "profile", "no zlib", "short"],
)
def test_what_lies_beside_the_pixels_of_a_png_does_not_matter(tmp_path: Path, odd: bytes) -> None:
    path = png(tmp_path / "a.png", odd, chunk(b"eXIf", exif(SIX["long"])))
    assert read_image(path, None)[..., 0].tolist() == [[10], [20], [30]]


def test_transparency_with_a_right_checksum_is_kept_beside_a_wrong_one(tmp_path: Path) -> None:
    transparent = chunk(b"tRNS", struct.pack(">H", 20))
    path = png(tmp_path / "a.png", chunk(b"bKGD", b"\0\0", wrong=1), transparent)
    assert read_image(path, None)[..., 0].tolist() == [[10, 255, 30]]


@pytest.mark.parametrize("beside", [(), (chunk(b"gAMA", b"\0\0\0\1", wrong=1),)])
def test_a_wrong_checksum_of_what_the_pixels_need_is_refused(
    tmp_path: Path, beside: tuple[bytes, ...]
) -> None:
    path = png(tmp_path / "a.png", *beside, damage=1)
    with pytest.raises(SourceError, match=r"a\.png: "):
        read_image(path, None)


def tiff(path: Path, values: np.ndarray, bits: int, photometric: int, order: str = "<") -> Path:
    data = values.astype(f"{order}u2").tobytes() if bits == 16 else values.tobytes()
    height, width = (1, 3) if bits == 12 else values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(data))]
    offset = 8 + len(data)
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", offset)
    path.write_bytes(head + data + directory + b"\0" * 4)
    return path


@pytest.mark.parametrize("photometric", [0, 1])
def test_sixteen_bit_tiff_where_zero_is_white(tmp_path: Path, photometric: int) -> None:
    path = tiff(tmp_path / "a.tif", np.array([[0, 257 * 55, 65535]]), 16, photometric)
    expected = [0, 55, 255] if photometric else [255, 200, 0]
    assert read_image(path, None)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_sixteen_bit_tiff_where_zero_is_white_compressed(tmp_path: Path, compression: str) -> None:
    image = Image.fromarray(np.array([[0, 257 * 55, 65535]], "<u2"))
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as opened:
        if opened.tag_v2[262] != 0:
            pytest.skip("this Pillow does not write it")
    assert read_image(tmp_path / "a.tif", None)[0, :, 0].tolist() == [255, 200, 0]


def test_eight_bit_tiff_where_zero_is_white(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.array([[0, 55, 255]], np.uint8), 8, 0)
    assert read_image(path, None)[0, :, 0].tolist() == [255, 200, 0]


def test_twelve_bit_tiff_is_as_bright_as_it_was(tmp_path: Path) -> None:
    # Three values of 12 bits: 0, 2048 and 4095.
    path = tiff(tmp_path / "a.tif", np.array([0x00, 0x08, 0x00, 0xFF, 0xF0], np.uint8), 12, 1)
    assert read_image(path, None)[0, :, 0].tolist() == [0, 128, 255]


def test_a_tiff_that_pillow_does_not_know_says_so(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.array([[0, 1, 2]]), 16, 0, ">")
    with pytest.raises(SourceError, match=r"a\.tif: is a TIFF of a kind .*; save it as 8-bit RGB"):
        read_image(path, None)


@pytest.fixture
def little_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    return 60_000


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "RGBA", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_large_image_is_scaled(tmp_path: Path, little_limit: int, mode: str, suffix: str) -> None:
    ramp = np.add.outer(np.arange(240), np.arange(360)) * 255 // 600
    image = Image.fromarray(ramp.astype(np.uint8))
    image = (
        Image.fromarray((ramp * 257).astype("<u2")) if mode == "I;16" else image.convert("RGB").convert(mode)
    )
    try:
        image.save(tmp_path / f"a.{suffix}")
    except OSError:
        pytest.skip(f"{suffix} files have no mode {mode}")
    scaled = read_image(tmp_path / f"a.{suffix}", 16)
    small = ramp[:, 60:300].reshape(16, 15, 16, 15).mean(axis=(1, 3))
    assert scaled.shape == (16, 16, 3)
    if mode != "1":
        assert np.abs(scaled.astype(float) - small[..., None]).max() < 8


def test_a_large_image_is_turned_and_a_larger_one_refused(tmp_path: Path, little_limit: int) -> None:
    half = np.zeros((240, 480), np.uint8)
    half[:, 240:] = 255
    Image.fromarray(half).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif(SIX["short"]))
    assert read_image(tmp_path / "a.jpg", 4)[[0, -1], 0, 0].tolist() == [0, 255]
    with pytest.raises(SourceError, match="exceeds limit of 60000 pixels; pass `size`"):
        read_image(tmp_path / "a.jpg", None)
    Image.new("L", (400, 400)).save(tmp_path / "bomb.png")
    with pytest.raises(SourceError, match=r"bomb\.png: .*exceeds limit"):
        read_image(tmp_path / "bomb.png", 16)


@pytest.mark.slow
def test_a_photograph_of_90_megapixels_is_scaled(tmp_path: Path) -> None:
    Image.new("RGB", (11_000, 8_200), (10, 200, 90)).save(tmp_path / "a.jpg")
    scaled = read_image(tmp_path / "a.jpg", 64)
    assert np.abs(scaled.astype(int) - [10, 200, 90]).max() < 4


def test_every_suffix_that_counts_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    Image.init()
    for suffix in IMAGE_SUFFIXES:
        kind = Image.EXTENSION.get(suffix, "PNG")
        mode = "1" if kind == "PPM" and suffix == ".pbm" else "RGB"
        Image.new(mode, (8, 8)).save(folder / f"a{suffix.upper()}", kind)
    source = open_source(f"imagefolder:{tmp_path}")
    assert len(source) == len(IMAGE_SUFFIXES)
    assert source.read(range(len(source))).shape[0] == len(IMAGE_SUFFIXES)


@pytest.mark.parametrize(("highest", "is_told"), [(1, True), (2, False), (255, False)])
def test_arrays_that_hold_fractions_are_told(tmp_path: Path, highest: int, is_told: bool) -> None:
    images = np.zeros((4, 6, 6, 3), np.uint8)
    images[1, 2, 3] = highest
    np.savez(tmp_path / "a.npz", x=images, y=[0, 1, 0, 1])
    notes = open_source(f"npz:{tmp_path / 'a.npz'}").notes
    assert any("no pixel of x is above 1" in note for note in notes) == is_told
