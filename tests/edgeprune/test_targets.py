"""Columns of targets on their way from a source to packs, and what is learned of them."""

import json
import re

import h5py
import numpy as np
import pytest
from target_packs import target_pack

from edgeprune import BuildConfig, build_pack
from edgeprune.packs.build import build_share
from edgeprune.packs.planning.plan import Share
from edgeprune.packs.writing.assembly import assemble
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.repack.repair import repair_pack
from edgeprune.repack.split import split_pack
from edgeprune.sources import check_source, open_source
from edgeprune.training.evaluation import TestImages, open_test
from edgeprune_formats import ConfigError, open_pack, verify_pack
from edgeprune_formats.files import file_sha256

N = 40
CONFIG = BuildConfig(tile="8", device="cpu")


@pytest.fixture
def command(edgeprune):
    def run(*arguments, code=0):
        found, out, err = edgeprune(*map(str, arguments))
        assert found == code, (out, err)
        return out + err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("targets")


@pytest.fixture(scope="module")
def source(folder):
    """Images of one color each, whose targets can be told from it."""
    levels = np.random.default_rng(0).integers(0, 256, N)
    pixels = np.broadcast_to(levels[:, None, None, None], (N, 16, 16, 3)).astype(np.uint8)
    np.savez(
        folder / "a.npz",
        x=pixels,
        y=levels * 2 // 256,
        light=levels / 255,
        tags=np.stack([levels < 128, levels % 2 == 1], axis=1),
        tags_names=np.array(["dark", "odd"]),
        level=levels,
    )
    return f"npz:{folder / 'a.npz'}?target=light:value&target=tags:multilabel&target=level"


@pytest.fixture(scope="module")
def built(folder, source):
    build_pack(source, folder / "a.h5", CONFIG)
    return folder / "a.h5"


