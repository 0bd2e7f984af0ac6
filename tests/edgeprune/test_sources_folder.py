"""Folders of image files: arrangement, splits, sizes and whatever is wrong with them."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import SourceError
from edgeprune.sources import open_source

Folder = dict[str, np.ndarray]


def write_images(folder: Path, images: Folder) -> Path:
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def random_images(names: list[str], height: int = 4, width: int = 4) -> Folder:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for name in names}


def test_folder_classes_files_and_pixels(tmp_path: Path) -> None:
    names = ["dog/b.png", "dog/a.PNG", "cat/deep/er/c.bmp", "cat/d.ppm"]
    images = random_images(names)
    source = open_source(f"imagefolder:{write_images(tmp_path, images)}")
    expected = ["cat/d.ppm", "cat/deep/er/c.bmp", "dog/a.PNG", "dog/b.png"]
    assert source.class_names == ("cat", "dog")
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert [Path(source.name(row)).as_posix() for row in range(4)] == expected
    assert (len(source), source.shape, source.license) == (4, (3, 4, 4), None)
    pixels = np.stack([images[name].transpose(2, 0, 1) for name in expected])
    np.testing.assert_array_equal(source.read(range(4)), pixels)


def test_folder_passes_over_hidden_and_other_files(tmp_path: Path) -> None:
    names = ["cat/1.png", "cat/.2.png", ".cache/3.png", "cat/.thumbs/4.png"]
    write_images(tmp_path, random_images(names))
    (tmp_path / "cat" / "notes.txt").write_text("none")
    (tmp_path / "readme.md").write_text("none")
    source = open_source(f"imagefolder:{tmp_path}")
    assert source.class_names == ("cat",)
    assert [Path(source.name(row)).name for row in range(len(source))] == ["1.png"]


def test_folder_reads_in_any_order_and_piece(tmp_path: Path) -> None:
    images = random_images([f"{name}/{i:03}.png" for name in "ab" for i in range(50)], 3, 5)
    source = open_source(f"imagefolder:{write_images(tmp_path, images)}")
    whole = source.read(np.arange(100))
    rows = np.random.default_rng(1).permutation(100)
    np.testing.assert_array_equal(source.read(rows), whole[rows])
    np.testing.assert_array_equal(np.concatenate([source.read([row]) for row in rows]), whole[rows])
    np.testing.assert_array_equal(source.read([7, 7]), whole[[7, 7]])
    assert source.read([]).shape == (0, 3, 3, 5)


@pytest.mark.parametrize(
    ("folders", "split", "used"),
    [
        (["train", "test"], "train", "train"),
        (["train", "test"], "test", "test"),
        (["train", "test", "val"], "test", "test"),
        (["train", "val"], "test", "val"),
        (["cats", "dogs"], "test", None),
    ],
)
def test_folder_split(tmp_path: Path, folders: list[str], split: str, used: str | None) -> None:
    write_images(tmp_path, random_images([f"{folder}/cat/{folder}.png" for folder in folders]))
    source = open_source(f"imagefolder:{tmp_path}", split=split)
    if used is None:
        assert source.class_names == tuple(sorted(folders))
    else:
        assert source.class_names == ("cat",)
        assert Path(source.name(0)).as_posix() == f"cat/{used}.png"


def test_folder_without_the_wanted_split(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["train/cat/1.png"]))
    with pytest.raises(SourceError, match="has train but no test or val folder"):
        open_source(f"imagefolder:{tmp_path}", split="test")


def test_test_split_is_numbered_as_the_train_split(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/2.png"]))
    source = open_source(f"imagefolder:{tmp_path}", split="test")
    assert source.class_names == ("a", "b", "c")
    assert source.labels.tolist() == [2]


def test_test_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["train/a/1.png", "test/a/1.png", "test/z/1.png"]))
    with pytest.raises(SourceError, match=r"test.z: is a class that .*train does not have"):
        open_source(f"imagefolder:{tmp_path}", split="test")


def test_folder_with_size_takes_any_shape(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 4:20] = 200
    tall = np.full((40, 10, 3), 50, dtype=np.uint8)
    write_images(tmp_path, {"a/1.png": wide, "a/2.png": tall})
    source = open_source(f"imagefolder:{tmp_path}", size=4)
    assert source.shape == (3, 4, 4)
    expected = np.full((2, 3, 4, 4), 200)
    expected[1] = 50
    np.testing.assert_array_equal(source.read([0, 1]), expected)


def test_image_of_another_size_names_both(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png"], 4, 6) | random_images(["a/2.png"], 5, 7))
    source = open_source(f"imagefolder:{tmp_path}")
    assert source.shape == (3, 4, 6)
    with pytest.raises(SourceError, match=r"a.2\.png: has 7x5 pixels, but a.1\.png has 6x4; pass `size`"):
        source.read([0, 1])


def test_shape_comes_from_the_first_readable_image(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/2.png"], 4, 6))
    (tmp_path / "a" / "1.png").touch()
    assert open_source(f"imagefolder:{tmp_path}").shape == (3, 4, 6)


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png"]))
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of 1 images can be read; the first: a.1\.png: is empty"):
        open_source(f"imagefolder:{tmp_path}")


def test_unreadable_image_is_named_relative_to_the_folder(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png", "a/2.png"]))
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    source = open_source(f"imagefolder:{tmp_path}")
    with pytest.raises(SourceError, match=r"^a.2\.png: is not an image"):
        source.read([0, 1])


def test_bomb_in_a_folder_raises_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, random_images(["a/1.png"]) | random_images(["a/2.png"], 6, 6))
    source = open_source(f"imagefolder:{tmp_path}", size=4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(SourceError, match=r"a.2\.png: .*exceeds limit"):
            source.read([0, 1])
    assert caught == []


def test_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: cannot be listed as a folder: No such file"):
        open_source(f"imagefolder:{tmp_path}/nowhere")


@pytest.mark.parametrize("forbidden", ["", "/b", "/a"])
def test_a_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    write_images(tmp_path, random_images(["a/1.png", "b/1.png"]))
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if str(folder) == f"{tmp_path}{forbidden}":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=rf"^{tmp_path}{forbidden}: .*Permission denied; .*chmod u\+rx"):
        open_source(f"imagefolder:{tmp_path}")


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    with pytest.raises(SourceError, match=r"a\.zip: cannot be listed as a folder"):
        open_source(f"imagefolder:{tmp_path}/a.zip")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is empty; it needs one folder of images per class"):
        open_source(f"imagefolder:{tmp_path}")


def test_images_without_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["1.png"]))
    with pytest.raises(
        SourceError, match=r"lie directly in this folder; put those of each class in a folder"
    ):
        open_source(f"imagefolder:{tmp_path}")


def test_class_folder_without_images(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["cat/1.png"]))
    (tmp_path / "emu").mkdir()
    with pytest.raises(SourceError, match=r"emu: class without images .*add some or remove the folder"):
        open_source(f"imagefolder:{tmp_path}")
    assert open_source(f"imagefolder:{tmp_path}", split="test").class_names == ("cat", "emu")


def test_test_split_without_any_image(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["train/cat/1.png"]))
    (tmp_path / "test" / "cat").mkdir(parents=True)
    with pytest.raises(SourceError, match="no images in any of its 1 class folders"):
        open_source(f"imagefolder:{tmp_path}", split="test")


def test_dangling_link_is_an_unreadable_image(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png"]))
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(SourceError, match=r"a.2\.png: No such file"):
        open_source(f"imagefolder:{tmp_path}").read([1])


def test_link_to_itself_is_an_unreadable_image(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png", "3.png"]))
    for name in ("a/2.png", "4.png"):
        (tmp_path / name).symlink_to(Path(name).name)
    source = open_source(f"imagefolder:{tmp_path}")
    assert source.notes == (f"{tmp_path}: 2 images beside the class folders are left out",)
    with pytest.raises(SourceError, match=r"a.2\.png: Too many levels"):
        source.read([1])


@pytest.mark.parametrize("name", ["b", "a/more"])
def test_link_that_may_have_led_to_images_is_refused(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, random_images(["a/1.png"]))
    (tmp_path / "a" / "notes.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "a" / "LICENSE").symlink_to("1.png")
    # A file that git-annex has not fetched.
    (tmp_path / "README").symlink_to(".git/annex/objects/0F/1w/MD5E-s12--0a/MD5E-s12--0a")
    assert len(open_source(f"imagefolder:{tmp_path}")) == 1
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(
        SourceError, match=rf"{name}: the link leads nowhere \(No such .*; mend it, or remove it"
    ):
        open_source(f"imagefolder:{tmp_path}")


@pytest.mark.skipif(os.name != "posix", reason="file names are text here")
def test_file_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png"]))
    try:
        os.rename(os.fsencode(tmp_path / "a" / "1.png"), os.fsencode(tmp_path / "a") + b"/\xff.png")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes text only")
    source = open_source(f"imagefolder:{tmp_path}")
    assert source.name(0).encode("utf-8").endswith(b".png")
    assert source.read([0]).shape == (1, 3, 4, 4)


def test_names_of_folders_that_are_the_same_as_text(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["a/1.png", "b/1.png"]))
    for name, raw in (("a", b"/\xfe"), ("b", b"/\xff")):
        try:
            os.rename(os.fsencode(tmp_path / name), os.fsencode(tmp_path) + raw)  # noqa: PTH104
        except OSError:
            pytest.skip("this file system takes text only")
    with pytest.raises(SourceError, match=r"have the same name as text; give each class a name of its own"):
        open_source(f"imagefolder:{tmp_path}")


def test_metadata_with_a_column_that_comes_twice(tmp_path: Path) -> None:
    write_images(tmp_path, random_images(["cat/1.png"]))
    (tmp_path / "metadata.csv").write_text("file_name,age,age\ncat/1.png,1,2\n")
    with pytest.raises(SourceError, match=r"metadata\.csv: has 2 columns 'age'; give each a name of its own"):
        open_source(f"imagefolder:{tmp_path}?target=age")
