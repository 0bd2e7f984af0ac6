"""Packs that are added beside others: ``edgeprune add``."""

import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgeprune import BuildConfig, build_pack
from edgeprune.errors import SourceError
from edgeprune.packs.addition import add_images
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune_formats import ConfigError, PackWriteError, PackWriter, open_pack, verify_pack
from edgeprune_runtime import PackLoader, open_packs
from edgeprune_runtime.networks.trained import load_trained

BASE = ("bee", "ca\u00f1a", "dog")
CONFIG = BuildConfig(codec="quantized", tile="8", quality=60, color="rgb", rounding="deadzone")
BRIGHTNESS = {"bee": 20, "ca\u00f1a": 90, "dog": 160, "eel": 230}


def write_source(path, names, count=4, *, side=16, seed=0):
    """Write images that are as bright as their class, with the names given; return the source."""
    random = np.random.default_rng(seed)
    labels = np.arange(count * len(names)) % len(names)
    level = [BRIGHTNESS[unicodedata.normalize("NFC", name)] for name in names]
    pixels = random.integers(-8, 9, (len(labels), side, side, 3)) + np.array(level)[labels, None, None, None]
    np.savez(path, x=pixels.astype(np.uint8), y=labels, class_names=np.array(names))
    return f"npz:{path}"


@pytest.fixture
def folder(tmp_path, base):
    """A folder with one pack, ``photos.h5``."""
    place = tmp_path / "packs"
    place.mkdir()
    (place / "photos.h5").write_bytes(base.read_bytes())
    return place


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place = tmp_path_factory.mktemp("base")
    return build_pack(write_source(place / "a.npz", BASE), place / "photos.h5", CONFIG).path


@pytest.fixture
def more(tmp_path):
    """More images, of two known classes and a new one, in another order and spelling."""
    return write_source(
        tmp_path / "more.npz", ("eel", unicodedata.normalize("NFD", "ca\u00f1a"), "bee"), seed=1
    )


def test_the_images_lie_in_a_pack_beside_the_others(edgeprune, folder, more):
    before = (folder / "photos.h5").read_bytes()
    code, out, _ = edgeprune("add", more, "-o", folder)
    assert code == 0
    assert out.startswith(f"{folder / 'photos0001.h5'}: 12 images in 3 classes, 1 of them new (eel); ")
    assert (folder / "photos.h5").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["photos.h5", "photos0001.h5"]
    assert verify_pack(folder / "photos0001.h5") == []


def test_it_is_as_the_others_are(folder, more):
    added = add_images(more, folder).report.header
    with open_pack(folder / "photos.h5") as pack:
        like = pack.header
    for name in ("shape", "codec", "components", "tile", "color_space", "step", "mean", "std"):
        assert getattr(added, name) == getattr(like, name), name
    assert added.class_names == (*BASE, "eel")
    assert added.provenance["config"]["rounding"] == "deadzone"
    assert added.provenance["config"]["quality"] == pytest.approx(60)


def test_it_is_rounded_as_the_last_pack_was_converted(folder, more):
    (folder / "photos.h5").rename(folder.parent / "first.h5")
    convert_pack(folder.parent / "first.h5", folder / "photos.h5", replace(CONFIG, rounding="nearest"))
    assert add_images(more, folder).report.header.provenance["config"]["rounding"] == "nearest"


def test_labels_are_matched_by_name_and_everything_can_be_mixed(folder, more):
    paths = [folder / "photos.h5", add_images(more, folder).report.path]
    with open_packs(paths) as packs:
        assert packs.header.class_names == (*BASE, "eel")
        assert packs.header.mean == packs.packs[0].header.mean
        ((images, labels),) = PackLoader(packs, 24, backend="scipy")
    bright = images.mean((1, 2, 3)) * 255
    wanted = np.array([BRIGHTNESS[name] for name in (*BASE, "eel")])[labels]
    np.testing.assert_allclose(bright, wanted, atol=6)


@pytest.mark.parametrize(
    ("codec", "options"),
    [("sparse-f32", {"compression": "gzip", "freq_prune": 0.7}), ("sparse-f16", {"freq_prune": 0.4})],
)
def test_packs_of_other_codecs(tmp_path, more, codec, options):
    first = tmp_path / "packs" / "0.h5"
    first.parent.mkdir()
    build_pack(write_source(tmp_path / "a.npz", BASE), first, BuildConfig(codec=codec, **options))
    made = add_images(more, first.parent).report.path
    assert made.name == "1.h5"
    with open_pack(first) as one, open_pack(made) as other:
        for name in ("codec", "components", "tile", "step", "color_space"):
            assert getattr(one.header, name) == getattr(other.header, name), name
        assert one.compression == other.compression


@pytest.mark.parametrize(
    ("last", "following"),
    [
        ("photos.h5", "photos0001.h5"),
        ("photos0009.h5", "photos0010.h5"),
        ("a9.h5", "a90001.h5"),
        ("0000.h5", "0001.h5"),
        ("set-07.h5", "set-08.h5"),
    ],
)
def test_names_are_in_the_order_of_time(folder, more, last, following):
    (folder / "photos.h5").rename(folder / last)
    names = [last, add_images(more, folder).report.path.name]
    assert names[1] == following
    assert names == sorted(names)


