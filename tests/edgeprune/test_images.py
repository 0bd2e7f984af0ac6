"""Reading one image file: every mode, orientation, depth and size."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from photographs import photographs
from PIL import Image, ImageOps

from edgeprune.errors import SourceError
from edgeprune.sources.decoding.images import decode_image, read_image
from edgeprune.sources.decoding.scaling import resize_and_crop


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def gray_rgb(values: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(values, dtype=np.uint8)[..., None], 3, axis=2)


def png(path: Path, header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> Path:
    """Write a PNG that Pillow cannot write itself."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def test_rgb_comes_back_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(pixels)), None)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_result_can_be_written_to(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "a.png", Image.new("RGB", (2, 2))), None)
    image[0, 0, 0] = 7
    assert image[0, 0, 0] == 7


@pytest.mark.parametrize("as_text", [True, False])
def test_path_may_be_text_or_path(tmp_path: Path, as_text: bool) -> None:
    path = saved(tmp_path / "a.bmp", Image.new("RGB", (2, 1), (1, 2, 3)))
    assert read_image(str(path) if as_text else path, None).tolist() == [[[1, 2, 3], [1, 2, 3]]]


def test_gray_is_repeated(tmp_path: Path) -> None:
    values = [[0, 100], [200, 255]]
    path = saved(tmp_path / "a.pgm", Image.fromarray(np.array(values, dtype=np.uint8)))
    np.testing.assert_array_equal(read_image(path, None), gray_rgb(values))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", image), None), gray_rgb([[0, 255]]))


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return image


def test_palette_is_looked_up(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", palette_image())
    assert read_image(path, None).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", palette_image(), transparency=0)
    assert read_image(path, None).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_palette_with_alpha_values_is_composited_on_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", palette_image(), transparency=bytes([51, 255]))
    # 10 + (255 - 10) * 4/5 = 206, and likewise 208 and 210: alpha 51 is one fifth.
    assert read_image(path, None).tolist() == [[[206, 208, 210], [200, 100, 50]]]


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    image.putpixel((2, 0), (0, 100, 255, 102))
    # Two fifths of the color and three fifths of 255.
    expected = [[[255, 255, 255], [10, 20, 30], [153, 193, 255]]]
    assert read_image(saved(tmp_path / "a.png", image), None).tolist() == expected


def test_gray_alpha_is_composited_on_white(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (0, 51))
    image.putpixel((1, 0), (40, 255))
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", image), None), gray_rgb([[204, 40]]))


def test_transparent_color_is_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    path = saved(tmp_path / "a.png", image, transparency=(1, 2, 3))
    assert read_image(path, None).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    assert read_image(saved(tmp_path / "a.tif", image), None).tolist() == [[[0, 255, 255]]]


def test_cmyk_jpeg_is_converted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 0, 255, 0)), quality=100)
    assert np.abs(read_image(path, None).astype(int) - [255, 255, 0]).max() <= 2


# 128 is below and 129 above half of 257: they round down and up; Pillow's own conversion gives 255 for most.
SIXTEEN_BIT = [[0, 128, 129], [257, 32896, 65535]]
EIGHT_BIT = [[0, 0, 1], [1, 128, 255]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_gray_is_scaled(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(np.array(SIXTEEN_BIT, dtype="<u2")))
    np.testing.assert_array_equal(read_image(path, None), gray_rgb(EIGHT_BIT))


def test_sixteen_bit_big_endian_tiff_is_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array(SIXTEEN_BIT, dtype=">u2")))
    assert mode_of(path) == "I;16B"
    np.testing.assert_array_equal(read_image(path, None), gray_rgb(EIGHT_BIT))


def test_thirty_two_bit_mode_within_sixteen_bits_is_scaled(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array(SIXTEEN_BIT, dtype="<i4")))
    assert mode_of(path) == "I"
    np.testing.assert_array_equal(read_image(path, None), gray_rgb(EIGHT_BIT))


def test_sixteen_bit_pgm_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + np.array(SIXTEEN_BIT, dtype=">u2").tobytes())
    np.testing.assert_array_equal(read_image(path, None), gray_rgb(EIGHT_BIT))


def test_sixteen_bit_gray_with_transparent_level(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0)
    rows = b"\0" + struct.pack(">HHH", 257, 514, 771)
    path = png(tmp_path / "a.png", header, rows, (b"tRNS", struct.pack(">H", 514)))
    np.testing.assert_array_equal(read_image(path, None), gray_rgb([[1, 255, 3]]))


