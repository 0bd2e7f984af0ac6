"""Folders for splits: understood in any spelling, or refused with what to name; never packed as classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import SourceError
from edgeprune.sources import open_source

SPLIT_NAMES = ("train", "valid", "val", "validation", "test", "Training", "Testing", "TRAIN", "Test", "eval")


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".heic"):
            (folder / name).write_bytes(b"heic")
        else:
            Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / name, "PNG")
    return folder


def opened(folder: Path, split: str = "train"):
    return open_source(f"imagefolder:{folder}", split=split)


def refusal(folder: Path, split: str = "train") -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder, split)
    message = str(caught.value)
    assert "\n" not in message
    assert "imagefolder:" in message
    return message


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("Training", "Testing"),
        ("TRAIN", "VAL"),
        ("training", "validation"),
        ("Train", "eval"),
        ("train", "Test"),
    ],
)
def test_splits_in_any_spelling(tmp_path: Path, train: str, test: str) -> None:
    write(tmp_path, f"{train}/cat/1.png", f"{train}/dog/1.png", f"{test}/dog/2.png")
    assert opened(tmp_path).class_names == ("cat", "dog")
    tested = opened(tmp_path, "test")
    assert (tested.class_names, tested.labels.tolist()) == (("cat", "dog"), [1])
    assert not tested.undivided


def test_the_test_split_is_test_before_all_others(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/cat/{name}.png" for name in ("train", "valid", "eval", "TESTING")))
    assert opened(tmp_path, "test").name(0).endswith("TESTING.png")


@pytest.mark.parametrize(
    "beside",
    ["__MACOSX/train/._1.png", ".ipynb_checkpoints/1.png", "notes/readme.txt/.keep.png", "lost+found/x.png"],
)
def test_folders_that_hold_no_images_of_ours_are_passed_over(tmp_path: Path, beside: str) -> None:
    write(tmp_path, "train/cat/1.png", "test/cat/1.png", beside)
    assert opened(tmp_path).files == ("cat/1.png",)


@pytest.mark.parametrize("junk", ["__MACOSX/._1.png", "@eaDir/1.png", ".thumbnails/1.png"])
def test_what_systems_leave_is_no_class(tmp_path: Path, junk: str) -> None:
    write(tmp_path, "cat/1.png", "dog/1.png", junk, f"cat/{junk}")
    source = opened(tmp_path)
    assert (source.class_names, len(source)) == (("cat", "dog"), 2)


@pytest.mark.parametrize(
    "names",
    [
        ("train/cat/1.png", "test/cat/1.png", "extra/1.png"),
        ("Training/cat/1.png", "unlabeled/1.png", "unlabeled/2.png"),
        ("train/1.png", "test/2.png", "cat/3.png"),
        ("train/cat/1.png", "bus/cat/1.png"),
    ],
)
def test_splits_beside_other_images_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    message = refusal(write(tmp_path, *names))
    assert f"imagefolder:{tmp_path}/{names[0].split('/', maxsplit=1)[0]}" in message


def test_a_class_called_test_is_to_be_renamed(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/1.png", "Test/1.png")
    assert "has Test beside cat and dog" in refusal(tmp_path)
    assert "give it another name" in refusal(tmp_path)


def test_the_vehicle_is_a_class_and_that_is_said(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "bus/1.png", "train/1.png"))
    assert source.class_names == ("bus", "train")
    assert source.notes == (f"{tmp_path}: takes the folder train for a class, as images lie directly in it",)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_stands_twice_is_refused(tmp_path: Path, split: str) -> None:
    write(tmp_path, "Train/a/1.png", "training/a/1.png", "test/a/1.png", "Testing/a/1.png")
    assert f"for the {split} split; name one" in refusal(tmp_path, split)


def test_a_missing_split_names_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, "Valid/cat/1.png")
    message = refusal(tmp_path)
    assert "has Valid but no train folder for the train split" in message
    assert message.endswith(f"imagefolder:{tmp_path}/Valid")


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("dataset/train/cat/1.png", "dataset/test/cat/1.png"), "dataset"),
        (("dataset/Training/cat/1.png",), None),
        (("data/images/cat/1.png", "data/images/dog/1.png"), "data/images"),
        (("cats-v1/cat/1.png", "cats-v1/dog/1.png", "__MACOSX/cats-v1/._1.png"), "cats-v1"),
        (("a/train/cat/1.png", "a/test/cat/1.png", "b/train/cat/1.png", "b/val/cat/1.png"), "a"),
        (("dataset/train/cat/1.png", "dataset/test/cat/1.png", "docs/scheme.png"), "dataset"),
        (("train/all/cat/1.png", "train/all/dog/1.png", "test/cat/1.png"), "train/all"),
    ],
)
def test_a_root_too_high_names_the_right_one(
    tmp_path: Path, names: tuple[str, ...], named: str | None
) -> None:
    message = refusal(write(tmp_path, *names))
    if named is not None:
        assert f"imagefolder:{tmp_path}/{named}" in message
        assert len(opened(tmp_path / named)) > 0


def test_a_class_divided_in_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{split}/1.png" for name in ("bottle", "cable") for split in ("train", "test")))
    assert "arrange the folders as test/bottle" in refusal(tmp_path)


@pytest.mark.first_are_quick(120)
@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize(
    "names",
    [
        ("{}/cat/1.png",),
        ("{}/cat/1.png", "{}/dog/1.png"),
        ("data/{}/cat/1.png",),
        ("data/{}/cat/1.png", "data/{}/dog/1.png"),
        ("data/{}/cat/1.png", "other/{}/cat/1.png"),
        ("a/b/{}/cat/1.png", "c/d/{}/dog/1.png"),
        ("cat/{}/1.png", "dog/{}/1.png"),
        ("cat/{}/1.png", "cat/2.png", "dog/1.png"),
        ("cat/deep/{}/1.png", "dog/1.png"),
        ("train/{}/cat/1.png", "train/dog/1.png"),
        ("train/{}/cat/1.png", "test/cat/1.png"),
        ("train/cat/{}/1.png", "train/dog/1.png"),
        ("cat/1.png", "{}/cat/1.png"),
        ("{}_set/cat/1.png", "{}_set/dog/1.png", "other/cat/1.png"),
        ("{}2017/cat/1.png", "{}2017/dog/1.png", "annotations/cat/1.png"),
        ("seg_{}/cat/1.png", "seg_{}/dog/1.png", "seg_pred/1.png"),
        ("{}_images/1.png", "my-{}/1.png"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_constellation_packs_a_split_as_a_class(
    tmp_path: Path, name: str, names: tuple[str, ...], split: str
) -> None:
    write(tmp_path, *(place.format(name) for place in names))
    try:
        source = opened(tmp_path, split)
    except SourceError as error:
        message = str(error)
    else:
        folders = {part.lower() for file in source.files for part in Path(file).parts[:-1]}
        assert not folders & {name.lower() for name in SPLIT_NAMES}
        assert set(source.class_names) <= {"cat", "dog"}
        assert Path(source.root) != tmp_path
        return
    assert "\n" not in message
    assert "imagefolder:" in message


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ("training_set/a/1.png", "test_set/a/1.png"),
            "test_set and training_set may be splits; if test_set",
        ),
        (("train_images/1.png", "test_images/2.png"), "test_images and train_images may be splits"),
        (("train/val/cat/1.png", "train/cat/1.png"), "train: has val beside cat; if val holds class folders"),
        (("train/train/cat/1.png", "test/cat/1.png"), "train: holds train in place of classes"),
        (("cat/test/1.png", "cat/1.png"), "cat: holds test inside a class"),
    ],
)
def test_what_is_said_of_splits_in_odd_places(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    assert told in refusal(write(tmp_path, *names))


@pytest.mark.parametrize(
    "names", [("test_tube/1.png", "flask/1.png"), ("train station/1.png", "valley/1.png", "contest/2.png")]
)
def test_classes_whose_names_speak_of_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert opened(write(tmp_path, *names)).class_names == tuple(sorted(n.split("/")[0] for n in names))


def test_classes_of_vehicles_in_two_levels(tmp_path: Path) -> None:
    write(tmp_path, "vehicle/train/1.png", "vehicle/bus/1.png", "animal/cat/1.png")
    assert opened(tmp_path).class_names == ("animal", "vehicle")


def test_one_class_with_images_in_a_deeper_folder_is_still_one_class(tmp_path: Path) -> None:
    assert opened(write(tmp_path, "cat/deep/1.png")).class_names == ("cat",)


def test_classes_in_two_levels_are_told(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "animal/cat/1.png", "animal/dog/1.png", "plant/1.png"))
    assert source.class_names == ("animal", "plant")
    assert source.notes == (f"{tmp_path}: all images below animal (cat and dog) are of one class",)


def test_images_beside_the_classes_are_told(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "cat/1.png", "2.png", "3.png"))
    assert source.notes == (f"{tmp_path}: 2 images beside the class folders are left out",)


def test_a_missing_folder_hints_at_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, "Photos/cat/1.png", "other/cat/1.png")
    with pytest.raises(SourceError, match=r"No such file.*; did you mean imagefolder:.*/Photos\?$"):
        opened(tmp_path / "photo")
    with pytest.raises(SourceError, match=r"No such file or directory$"):
        opened(tmp_path / "zzz")


def test_images_in_unread_formats_are_counted_and_named(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "cat/1.png", "cat/2.HEIC".lower(), "cat/3.heic", "dog/1.png"))
    assert source.notes == (
        f"{tmp_path}: images in formats that are not read: 2 .heic; convert them to JPEG or PNG",
    )
    with pytest.raises(SourceError, match=r"emu: class without images .* not read: 1 \.heic; convert"):
        opened(write(tmp_path, "emu/1.heic"))


def test_a_link_to_a_folder_around_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "cat/deep/1.png")
    (tmp_path / "cat" / "deep" / "again").symlink_to(tmp_path / "cat")
    with pytest.raises(SourceError, match="again: links to a folder that it lies in"):
        opened(tmp_path)
