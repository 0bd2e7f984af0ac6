"""Every way an image file can be bad is a SourceError that names it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import SourceError
from edgeprune.sources.decoding.images import read_image


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def shape_unless_refused(path: Path, size: int | None) -> tuple[int, ...] | None:
    try:
        return read_image(path, size).shape
    except SourceError:
        return None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.png: No such file"):
        read_image(tmp_path / "none.png", None)


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=tmp_path.name):
        read_image(tmp_path, None)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"a\.jpg: is empty"):
        read_image(tmp_path / "a.jpg", None)


@pytest.mark.parametrize("content", [b"version https://git-lfs", b"P", b"\0" * 1000])
def test_other_content_under_an_image_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.jpg: is not an image in a format known here"):
        read_image(tmp_path / "a.jpg", None)


def test_formats_that_run_a_program_are_not_tried(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.eps", Image.new("RGB", (4, 4))).rename(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match=r"a\.jpg: is not an image in a format known here"):
        read_image(path, None)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_every_cut_of_a_file_reads_or_is_a_source_error(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    whole = saved(tmp_path / f"whole.{suffix}", Image.fromarray(pixels)).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        cut.write_bytes(whole[:length])
        assert shape_unless_refused(cut, None) in ((16, 16, 3), None)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "ppm"])
def test_half_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=rf"a\.{suffix}: ."):
        read_image(path, None)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_flipped_bytes_read_or_are_a_source_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = bytearray(saved(tmp_path / f"whole.{suffix}", Image.fromarray(pixels)).read_bytes())
    path = tmp_path / f"a.{suffix}"
    for place in rng.integers(0, min(len(whole), 300), 60):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        assert shape_unless_refused(path, 8) in ((8, 8, 3), None)


# Pillow warns above its limit and fails above twice its limit.
@pytest.mark.parametrize("side", [4, 5, 8])
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (side, side)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if side == 4:
            assert read_image(path, None).shape == (4, 4, 3)
        else:
            with pytest.raises(SourceError, match=rf"a\.png: .*{side * side} pixels.* exceeds limit"):
                read_image(path, None)
    assert caught == []