def test_sixteen_bit_rgb_keeps_the_high_bytes(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = png(tmp_path / "a.png", header, b"\0" + struct.pack(">HHH", 0x0A00, 0x1400, 0xFFFF))
    assert read_image(path, None).tolist() == [[[10, 20, 255]]]


@pytest.mark.parametrize("level", [-1, 65536])
def test_values_beyond_sixteen_bits_are_refused(tmp_path: Path, level: int) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, level]], dtype="<i4")))
    with pytest.raises(SourceError, match=r"a\.tif: has pixels from .* beyond 16 bits"):
        read_image(path, None)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.zeros((2, 2), dtype=np.float32)))
    with pytest.raises(SourceError, match=r"a\.tif: has floating-point pixels"):
        read_image(path, None)


# Where the pixels of the upright image [[1, 2, 3], [4, 5, 6]] lie in a file with that orientation.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(tmp_path: Path, orientation: int, dtype: str) -> None:
    scale = 10 if dtype == "u1" else 10 * 257
    stored = np.array(STORED[orientation], dtype=dtype) * np.array(scale, dtype=dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(stored), exif=exif.tobytes())
    np.testing.assert_array_equal(read_image(path, None), gray_rgb([[10, 20, 30], [40, 50, 60]]))


def test_orientation_of_jpeg_agrees_with_pillow(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif.tobytes())
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape == (24, 16, 3)
    np.testing.assert_array_equal(read_image(path, None), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01"])
def test_broken_exif_does_not_spoil_the_pixels(tmp_path: Path, exif: bytes) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 8), (90, 90, 90)), exif=exif)
    np.testing.assert_array_equal(read_image(path, None), np.full((8, 8, 3), 90))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert read_image(path, None)[0, 0].tolist() == [255, 0, 0]


def test_transparent_gif_is_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.gif", palette_image(), transparency=1)
    assert read_image(path, None).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_size_scales_the_short_side_and_crops(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    # The kernel reaches 4 pixels beyond the center square.
    pixels[:, 4:20] = 200
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(pixels)), 4)
    np.testing.assert_array_equal(image, np.full((4, 4, 3), 200))


@pytest.mark.parametrize(("width", "height"), [(8, 5), (5, 8)])
def test_odd_margin_is_cropped_half_a_pixel_at_a_time(width: int, height: int) -> None:
    ramp = np.arange(8, dtype=np.uint8) * 20
    pixels = np.broadcast_to(ramp if width == 8 else ramp[:, None], (height, width))
    cropped = np.asarray(resize_and_crop(Image.fromarray(pixels), 5))
    along = cropped[2] if width == 8 else cropped[:, 2]
    # Between two pixels of the ramp lies the mean of both: of 20 and 40 first.
    assert along.tolist() == [30, 50, 70, 90, 110]


def test_resize_agrees_with_resizing_all_then_cropping() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    whole = np.asarray(image.resize((32, 16), Image.Resampling.BICUBIC))[:, 8:24]
    cropped = np.asarray(resize_and_crop(image, 16))
    np.testing.assert_array_equal(cropped, whole)


def test_image_of_the_wanted_size_is_not_touched() -> None:
    image = Image.new("RGB", (6, 6))
    assert resize_and_crop(image, 6) is image


def test_extreme_strip_does_not_take_the_memory_of_its_scaled_self() -> None:
    strip = Image.new("L", (60_000, 1), 77)
    assert np.asarray(resize_and_crop(strip, 64)).tolist() == [[77] * 64] * 64


@pytest.mark.parametrize(
    ("suffix", "shape", "size", "decoded"),
    [
        ("jpg", (192, 256), 24, (128, 96)),
        ("jpg", (192, 256), 12, (64, 48)),
        ("jpg", (256, 192), 6, (24, 32)),
        # Half of it would be below four times the size.
        ("jpg", (192, 256), 25, (256, 192)),
        ("png", (192, 256), 12, (256, 192)),
    ],
)
def test_fast_jpeg_scales_what_the_decoder_has_scaled(tmp_path, suffix, shape, size, decoded) -> None:
    [pixels] = photographs(1, *shape)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(pixels.numpy().transpose(1, 2, 0)))
    with Image.open(path) as image:
        image.draft(None, decoded)
        assert image.size == decoded
        expected = np.array(resize_and_crop(image, size))
    slow, fast = (decode_image(str(path), size, name="a", fast_jpeg=fast) for fast in (False, True))
    assert (fast == expected).all()
    assert (fast == slow).all() == (decoded == shape[::-1])
    assert np.sqrt(np.mean((fast.astype(float) - slow) ** 2)) < 4
    # Without a size nothing is scaled.
    assert decode_image(str(path), None, name="a", fast_jpeg=True).shape == (*shape, 3)


def test_orientation_is_applied_before_the_crop(tmp_path: Path) -> None:
    pixels = np.zeros((30, 10), dtype=np.uint8)
    pixels[5:25] = 90
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", Image.fromarray(pixels), exif=exif.tobytes())
    np.testing.assert_array_equal(read_image(path, 5), np.full((5, 5, 3), 90))