def assert_in_step(path, count=None):
    """Columns and labels are those of their images."""
    assert verify_pack(path) == []
    with open_pack(path) as pack:
        targets = pack.targets
        levels = targets["level"].read()
        assert len(set(levels.tolist())) > 3
        assert pack.labels.tolist() == (levels * 2 // 256).tolist()
        np.testing.assert_allclose(targets["light"].read()[:, 0], levels / 255, atol=1e-6)
        np.testing.assert_array_equal(targets["tags"].read()[:, 0], levels < 128)
        assert targets["tags"].classes == ("dark", "odd")
        from edgeprune_runtime import PackDataset

        images = PackDataset(pack, backend="scipy", targets=("level",))
        assert all(abs(255 * image.mean() - level) < 4 for image, level in images)
        assert count is None or len(pack) == count


def test_build(built):
    assert_in_step(built, N)


def test_a_part_of_the_images(folder, source):
    build_pack(source, folder / "half.h5", BuildConfig(tile="8", sample_prune=0.5, device="cpu"))
    assert_in_step(folder / "half.h5", N // 2)


def test_without_targets_a_pack_has_no_group(folder, source):
    build_pack(source.partition("?")[0], folder / "plain.h5", CONFIG)
    with h5py.File(folder / "plain.h5") as file:
        assert "targets" not in file


def test_in_parts(folder, source, built, monkeypatch):
    monkeypatch.setattr("edgeprune_formats.packs.chunks.TARGET_CHUNK_BYTES", 4096)
    parts = folder / "parts"
    for number in (1, 2):
        build_share(source, parts, Share(number, 2), CONFIG)
    assemble(parts, folder / "assembled.h5")
    assert_in_step(folder / "assembled.h5", N)
    other = source.replace("tags:multilabel", "level2=level")
    assert build_share(other, parts, Share(1, 2), CONFIG).made


@pytest.mark.slow
def test_split_and_merge(folder, built):
    parts = split_pack(built, folder / "parts-{part}.h5", 3)
    for part in parts:
        assert_in_step(part.path)
    merge_packs([part.path for part in parts], folder / "merged.h5")
    assert_in_step(folder / "merged.h5", N)


def test_merging_packs_of_other_columns(folder, built, source):
    spec = source.partition("&")[0]
    build_pack(spec, folder / "fewer.h5", CONFIG)
    with pytest.raises(ConfigError, match=r"a\.h5: has target 'level', and .*fewer\.h5 has not"):
        merge_packs([built, folder / "fewer.h5"], folder / "no.h5", allow_duplicates=True)
    build_pack(source.replace("light:value", "light:float"), folder / "other.h5", CONFIG)
    with pytest.raises(ConfigError, match=r"other\.h5: target 'light' is of kind float"):
        merge_packs([built, folder / "other.h5"], folder / "no.h5", allow_duplicates=True)


def test_convert(folder, built):
    convert_pack(built, folder / "converted.h5", BuildConfig(codec="sparse-f32", freq_prune=0.0))
    assert_in_step(folder / "converted.h5", N)


def test_repair(folder, built, command):
    damaged = folder / "damaged.h5"
    damaged.write_bytes(built.read_bytes())
    with h5py.File(built) as file:
        place = file["targets/1"].id.get_offset()
    with damaged.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff")
    report = repair_pack(damaged, folder / "repaired.h5")
    assert list(report.lost_targets) == ["tags"]
    with open_pack(folder / "repaired.h5") as pack:
        assert list(pack.targets) == ["label", "light", "level"]
        assert pack.header.provenance["repaired"]["lost_targets"] == ["tags"]
    assert "lost: target tags" in command("repair", damaged, "-o", folder / "again.h5")


def test_info(built, command):
    text = command("info", built)
    assert "  targets     light: value, 1 number an image\n" in text
    assert "tags: multilabel, 2 classes: dark, odd" in text
    facts = json.loads(command("info", built, "--json"))
    assert [target["name"] for target in facts["targets"]] == ["light", "tags", "level"]


def test_a_pack_without_classes(folder, command):
    path = target_pack(folder / "bare.h5", class_names=(), columns=("value", "row"))
    assert "classes     none" in command("info", path)
    split_pack(path, folder / "bare-{part}.h5", 2)
    merge_packs([folder / f"bare-{part}.h5" for part in (1, 2)], folder / "bare-merged.h5")
    repair_pack(path, folder / "bare-repaired.h5")
    command("preview", path, "-o", folder / "bare.png")
    for made in ("bare-1.h5", "bare-merged.h5", "bare-repaired.h5"):
        with open_pack(folder / made) as pack:
            rows = pack.targets["row"].read()
            assert len(pack.targets["value"].read()) == len(rows) == len(pack)
    command("split", path, "-n", "2", "--by", "class", "-o", folder / "no", code=2)


def test_build_without_classes(folder, source, command):
    with np.load(folder / "a.npz") as arrays:
        np.savez(folder / "bare.npz", **{name: arrays[name] for name in ("x", "light", "level")})
    spec = folder / "bare.npz"
    arguments = ("build", f"npz:{spec}", "--target", "light:value", "--tile", "8", "-o", folder / "b.h5")
    text = command(*arguments, "--target", "level")
    assert "images of 16x16, targets light (value), level (integer), " in text
    with open_pack(folder / "b.h5") as pack:
        assert list(pack.targets) == ["light", "level"]
    text = command(*arguments[:-1], folder / "c.h5", "--method", "je", code=2)
    assert "has no classes, by which method je chooses" in text


def trained(command, folder, pack, target, *more):
    run = folder / f"run-{target}"
    text = command(
        "train", pack, "--target", target, "--model", "resnet8", "--epochs", 2, "--batch-size", 8, "--device",
        "cpu", "-o", run, *more,
    )  # fmt: skip
    return run, text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "measured"), [("light", "test mean absolute error"), ("tags", "test mean average precision")]
)
def test_train_predict_and_export(folder, built, source, command, target, measured):
    pytest.importorskip("onnxscript")
    run, text = trained(command, folder, built, target, "--test", source.partition("?")[0])
    assert measured in text
    metrics = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert "test_r2" in metrics or "test_map" in metrics
    text = command(
        "export", run, "-o", folder / f"{target}.onnx", "--pack", built, "--test", built, "--int8", "--force"
    )
    assert measured.removeprefix("test ") in text
    told = {
        "light": r"values differ by \d\.\d{3} standard deviations in the mean",
        "tags": "the same labels for",
    }
    assert re.search(f"int8 against float32   {told[target]}", text)
    for model in (run, folder / f"{target}.onnx"):
        lines = [json.loads(line) for line in command("predict", model, built, "--json").splitlines()]
        assert len(lines) == N
        if target == "tags":
            assert {one["class"] for one in lines[0]["top"]} == {"dark", "odd"}
            assert "%" in command("predict", model, built)
        else:
            assert len(lines[0]["value"]) == 1


