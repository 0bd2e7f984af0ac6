"""NumPy archives: every layout that is read and every malformation that is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import SourceError
from edgeprune.sources import check_source, open_source


def write_npz(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


NCHW = random_pixels(4, 3, 5, 6)
GRAY = random_pixels(4, 5, 6)
ONE_PLANE = GRAY[:, None]
AS_RGB = np.repeat(ONE_PLANE, 3, axis=1)
DEEP = random_pixels(4, 4, 40, 40).astype(np.uint16) * 200


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (NCHW, NCHW),
        (NCHW.transpose(0, 2, 3, 1), NCHW),
        (GRAY, ONE_PLANE),
        (ONE_PLANE, ONE_PLANE),
        (GRAY[..., None], ONE_PLANE),
        (DEEP, DEEP),
        (DEEP.transpose(0, 2, 3, 1), DEEP),
        (DEEP.astype(">u2"), DEEP),
        (random_pixels(4, 8, 8, 5), random_pixels(4, 8, 8, 5).transpose(0, 3, 1, 2)),
        (random_pixels(4, 5, 8, 8), random_pixels(4, 5, 8, 8)),
        (random_pixels(4, 3, 5, 3), random_pixels(4, 3, 5, 3)),
    ],
    ids=[
        "NCHW",
        "NHWC",
        "NHW",
        "N1HW",
        "NHW1",
        "N4HW",
        "NHW4",
        "big-endian",
        "square",
        "planes of squares",
        "ambiguous",
    ],
)
def test_npz_layouts(tmp_path: Path, stored: np.ndarray, expected: np.ndarray) -> None:
    source = open_source(write_npz(tmp_path / "a.npz", x=stored, y=[0, 1, 1, 0]))
    assert source.shape == expected.shape[1:]
    pixels = source.read([2, 0])
    assert pixels.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(pixels, expected[[2, 0]])


def test_npz_splits(tmp_path: Path) -> None:
    test = random_pixels(2, 3, 5, 6)[:, ::-1]
    spec = write_npz(
        tmp_path / "a.npz", x_train=NCHW, y_train=[0, 1, 2, 0], x_test=test, y_test=[1, 1], x=NCHW, y=[9] * 4
    )
    train = open_source(spec)
    assert train.labels.tolist() == [0, 1, 2, 0]
    assert train.name(3) == "x_train[3]"
    source = open_source(spec, split="test")
    assert source.labels.tolist() == [1, 1]
    assert source.name(1) == "x_test[1]"
    assert source.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(source.read([0, 1]), test)


def test_npz_plain_arrays_serve_either_split(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", x=NCHW, y=[0, 1, 0, 1])
    assert open_source(spec, split="test").labels.tolist() == open_source(spec).labels.tolist()
    assert open_source(spec).name(2) == "x[2]"


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i4", ">i8", "u8"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_npz_label_forms(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    labels = np.array([0, 1, 1, 0], dtype=dtype).reshape(shape)
    source = open_source(write_npz(tmp_path / "a.npz", x=NCHW, y=labels))
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, 1, 0]


def test_npz_class_names(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", x=NCHW, y=[0, 1, 1, 0], class_names=["Käse", "b"])
    assert open_source(spec).class_names == ("Käse", "b")


def test_npz_resizes(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 8, 24), dtype=np.uint8)
    pixels[0, :, :, 4:20] = 200
    pixels[1, 1] = 9
    source = open_source(write_npz(tmp_path / "a.npz", x=pixels, y=[0, 0]), size=4)
    expected = np.zeros((2, 3, 4, 4))
    expected[0] = 200
    expected[1, 1] = 9
    np.testing.assert_array_equal(source.read([0, 1]), expected)


MALFORMED = {
    "labels missing": ({"x": NCHW}, r"has no x_train and y_train \(nor x and y\); it holds x"),
    "half a split": (
        {"x_train": NCHW, "x": NCHW, "y": [0] * 4},
        "has no x_train and y_train.* x_train, x, y",
    ),
    "other names": ({"images": NCHW, "labels": [0] * 4}, "it holds images, labels"),
    "float pixels": ({"x": NCHW / 255, "y": [0] * 4}, r"x is float64; save pixels of 0\.\.255 as uint8"),
    "many channels": (
        {"x": random_pixels(4, 33, 50, 50), "y": [0] * 4},
        r"x is \[4, 33, 50, 50\], not \[N, C, H, W\].* at most 32 channels",
    ),
    "flat pixels": ({"x": random_pixels(4, 75), "y": [0] * 4}, r"x is \[4, 75\], not"),
    "no images": ({"x": NCHW[:0], "y": np.zeros(0, int)}, r"x is \[0, 3, 5, 6\]: it holds no images"),
    "lengths": ({"x": NCHW, "y": [0, 0, 0]}, "x has 4 images but y has 3 labels"),
    "float labels": ({"x": NCHW, "y": [0.0] * 4}, r"y is float64; save class numbers as integers"),
    "text labels": ({"x": NCHW, "y": ["a"] * 4}, "save class numbers as integers"),
    "negative": ({"x": NCHW, "y": [0, -1, 0, 0]}, "y runs from -1 to 0; number the classes"),
    "huge": ({"x": NCHW, "y": np.array([0, 0, 0, 2**63], "u8")}, "y runs from 0 to 9223372036854775808"),
    "one-hot": ({"x": NCHW, "y": np.eye(4, dtype=int)}, r"y is \[4, 4\], not \[N\]; for one-hot.*argmax"),
    "object pixels": (
        {"x": np.array([None] * 4), "y": [0] * 4},
        "x holds Python objects; save it as plain numbers",
    ),
    "object labels": ({"x": NCHW, "y": np.array([0, 1, 0, None])}, "y holds Python objects"),
    "object names": (
        {"x": NCHW, "y": [0] * 4, "class_names": np.array(["a"], dtype=object)},
        "class_names holds Python objects",
    ),
    "bytes names": (
        {"x": NCHW, "y": [0] * 4, "class_names": [b"a"]},
        r"class_names is \|S1 \[1\]; save a list of",
    ),
    "few names": (
        {"x": NCHW, "y": [0, 1, 2, 0], "class_names": ["a", "b"]},
        "has 2 names, but labels run to 2",
    ),
    "empty class": ({"x": NCHW, "y": [0, 1, 4, 3]}, "y: class 2 has no images"),
    "empty named class": (
        {"x": NCHW, "y": [0, 1, 0, 1], "class_names": ["a", "b", "c"]},
        r"y: class 2 \(c\) has no images",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_npz(tmp_path: Path, case: str) -> None:
    arrays, message = MALFORMED[case]
    spec = write_npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(spec)
    assert str(caught.value).startswith(f"{tmp_path / 'a.npz'}: ")


def test_npz_test_split_may_lack_classes(tmp_path: Path) -> None:
    spec = write_npz(tmp_path / "a.npz", x_test=NCHW, y_test=[0, 3, 0, 3])
    assert open_source(spec, split="test").class_names == ("0", "1", "2", "3")


def test_npz_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.npz: cannot be read: No such file"):
        open_source(f"npz:{tmp_path}/none.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more", b"\x80\x04N."])
def test_npz_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.npz: is not an npz file, or is cut off"):
        open_source(f"npz:{tmp_path}/a.npz")


def test_npy_in_place_of_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", NCHW)
    with pytest.raises(SourceError, match="is a single array"):
        open_source(f"npz:{tmp_path}/a.npy")


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_damaged_anywhere(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    write(path, x=NCHW, y=[0, 1, 0, 1])
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:place])
        with pytest.raises(SourceError):
            open_source(f"npz:{path}")
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert len(open_source(f"npz:{path}")) == 4
        except SourceError:
            continue


@pytest.mark.real_data
@pytest.mark.skipif("EDGEPRUNE_DATA" not in os.environ, reason="EDGEPRUNE_DATA is not set")
@pytest.mark.parametrize(("split", "count"), [("train", 5085), ("test", 1017)])
def test_real_cifar_sample(split: str, count: int) -> None:
    spec = f"npz:{os.environ['EDGEPRUNE_DATA']}/cifar10-lossless-6k.npz"
    source = open_source(spec, split=split)
    assert (len(source), source.shape, len(source.class_names)) == (count, (3, 32, 32), 10)
    check = check_source(source)
    assert len(check.good) == count
    # CIFAR-10 is known to average 0.4914, 0.4822, 0.4465 of full scale.
    mean = check.channel_sums.sum(axis=0) / (count * 1024 * 255)
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=0.02)
