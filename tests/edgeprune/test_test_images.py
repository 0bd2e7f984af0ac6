"""What a network is tested on, and how its classes are matched with those of training."""

import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgeprune import BuildConfig, build_pack
from edgeprune.training.evaluation import open_test
from edgeprune_formats import ConfigError, PackWriter, open_pack

NAMES = ("abeja", "señal", "zèbre")


def folder(path, form, names=NAMES, count=3):
    """Write a folder of images for each class, whose names are composed in a form of Unicode."""
    for number, name in enumerate(names):
        place = path / unicodedata.normalize(form, name)
        place.mkdir(parents=True)
        for image in range(count):
            Image.new("RGB", (16, 16), (40 * number, 9 * image, 200)).save(place / f"{image}.png")
    return f"imagefolder:{path}"


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(("trained", "tested"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
@pytest.mark.parametrize("as_pack", [True, False])
def test_classes_match_however_accents_are_composed(tmp_path, trained, tested, as_pack):
    config = BuildConfig(tile="8", device="cpu")
    header = build_pack(folder(tmp_path / "train", trained), tmp_path / "train.h5", config).header
    spec = folder(tmp_path / "test", tested)
    if as_pack:
        build_pack(spec, tmp_path / "test.h5", config)
        spec = str(tmp_path / "test.h5")
    labels = np.concatenate([labels.numpy() for _, labels in open_test(spec, header)])
    assert np.bincount(labels).tolist() == [3, 3, 3]
    for images, labels in open_test(spec, header):
        red = images[:, 0].mean(dim=(1, 2)) * header.std[0] + header.mean[0]
        place = {unicodedata.normalize("NFC", name): number for number, name in enumerate(NAMES)}
        shown = [place[unicodedata.normalize("NFC", header.class_names[label])] for label in labels.tolist()]
        np.testing.assert_allclose(red, np.array(shown) * 40 / 255, atol=0.05)


def test_other_classes_are_named(tmp_path):
    header = build_pack(
        folder(tmp_path / "train", "NFC"), tmp_path / "p.h5", BuildConfig(tile="8", device="cpu")
    ).header
    with pytest.raises(ConfigError, match="classes that the training pack lacks: señor"):
        open_test(folder(tmp_path / "test", "NFC", ("abeja", "señor")), header)


def test_a_test_set_of_one_image(tmp_path):
    config = BuildConfig(tile="8", device="cpu")
    header = build_pack(folder(tmp_path / "train", "NFC"), tmp_path / "p.h5", config).header
    spec = folder(tmp_path / "test", "NFC", ("zèbre",), 1)
    ((images, labels),) = open_test(spec, header)
    assert tuple(images.shape) == (1, 3, 16, 16)
    assert labels.tolist() == [header.class_names.index("zèbre")]


@pytest.mark.parametrize("as_pack", [True, False])
def test_a_class_without_images_need_not_be_known(tmp_path, as_pack):
    config = BuildConfig(tile="8", device="cpu")
    header = build_pack(folder(tmp_path / "train", "NFC"), tmp_path / "p.h5", config).header
    rows = np.arange(6)
    pixels = np.full((6, 16, 16, 3), 9, np.uint8)
    names = np.array(["zèbre", "yak", "abeja"])
    np.savez(tmp_path / "t.npz", x=pixels, y=np.where(rows < 2, 0, 2), class_names=names)
    spec = f"npz:{tmp_path / 't.npz'}"
    if as_pack:
        with open_pack(tmp_path / "p.h5") as pack:
            other = replace(pack.header, class_names=(*names, "emu"), samples=3, chunk_samples=3)
            kept = pack.labels[:3] % 2 * 2
            with PackWriter(tmp_path / "t.h5", other, kept, pack.source_index[:3]) as writer:
                writer.append_coefficients(pack.read_chunk(0).take(np.arange(3)))
        spec = str(tmp_path / "t.h5")
    labels = np.concatenate([labels.numpy() for _, labels in open_test(spec, header)])
    assert {header.class_names[label] for label in labels} <= {"abeja", "zèbre"}
    if not as_pack:
        assert labels.tolist() == [2, 2, 0, 0, 0, 0]


def test_images_of_an_unknown_class_are_an_error_that_names_it(tmp_path):
    header = build_pack(
        folder(tmp_path / "train", "NFC"), tmp_path / "p.h5", BuildConfig(tile="8", device="cpu")
    ).header
    more = build_pack(
        folder(tmp_path / "more", "NFD", (*NAMES, "yak", "emu")), tmp_path / "m.h5", BuildConfig(tile="8")
    )
    with pytest.raises(ConfigError, match=r"m\.h5 has images of classes .*: emu, yak; leave them out"):
        open_test(str(more.path), header)