def test_a_target_that_a_pack_lacks_or_that_describes_images(folder, built, command):
    text = command("train", built, "--target", "age", "-o", folder / "no", code=2)
    assert "has no target 'age'; those it has: label, light, tags, level" in text
    text = command("train", built, "--target", "level", "-o", folder / "no", code=2)
    assert "'level' is of kind integer, which describes images" in text
    assert not (folder / "no").exists()


def light_source(path, levels, *, bare=False, **more):
    """Write images of one color with the target ``light``, and others; return the source."""
    pixels = np.broadcast_to(np.array(levels)[:, None, None, None], (len(levels), 16, 16, 3))
    labels = {} if bare else {"y": np.arange(len(levels)) % 2}
    np.savez(path, x=pixels.astype(np.uint8), light=np.array(levels) / 255, **labels, **more)
    return f"npz:{path}"


@pytest.fixture
def packs(tmp_path, built):
    """A folder with one pack of the targets light, tags and level."""
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "a.h5").write_bytes(built.read_bytes())
    return tmp_path / "packs"


LEVELS = [3, 50, 101, 150, 201, 254]


def tagged(path, names=("odd", "new", "dark"), **more):
    """Write a source whose tags are in another order, with one that no image has."""
    levels = np.array(LEVELS)
    tags = np.stack([levels % 2 == 1, levels > 999, levels < 128], axis=1)
    arrays = {"tags": tags, "tags_names": np.array(names), "level": levels, **more}
    return light_source(path, LEVELS, **{name: array for name, array in arrays.items() if array is not None})


def test_add_takes_the_targets_that_the_packs_have(packs, tmp_path, command):
    text = command("add", tagged(tmp_path / "b.npz"), "-o", packs)
    assert "6 images in 2 classes, 0 of them new, targets light (value), tags (multilabel), level (i" in text
    with open_pack(packs / "a0001.h5") as pack:
        levels = pack.targets["level"].read()
        assert sorted(levels.tolist()) == LEVELS
        assert pack.targets["tags"].classes == ("dark", "odd")
        expected = np.stack([levels < 128, levels % 2 == 1], axis=1)
        np.testing.assert_array_equal(pack.targets["tags"].read(), expected)
        np.testing.assert_allclose(pack.targets["light"].read()[:, 0], levels / 255, atol=1e-6)
    merge_packs(sorted(packs.iterdir()), tmp_path / "merged.h5")
    with open_pack(tmp_path / "merged.h5") as pack:
        assert len(pack.targets["tags"].read()) == N + len(LEVELS)


def test_add_takes_columns_that_are_named_otherwise(packs, tmp_path, command):
    spec = tagged(tmp_path / "b.npz", level=None, gray=np.array(LEVELS))
    assert "has no array 'level' for a target" in command("add", spec, "-o", packs, code=1)
    command("add", spec, "--target", "level=gray", "-o", packs)
    with open_pack(packs / "a0001.h5") as pack:
        assert sorted(pack.targets["level"].read().tolist()) == LEVELS


def test_add_makes_a_target_of_the_columns_that_it_was_made_of(tmp_path, command):
    place = tmp_path / "joined"
    place.mkdir()
    spec = light_source(tmp_path / "b.npz", LEVELS, a=np.array(LEVELS), b=np.array(LEVELS) * 2)
    build_pack(f"{spec}?target=pose=a+b:value", place / "0.h5", CONFIG)
    others = np.array(LEVELS) + 1
    command("add", light_source(tmp_path / "c.npz", others, a=others, b=others * 3), "-o", place)
    with open_pack(place / "1.h5") as pack:
        assert sorted(pack.targets["pose"].read().tolist()) == [[level, 3 * level] for level in others]
    # The next one follows the pack that was added.
    poses = light_source(tmp_path / "d.npz", others - 3, pose=np.stack([others, others], axis=1))
    assert "has no array 'a' for a target" in command("add", poses, "-o", place, code=1)
    command("add", poses, "--target", "pose:value", "-o", place)


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ((), {"names": ("bright", "new", "dark")}, "target 'tags' has images of classes that"),
        (("--target", "light:float"), {}, "target 'light' is float of 1, and value of 1 in"),
        (("--target", "level2=level"), {}, "has target 'level2', and"),
    ],
)
def test_add_refuses_other_targets(packs, tmp_path, command, options, changes, words):
    text = command("add", tagged(tmp_path / "b.npz", **changes), *options, "-o", packs, code=2)
    assert (words in text, len(text.splitlines())) == (True, 1)
    assert [path.name for path in packs.iterdir()] == ["a.h5"]


