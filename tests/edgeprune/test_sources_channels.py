"""Channels and bits of sources: what images have, and what they are converted to."""

import numpy as np
import pytest
from PIL import Image
from tiffs import tiff

from edgeprune import open_source
from edgeprune.errors import SourceError
from edgeprune.sources.decoding.images import read_image
from edgeprune_formats import ConfigError

RANDOM = np.random.default_rng(5)
GRAY = RANDOM.integers(0, 256, (9, 7), dtype=np.uint8)
DEEP = RANDOM.integers(0, 2**16, (9, 7), dtype=np.uint16)
COLOR = RANDOM.integers(0, 256, (9, 7, 3), dtype=np.uint8)
MODES = {
    "gray": Image.fromarray(GRAY),
    "deep": Image.fromarray(DEEP),
    "color": Image.fromarray(COLOR),
    "palette": Image.fromarray(COLOR).quantize(16),
    "alpha": Image.fromarray(np.concatenate([COLOR, GRAY[..., None]], axis=2)),
}


def folder(path, kinds):
    """A folder of classes a and b with images of these kinds in turn; a kind is a mode or a TIFF's bytes."""
    for number, kind in enumerate(kinds):
        place = path / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(kind, bytes):
            (place / f"{number:03}.tif").write_bytes(kind)
        else:
            MODES[kind].save(place / f"{number:03}.png")
    return f"imagefolder:{path}"


@pytest.mark.parametrize(
    ("kinds", "channels", "expected"),
    [
        (["gray"], "as-is", GRAY[None]),
        (["deep"], "as-is", DEEP[None]),
        (["color"], "as-is", COLOR.transpose(2, 0, 1)),
        (["gray"], "rgb", np.stack([GRAY] * 3)),
        (["gray"], "rgba", np.stack([GRAY] * 3 + [np.full_like(GRAY, 255)])),
        (["deep"], "gray", ((DEEP.astype(int) + 128) // 257)[None]),
        (["color"], "gray", np.asarray(MODES["color"].convert("L"))[None]),
        (["alpha"], "rgba", np.asarray(MODES["alpha"]).transpose(2, 0, 1)),
    ],
)
def test_what_images_have_or_are_converted_to(tmp_path, kinds, channels, expected):
    source = open_source(folder(tmp_path, kinds * 2), channels=channels)
    assert source.shape == expected.shape
    assert source.bits == (16 if expected.dtype == np.uint16 else 8)
    pixels = source.read([1])
    assert pixels.dtype == (np.uint16 if source.bits == 16 else np.uint8)
    np.testing.assert_array_equal(pixels[0], expected)


@pytest.mark.parametrize("kinds", [["gray", "color"], ["palette", "gray"], ["gray", "alpha"]])
def test_gray_and_color_together_are_rgb_as_before(tmp_path, kinds):
    source = open_source(folder(tmp_path, kinds * 2))
    assert source.shape[0] == 3
    assert any("are gray, the others color" in note for note in source.notes)
    np.testing.assert_array_equal(
        source.read([0, 1, 2, 3]), open_source(source.spec, channels="rgb").read(range(4))
    )


BANDS = RANDOM.integers(0, 256, (9, 7, 5), dtype=np.uint8)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["gray", "deep"], "b/001.png: is gray of 16 bits, but a/000.png is gray; pass `channels=.rgb.`"),
        (["deep", "color"], "is RGB, but a/000.png is gray of 16 bits; pass `channels=.rgb.`"),
        (
            ["color", tiff(BANDS)],
            "b/001.tif: is 5 planes, but a/000.png is RGB; put them in sources of their own",
        ),
        ([tiff(BANDS), tiff(BANDS[..., :4])], "is 4 planes, but a/000.tif is 5 planes"),
    ],
)
def test_several_kinds_are_refused_by_name(tmp_path, kinds, words):
    with pytest.raises(SourceError, match=words):
        open_source(folder(tmp_path, kinds))


