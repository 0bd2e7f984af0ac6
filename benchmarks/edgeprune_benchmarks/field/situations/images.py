"""Images that are sound, with something odd beside their pixels or in how they are written."""

from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..place import Place
from ..stock import SIDE, photographs, pixels
from .registry import situation

KIND = "odd images"
BUILD: tuple[str, ...] = ("build", "imagefolder:photos", "-o", "out.h5", "--device", "cpu")
BUILD += ("--codec", "sparse-f32", "--freq-prune", "0")


def _chunk(kind: bytes, data: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def _with_chunk(path: Path, chunk: bytes) -> None:
    """Put a chunk behind the header of a PNG."""
    raw = path.read_bytes()
    path.write_bytes(raw[:33] + chunk + raw[33:])


def _brightness(pack: Path) -> list[float]:
    """Return the mean of each image of a pack, by its number in the source."""
    from edgeprune_runtime import PackDataset

    dataset = PackDataset(pack, backend="scipy")
    order = np.argsort(dataset.pack.source_index)
    return [float(np.asarray(dataset[int(row)][0]).mean()) for row in order]


def _right(place: Place, expected: list[float]) -> str:
    done = place.run(*BUILD, "-q")
    place.right(done)
    return place.right(done, np.allclose(_brightness(place / "out.h5"), expected, atol=0.02))


def _means(folder: Path) -> list[float]:
    return [np.asarray(Image.open(path)).mean() / 255 for path in sorted(folder.rglob("*.png"))]


def _beside(name: str, chunk: bytes) -> None:
    @situation(KIND, name)
    def check(place: Place) -> str:
        photos = photographs(place / "photos")
        expected = _means(photos)
        _with_chunk(photos / "dog/1.png", chunk)
        return _right(place, expected)


_beside("a wrong checksum of the time in a PNG", _chunk(b"tIME", bytes(7), wrong=3))
_beside("a wrong checksum of a private chunk", _chunk(b"abCd", b"camera", wrong=9))
_beside("nine megabytes of text in a PNG", _chunk(b"iTXt", b"Note\0\1\0\0\0" + zlib.compress(bytes(9 << 20))))
_beside("a color profile that is cut short", _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(bytes(5000))[:9]))
_beside("two times the same gamma", _chunk(b"gAMA", struct.pack(">I", 45455)) * 2)


@situation(KIND, "an orientation written as a signed number, beside a text without an end")
def _orientation(place: Place) -> str:
    photos = photographs(place / "photos", side=4)
    row = np.zeros((4, 8, 3), np.uint8)
    text = struct.pack("<HHI", 0x0110, 2, 4000) + struct.pack("<I", 70000)
    turned = struct.pack("<HHI", 0x0112, 8, 1) + struct.pack("<hH", 8, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + text + turned + bytes(4)
    for path in photos.rglob("*.png"):
        Image.fromarray(row).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    done = place.run(*BUILD, "-q")
    place.right(done)
    from edgeprune_formats import open_pack

    with open_pack(place / "out.h5") as pack:
        return place.right(done, pack.header.shape == (3, 8, 4))


@situation(KIND, "16-bit TIFF files where 0 is white")
def _white_is_zero(place: Place) -> str:
    photos = photographs(place / "photos", each=2)
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        tiff = path.with_suffix(".tiff")
        Image.fromarray(np.full((SIDE, SIDE), 65535 - 9000 * number, np.uint16)).save(tiff)
        raw = tiff.read_bytes()
        black = struct.pack("<HHI", 262, 3, 1)
        assert black + b"\1\0" in raw
        tiff.write_bytes(raw.replace(black + b"\1\0", black + b"\0\0"))
        path.unlink()
    return _right(place, [9000 * number / 65535 for number in range(4)])


@situation(KIND, "a photograph of 120 megapixels, scaled within 1.5 GiB")
def _large(place: Place) -> str:
    (place / "photos/sea").mkdir(parents=True)
    Image.new("L", (12_000, 10_000), 77).save(place / "photos/sea/1.png", compress_level=1)

    def bounded() -> None:
        bound = 1536 << 20
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + bound, used + bound))
        from ..child import edgeprune

        edgeprune([*BUILD, "--size", "32"])

    done = place.script(bounded)
    place.right(done, lines=None)
    return place.right(done, np.allclose(_brightness(place / "out.h5"), [77 / 255], atol=0.02), lines=None)


@situation(KIND, ".pbm and .JFIF beside .png")
def _suffixes(place: Place) -> str:
    photos = photographs(place / "photos")
    expected = _means(photos)
    image = Image.open(photos / "cat/2.png")
    image.save(photos / "cat/2.jpeg", quality=98)
    (photos / "cat/2.jpeg").rename(photos / "cat/2.JFIF")
    (photos / "cat/2.png").unlink()
    Image.new("1", (SIDE, SIDE), 1).save(photos / "dog/2.pbm")
    (photos / "dog/2.png").unlink()
    return _right(place, [*expected[:-1], 1.0])


@situation(KIND, ".jxl and .dng beside .png in build")
def _unread(place: Place) -> str:
    photos = photographs(place / "photos")
    for name in ("cat/8.jxl", "cat/9.jxl", "dog/7.dng"):
        (photos / name).write_bytes(b"raw")
    done = place.run(*BUILD)
    return place.right(done, "2 .jxl" in done.err and "1 .dng" in done.err, lines=None)


@situation(KIND, ".jxl and .dng beside .png in predict")
def _unread_by_predict(place: Place) -> str:
    place.take("run")
    photos = photographs(place / "photos")
    for name in ("cat/8.jxl", "cat/9.jxl", "dog/7.dng"):
        (photos / name).write_bytes(b"raw")
    done = place.run("predict", "run", "photos")
    said = "2 .jxl" in done.err and "1 .dng" in done.err
    return place.right(done, said and len(done.out.splitlines()) == 6, lines=1)


@situation(KIND, "uint8 arrays of 0 and 1, channels first")
def _dark_arrays(place: Place) -> str:
    images = (pixels() > 100).astype(np.uint8).transpose(0, 3, 1, 2)
    np.savez(place / "dark.npz", x_train=images, y_train=np.arange(len(images)) % 3)
    done = place.run("build", "npz:dark.npz", "-o", "out.h5", "--device", "cpu")
    return place.right(done, "255" in done.err and "warning" in done.err, lines=None)
