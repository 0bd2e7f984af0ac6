"""The one pass over a source: checksum, channel sums, and what happens to unreadable images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import SourceError
from edgeprune.sources import Source, check_source, open_source


def write_npz(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


NCHW = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)


def write_classes(folder: Path, *classes: str, each: int) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir()
        for i in range(each):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def two_classes(tmp_path: Path) -> Source:
    write_classes(tmp_path, "cat", "dog", each=10)
    return open_source(f"imagefolder:{tmp_path}")


def hash_by_hand(source: Source, rows: range) -> str:
    total = 0
    for row in rows:
        image = int(row).to_bytes(8, "little") + int(source.labels[row]).to_bytes(8, "little")
        image += source.read([row])[0].tobytes()
        total += int.from_bytes(hashlib.sha256(image).digest(), "little")
    head = json.dumps([list(source.shape), list(source.class_names), len(rows)]).encode()
    return hashlib.sha256(head + (total % 2**256).to_bytes(32, "little")).hexdigest()


@pytest.mark.parametrize(("batch", "jobs"), [(1, 1), (7, 3), (256, 1)])
def test_check_against_a_plain_calculation(two_classes: Source, batch: int, jobs: int) -> None:
    check = check_source(two_classes, batch=batch, jobs=jobs)
    pixels = two_classes.read(range(20)).astype(np.float64)
    np.testing.assert_array_equal(check.channel_sums, pixels.sum(axis=(2, 3)))
    np.testing.assert_array_equal(check.channel_squares, (pixels**2).sum(axis=(2, 3)))
    assert check.good.tolist() == list(range(20))
    assert check.bad == ()
    assert check.sha256 == hash_by_hand(two_classes, range(20))


def test_check_is_exact_for_bright_large_images(tmp_path: Path) -> None:
    white = np.full((1, 3, 300, 300), 255, dtype=np.uint8)
    check = check_source(open_source(write_npz(tmp_path / "a.npz", x=white, y=[0])))
    assert check.channel_sums.tolist() == [[255 * 90_000] * 3]
    assert check.channel_squares.tolist() == [[65_025 * 90_000] * 3]


def test_check_reports_progress(two_classes: Source) -> None:
    seen: list[int] = []
    check_source(two_classes, progress=seen.append, batch=8)
    assert seen == [8, 16, 20]


@pytest.mark.slow
def test_large_images_are_read_in_smaller_batches(tmp_path: Path) -> None:
    x = np.zeros((5, 3, 2048, 2048), dtype=np.uint8)
    seen: list[int] = []
    check_source(open_source(write_npz(tmp_path / "a.npz", x=x, y=[0] * 5)), progress=seen.append)
    assert seen == [2, 4, 5]


def npz_hash(path: Path, x: np.ndarray, y: list[int], names: list[str]) -> str:
    return check_source(open_source(write_npz(path, x=x, y=y, class_names=names))).sha256


def test_hash_depends_on_every_input_and_nothing_else(tmp_path: Path) -> None:
    path, labels, names = tmp_path / "a.npz", [0, 1, 0, 1], ["a", "b"]
    reference = npz_hash(path, NCHW, labels, names)
    assert npz_hash(tmp_path / "b.npz", NCHW.transpose(0, 2, 3, 1), labels, names) == reference
    pixel = NCHW.copy()
    pixel[3, 2, 4, 5] ^= 1
    changed = [
        npz_hash(path, pixel, labels, names),
        npz_hash(path, NCHW, [0, 1, 1, 1], names),
        npz_hash(path, NCHW, labels, ["a", "c"]),
        npz_hash(path, NCHW[::-1], labels, names),
        npz_hash(path, NCHW.reshape(4, 3, 6, 5), labels, names),
    ]
    assert len({reference, *changed}) == 6


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"spoilt")


def test_bad_images_fail_the_check(two_classes: Source, tmp_path: Path) -> None:
    spoil(tmp_path, "cat/3.png", "dog/7.png", "dog/8.png")
    with pytest.raises(
        SourceError, match=r"^cat.3\.png: is not .* \(and 2 more like it\); pass `skip_bad=True`"
    ):
        check_source(two_classes)


def test_one_bad_image_is_not_called_several(two_classes: Source, tmp_path: Path) -> None:
    spoil(tmp_path, "dog/7.png")
    with pytest.raises(SourceError, match=r"^dog.7\.png: is not an image in a format known here; pass"):
        check_source(two_classes)


@pytest.mark.parametrize(("batch", "jobs"), [(1, 3), (7, 1), (256, 2)])
def test_bad_images_are_skipped(two_classes: Source, tmp_path: Path, batch: int, jobs: int) -> None:
    spoil(tmp_path, "cat/3.png", "dog/7.png", "dog/8.png")
    check = check_source(two_classes, skip_bad=True, batch=batch, jobs=jobs)
    good = [row for row in range(20) if row not in (3, 17, 18)]
    assert check.good.dtype == np.intp
    assert check.good.tolist() == good
    assert [message.split(":")[0].replace("\\", "/") for message in check.bad] == [
        "cat/3.png",
        "dog/7.png",
        "dog/8.png",
    ]
    assert not check.channel_sums[[3, 17, 18]].any()
    assert not check.channel_squares[[3, 17, 18]].any()
    assert check.channel_sums[good].all()
    assert check.sha256 == hash_by_hand(two_classes, good)


def test_skipping_may_not_empty_a_class(two_classes: Source, tmp_path: Path) -> None:
    spoil(tmp_path, *(f"dog/{i}.png" for i in range(10)))
    with pytest.raises(SourceError, match="class 'dog' has no image left"):
        check_source(two_classes, skip_bad=True)


def test_skipping_may_not_leave_nothing(two_classes: Source, tmp_path: Path) -> None:
    spoil(tmp_path, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)))
    with pytest.raises(SourceError, match=r"no image can be read; the first: cat.0\.png: is not"):
        check_source(two_classes, skip_bad=True)


def test_test_split_may_lose_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path, "cat", "dog", each=1)
    source = open_source(f"imagefolder:{tmp_path}", split="test")
    spoil(tmp_path, "dog/0.png")
    assert check_source(source, skip_bad=True).good.tolist() == [0]


def test_sums_give_mean_and_deviation_of_a_subset(two_classes: Source) -> None:
    check = check_source(two_classes)
    rows = [1, 4, 15]
    count = len(rows) * 16
    mean = check.channel_sums[rows].sum(axis=0) / count
    deviation = np.sqrt(check.channel_squares[rows].sum(axis=0) / count - mean**2)
    pixels = two_classes.read(rows).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(deviation, pixels.std(axis=(0, 2, 3)))