def test_an_image_that_no_one_looked_at_is_refused_when_it_is_read(tmp_path):
    spec = folder(tmp_path, ["gray"] * 100)
    MODES["color"].save(tmp_path / "a" / "002.png")
    source = open_source(spec)
    assert source.name(1) == "a/002.png"
    with pytest.raises(
        SourceError, match=r"a/002\.png: is RGB, but a/000\.png is gray; pass `channels=.rgb.`"
    ):
        source.read([1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": ">"},
        {"deflate": True, "predictor": True},
        {"apart": True, "deflate": True},
        {"tile": 16, "deflate": True, "predictor": True},
        {"tile": 16, "apart": True, "order": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 4, 13])
def test_bands_of_tiff_files(tmp_path, options, dtype, bands):
    pixels = RANDOM.integers(0, np.iinfo(dtype).max, (11, 18, bands)).astype(dtype)
    source = open_source(folder(tmp_path, [tiff(pixels, **options)] * 2))
    assert (source.shape, source.bits) == ((bands, 11, 18), 8 * pixels.itemsize)
    np.testing.assert_array_equal(source.read([1])[0], pixels.transpose(2, 0, 1))


def test_color_tiff_files_keep_16_bits_and_lose_their_alpha(tmp_path):
    pixels = RANDOM.integers(0, 2**16, (9, 7, 3)).astype(np.uint16)
    source = open_source(folder(tmp_path / "rgb", [tiff(pixels, photometric=2)] * 2))
    np.testing.assert_array_equal(source.read([0])[0], pixels.transpose(2, 0, 1))
    opaque = np.concatenate([pixels, np.full((9, 7, 1), 65535, np.uint16)], axis=2)
    opaque[0, 0, 3] = 0
    source = open_source(folder(tmp_path / "rgba", [tiff(opaque, photometric=2, extra=(2,))] * 2))
    read = source.read([0])[0]
    assert read[:, 0, 0].tolist() == [65535] * 3
    np.testing.assert_array_equal(read[:, 1:], pixels.transpose(2, 0, 1)[:, 1:])


def test_a_fourth_band_that_is_no_alpha_is_kept(tmp_path):
    spec = folder(tmp_path, [tiff(BANDS[..., :4], photometric=2, extra=(0,))] * 2)
    np.testing.assert_array_equal(open_source(spec).read([0])[0], BANDS[..., :4].transpose(2, 0, 1))
    with pytest.raises(SourceError, match=r"which cannot be made RGB; build with `channels=.as-is.`"):
        open_source(spec, channels="rgb").read([0])


def test_planes_are_scaled_one_by_one(tmp_path):
    wide = (BANDS.astype(np.uint16) << 8) | 7
    source = open_source(folder(tmp_path, [tiff(wide)] * 2), size=4)
    assert source.shape == (5, 4, 4)
    eight = open_source(folder(tmp_path / "8", [tiff(BANDS)] * 2), size=4).read([0])
    np.testing.assert_allclose(source.read([0]) / 256, eight, atol=1)


@pytest.mark.parametrize("cut", [9, 60, 130, -1])
def test_damaged_bands_are_refused_by_name(tmp_path, cut):
    spec = folder(tmp_path, [tiff(BANDS)] * 4)
    content = (tmp_path / "a" / "002.tif").read_bytes()
    (tmp_path / "a" / "002.tif").write_bytes(content[:cut])
    with pytest.raises(SourceError, match=r"a/002\.tif: "):
        open_source(spec).read([1])


def test_more_bands_than_a_pack_holds(tmp_path):
    spec = folder(tmp_path, [tiff(np.zeros((4, 4, 33), np.uint8))] * 2)
    with pytest.raises(SourceError, match="33 bands, and a pack holds at most 32"):
        open_source(spec)


@pytest.mark.parametrize(
    ("kind", "planes", "channels"), [("gray", 3, 3), ("color", 1, 1), ("alpha", 4, 4), ("deep", 1, 1)]
)
def test_planes_that_are_needed(tmp_path, kind, planes, channels):
    source = open_source(folder(tmp_path, [kind] * 2), planes=planes)
    assert source.shape[0] == channels
    assert source.bits == (16 if kind == "deep" else 8)
    file = tmp_path / "a" / "000.png"
    np.testing.assert_array_equal(source.read([0])[0].transpose(1, 2, 0), read_image(file, None, planes))


def test_planes_that_no_image_has(tmp_path):
    spec = folder(tmp_path, ["color"] * 2)
    with pytest.raises(SourceError, match=r"a/000\.png: is RGB, and 5 planes are needed"):
        open_source(spec, planes=5)
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 40, 40), np.uint8), y=[0, 1])
    with pytest.raises(SourceError, match="has 4 channels, which cannot be made RGB"):
        open_source(f"npz:{tmp_path}/a.npz", planes=3)


def test_unknown_channels():
    with pytest.raises(ConfigError, match="`channels` must be one of as-is, gray, rgb, rgba, not 'bgr'"):
        open_source("digits", channels="bgr")


def test_digits_stay_rgb_unless_gray_is_asked_for():
    assert open_source("digits").shape == (3, 32, 32)
    gray = open_source("digits", channels="gray")
    assert gray.shape == (1, 32, 32)
    np.testing.assert_array_equal(gray.read([3])[0, 0], open_source("digits").read([3])[0, 2])


def test_color_png_of_16_bits_is_read_with_8_and_says_so(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + np.full(12, 0x1234, ">u2").tobytes() for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(content)
    source = open_source(f"imagefolder:{tmp_path}")
    assert source.bits == 8
    assert any("a/1.png: color PNG of 16 bits are read as 8 bits" in note for note in source.notes)