def test_several_additions_follow_each_other(folder, tmp_path):
    for number, names in enumerate((("dog", "eel"), ("eel",), ("bee",))):
        added = add_images(write_source(tmp_path / f"{number}.npz", names, seed=number + 3), folder)
        assert added.new_classes == (("eel",) if number == 0 else ())
        assert added.report.path.name == f"photos000{number + 1}.h5"
        assert added.report.header.class_names == (*BASE, "eel")


def test_two_at_once_get_two_names(folder, tmp_path):
    specs = [write_source(tmp_path / f"{number}.npz", ("dog", "eel"), seed=number + 3) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        paths = [added.report.path.name for added in pool.map(lambda spec: add_images(spec, folder), specs)]
    assert sorted(paths) == ["photos0001.h5", "photos0002.h5", "photos0003.h5"]
    assert len(open_packs(sorted(folder.iterdir()))) == 12 + 3 * 8


def test_scores_beside_a_pack_are_no_pack(folder, more):
    (folder / "photos.scores.h5").write_bytes(b"of another kind")
    (folder / "._photos.h5").write_bytes(b"of another system")
    assert add_images(more, folder).report.path.name == "photos0001.h5"


def test_a_class_that_has_no_image_is_not_appended(folder, tmp_path):
    path = tmp_path / "few.npz"
    names = np.array(["fly", "dog"])
    np.savez(path, x_test=np.full((2, 16, 16, 3), 160, np.uint8), y_test=[1, 1], class_names=names)
    np.savez(path, **np.load(path), x_train=np.zeros((2, 16, 16, 3), np.uint8), y_train=[0, 1])
    added = add_images(f"npz:{path}", folder, split="test")
    assert added.report.header.class_names == BASE


@pytest.mark.parametrize("present", [False, True])
def test_a_folder_without_packs(edgeprune, tmp_path, more, present):
    if present:
        (tmp_path / "none").mkdir()
    code, out, err = edgeprune("add", more, "-o", tmp_path / "none")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "none: holds no pack (*.h5) to add to; build the first one with edgeprune build" in err
    assert present == (tmp_path / "none").exists()


def test_packs_that_differ_in_shape(folder, more, tmp_path):
    build_pack(write_source(tmp_path / "b.npz", BASE, side=8), folder / "small.h5", CONFIG)
    with pytest.raises(ConfigError, match=r"small\.h5: images of shape .*photos\.h5 have .*; keep packs"):
        add_images(more, folder)


def test_packs_that_differ_otherwise_are_followed_as_the_last_is(folder, more, tmp_path):
    build_pack(write_source(tmp_path / "b.npz", BASE, seed=7), folder / "z.h5", replace(CONFIG, quality=30))
    added = add_images(more, folder).report
    assert added.path.name == "z0001.h5"
    with open_packs([folder / "photos.h5", folder / "z.h5"]) as packs:
        assert added.header.step == packs.packs[1].header.step
        assert (added.header.mean, added.header.std) == (packs.header.mean, packs.header.std)


def test_images_of_another_size_are_scaled_where_the_packs_are_square(folder, tmp_path):
    large = write_source(tmp_path / "large.npz", ("dog",), side=40)
    assert add_images(large, folder).report.header.shape == (3, 16, 16)


def test_images_of_another_size_than_oblong_packs(tmp_path, base, more):
    place = tmp_path / "packs"
    place.mkdir()
    with open_pack(base) as pack:
        header = replace(
            pack.header, height=8, width=24, codec="sparse-f32", components=1, step=0.0, tile="full"
        )
        with PackWriter(place / "a.h5", header, pack.labels, pack.source_index) as writer:
            writer.append_coefficients(writer_coefficients(header))
    with pytest.raises(
        ConfigError,
        match=r"more\.npz: images of shape \(3, 16, 16\) and 8 bits, and the packs .*\(3, 8, 24\)",
    ):
        add_images(more, place)


def writer_coefficients(header):
    from random_coefficients import random_coefficients

    return random_coefficients(header)


def test_images_that_are_there_already(folder, more):
    add_images(more, folder)
    with pytest.raises(ConfigError, match=r"there is no new image; .*photos0001\.h5 was built from these"):
        add_images(more, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["photos.h5", "photos0001.h5"]
    merge_packs([folder / "photos.h5", folder / "photos0001.h5"], folder / "all.h5")
    for name in ("photos.h5", "photos0001.h5"):
        (folder / name).unlink()
    with pytest.raises(ConfigError, match=r"there is no new image; .*all\.h5 was built from these"):
        add_images(more, folder)


def test_classes_that_differ_only_in_normalization(folder, tmp_path):
    both = ("ca\u00f1a", unicodedata.normalize("NFD", "ca\u00f1a"))
    twins = write_source(tmp_path / "twins.npz", both)
    message = r"twins\.npz: classes 'ca\\xf1a' and 'can\\u0303a' differ only in"
    with pytest.raises(SourceError, match=message):
        add_images(twins, folder)


def test_an_error_leaves_nothing_and_names_the_folder(folder, more, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeprune_formats.packs.writer.publish", full)
    with pytest.raises(PackWriteError, match=r"packs: the disk is full"):
        add_images(more, folder)
    assert [path.name for path in folder.iterdir()] == ["photos.h5"]


@pytest.mark.slow
def test_torch_is_not_needed(folder, more):
    code = "import sys; sys.modules['torch'] = None; from edgeprune.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "add", more, "-o", folder], capture_output=True, text=True, check=True
    )
    assert "photos0001.h5: 12 images" in done.stdout


@pytest.mark.slow
def test_a_run_grows_with_the_folder(edgeprune, folder, more, tmp_path):
    options = ("--model", "resnet8", "--epochs", 2, "--batch-size", 4, "--device", "cpu")
    code, _, _ = edgeprune("train", folder / "photos.h5", *options, "-o", tmp_path / "first")
    assert code == 0
    assert edgeprune("add", more, "-o", folder)[0] == 0
    packs = sorted(folder.iterdir())
    command = ("train", *packs, *options, "--init", tmp_path / "first", "--replay", 0.5, "--test", more)
    code, out, err = edgeprune(*command, "-o", tmp_path / "second")
    assert code == 0
    assert "replay: 2 of 4 images in a batch are of the 12 old ones; an epoch is the 12 new ones once" in out
    assert "classes of the last layer: 3 kept by name, 1 new (eel)" in err
    run = load_trained(tmp_path / "second")
    assert run.class_names == (*BASE, "eel")
    assert edgeprune("train", *packs, "-o", tmp_path / "second", "--resume")[0] == 0
    code, _, err = edgeprune("train", *packs, "--replay", 0.25, "-o", tmp_path / "second", "--resume")
    assert code == 2
    assert "resumed: replay share was 0.5 and is now 0.25;" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--replay", 1.5], "--replay must be above 0 and below 1, not 1.5"),
        (["--replay", 0.5], "replay needs packs of old images before the new ones, and one pack was given"),
        (["--new-packs", 2], "--new-packs needs --replay"),
    ],
)
def test_replay_that_cannot_be(edgeprune, folder, tmp_path, arguments, words):
    code, _, err = edgeprune("train", folder / "photos.h5", *arguments, "-o", tmp_path / "run")
    assert code == 2
    assert words in err
    assert not (tmp_path / "run").exists()