def test_add_of_a_source_that_has_no_columns(packs, command):
    text = command("add", "digits", "-o", packs, code=2)
    assert "digits: gives no targets, and " in text
    assert "a.h5 has target 'light'; take a source that has it" in text


def test_add_without_classes(tmp_path, packs, command):
    bare = light_source(tmp_path / "b.npz", LEVELS, bare=True)
    place = tmp_path / "bare"
    place.mkdir()
    build_pack(f"{bare}?target=light:value", place / "0.h5", CONFIG)
    more = light_source(tmp_path / "c.npz", LEVELS[1:], bare=True)
    assert "1.h5: 5 images, target light (value); " in command("add", more, "-o", place)
    classed = light_source(tmp_path / "d.npz", LEVELS[2:])
    assert "has classes, and " in command("add", classed, "-o", place, code=2)
    build_pack(f"{classed}?target=light:value", packs / "a.h5", CONFIG)
    assert "c.npz?target=light:value: has no classes, and " in command("add", more, "-o", packs, code=2)


def test_the_test_sets_classes_of_a_column_are_matched_by_name(tmp_path, built):
    with open_pack(built) as pack:
        header, column = pack.header, pack.targets["tags"].column
    batches = open_test(tagged(tmp_path / "b.npz"), header, column=column)
    found = np.concatenate([wanted.numpy() for _, wanted in batches])
    np.testing.assert_array_equal(found, [[level < 128, level % 2 == 1] for level in LEVELS])
    other = tagged(tmp_path / "c.npz", ("odd", "new", "bright"))
    with pytest.raises(ConfigError, match="images of classes that the training pack lacks: bright;"):
        open_test(other, header, column=column)


def test_a_test_set_without_classes(tmp_path, built):
    bare = target_pack(tmp_path / "bare.h5", side=16, class_names=(), columns=("value",))
    with open_pack(built) as pack, pytest.raises(ConfigError, match="has no target 'label' to test"):
        open_test(str(bare), pack.header)


@pytest.mark.slow
def test_a_test_set_that_lacks_the_target(folder, built, source, command):
    arguments = "train", built, "--target", "light", "-o", folder / "no", "--test"
    build_pack(source.partition("?")[0], folder / "plain.h5", CONFIG)
    text = command(*arguments, folder / "plain.h5", code=2)
    assert "has no target 'light' to test; those it has: label" in text
    build_pack(source.replace("light:value", "light:float"), folder / "other.h5", CONFIG)
    text = command(*arguments, folder / "other.h5", code=2)
    assert "target 'light' is of kind float, and was trained as kind value, 1 number" in text


@pytest.mark.parametrize("name", ["light", "tags"])
def test_a_test_set_is_known_by_the_values_that_are_learned(tmp_path, built, source, name):
    with open_pack(built) as pack:
        header, column = pack.header, pack.targets[name].column
    file, _, query = source.removeprefix("npz:").partition("?")
    arrays = dict(np.load(file))
    for folder, values in (("moved", arrays[name]), ("changed", arrays[name][::-1])):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", **arrays | {name: values})
    moved, changed = (f"npz:{tmp_path / folder / 'a.npz'}?{query}" for folder in ("moved", "changed"))
    known = TestImages(source, header, column=column).sha256
    assert TestImages(moved, header, column=column).sha256 == known
    assert TestImages(changed, header, column=column).sha256 != known
    # Of labels as it was before anything else could be learned, whatever other columns there are.
    plain = source.partition("?")[0]
    assert {TestImages(one, header).sha256 for one in (source, moved, changed, plain)} == {
        check_source(open_source(plain, split="test")).sha256
    }
    assert TestImages(str(built), header, column=column).sha256 == file_sha256(built)