def test_gray_images_beside_gray_packs(tmp_path, edgeprune):
    """Color images are added to them as gray ones."""
    place, images = tmp_path / "packs", np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("u1")
    place.mkdir()
    for name, pixels in (("gray", images[..., 0]), ("color", images)):
        np.savez(tmp_path / f"{name}.npz", x=pixels, y=np.arange(8) % 2)
    assert edgeprune("build", f"npz:{tmp_path / 'gray.npz'}", "-o", place / "a.h5", "-q")[0] == 0
    code, _, err = edgeprune("add", f"npz:{tmp_path / 'color.npz'}", "-o", place)
    assert code == 0, err
    assert [open_pack(path).header.shape for path in sorted(place.glob("*.h5"))] == [(1, 16, 16)] * 2


def test_images_with_alpha_beside_packs_that_have_it(tmp_path, edgeprune):
    """Their alpha is kept, and images without any are opaque."""
    place, random = tmp_path / "packs", np.random.default_rng(0)
    place.mkdir()
    sources = {}
    for name, mode in (("first", "RGBA"), ("second", "RGBA"), ("opaque", "RGB")):
        sources[name] = random.integers(0, 256, (4, 4, 4, len(mode)), np.uint8).repeat(4, 1).repeat(4, 2)
        for number, pixels in enumerate(sources[name]):
            path = tmp_path / name / "train" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels, mode).save(path)
    exact = "--codec", "sparse-f32", "--freq-prune", "0"
    first = edgeprune(
        "build", f"imagefolder:{tmp_path / 'first'}", "--channels", "rgba", *exact, "-o", place / "a.h5"
    )
    assert first[0] == 0, first[2]
    for name in ("second", "opaque"):
        code, _, err = edgeprune("add", f"imagefolder:{tmp_path / name}", "-o", place)
        assert code == 0, err
        added = max(place.glob("*.h5"))
        loader = PackLoader(added, 4, backend="scipy")
        (images, _), *_ = loader
        pixels = np.rint(255 * images).astype(np.uint8).transpose(0, 2, 3, 1)
        wanted = sources[name][[0, 2, 1, 3]][loader.pack.source_index]
        assert np.array_equal(pixels[..., :3], wanted[..., :3])
        assert np.array_equal(
            pixels[..., 3:], wanted[..., 3:] if name == "second" else 255 + 0 * wanted[..., :1]
        )
