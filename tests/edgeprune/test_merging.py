import math
from dataclasses import replace

import numpy as np
import pytest
from random_coefficients import header_of, random_coefficients
from repacked import stored

from edgeprune import BuildConfig
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.repack.partition import parse_by
from edgeprune.repack.split import split_pack
from edgeprune_formats import ConfigError, PackWriter, open_pack, verify_pack


@pytest.fixture
def make(tmp_path):
    """Write a small pack whose images carry their number in the class and row given."""

    def write(name, *, rows=None, codec="sparse-f32", size=(12, 20), seed=0, scores=None, **changes):
        shape = {key: changes.pop(key) for key in ("tile", "color", "components") if key in changes}
        rows = np.arange(9) if rows is None else np.asarray(rows)
        header = replace(
            header_of(codec, size, samples=len(rows), chunk_samples=min(4, len(rows)), **shape), **changes
        )
        labels = np.random.default_rng(seed).integers(0, len(header.class_names), len(rows))
        with PackWriter(tmp_path / name, header, labels, rows, scores=scores) as writer:
            writer.append_coefficients(random_coefficients(header, seed))
        return tmp_path / name

    return write


def source(name, images=100, **facts):
    return {"source": {"spec": f"npz:{name}.npz", "sha256": name * 64, "images": images}, **facts}


def images_of(path):
    """The stored bytes of each image, label and row, in order."""
    with open_pack(path) as pack:
        return list(zip(stored(pack), pack.labels.tolist(), pack.source_index.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("held", [1, 4000, 2**40])
@pytest.mark.parametrize("codec", ["sparse-f32", "quantized"])
def test_all_images_are_there_in_another_order(make, tmp_path, monkeypatch, codec, held):
    monkeypatch.setattr("edgeprune.repack.merge.HELD_BYTES", held)
    paths = [
        make(f"{n}.h5", codec=codec, rows=np.arange(20) + 20 * n, seed=n, provenance=source("a"))
        for n in range(3)
    ]
    done = []
    report = merge_packs(
        paths, tmp_path / "m.h5", progress=lambda images, total: done.append((images, total))
    )
    given = [image for path in paths for image in images_of(path)]
    merged = images_of(tmp_path / "m.h5")
    assert sorted(merged) == sorted(given)
    assert merged != given
    assert verify_pack(tmp_path / "m.h5") == []
    assert open_pack(tmp_path / "m.h5").header == report.header
    assert done[-1] == (60, 60)


def test_the_seed_decides_the_order(make, tmp_path):
    paths = [make("a.h5", rows=np.arange(9)), make("b.h5", rows=np.arange(9) + 9)]
    orders = []
    for seed in (0, 0, 1):
        merge_packs(paths, tmp_path / "m.h5", seed=seed)
        orders.append(images_of(tmp_path / "m.h5"))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_statistics_are_pooled(make, tmp_path):
    random = np.random.default_rng(0)
    values = [random.random((9, 3)), random.random((30, 3)) / 3]
    paths = [
        make(f"{n}.h5", rows=np.arange(len(v)) + 100 * n, mean=tuple(v.mean(0)), std=tuple(v.std(0)))
        for n, v in enumerate(values)
    ]
    header = merge_packs(paths, tmp_path / "m.h5").header
    np.testing.assert_allclose(header.mean, np.concatenate(values).mean(0))
    np.testing.assert_allclose(header.std, np.concatenate(values).std(0))


def test_equal_statistics_stay_bit_for_bit(make, tmp_path):
    mean, std = (0.1, 1 / 3, math.pi / 9), (0.1, 0.2, 0.7)
    paths = [make(f"{n}.h5", rows=np.arange(5 + n) + 100 * n, mean=mean, std=std) for n in range(3)]
    header = merge_packs(paths, tmp_path / "m.h5").header
    assert (header.mean, header.std) == (mean, std)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"codec": "sparse-f32"}, {"codec": "sparse-f16"}, ("codec sparse-f16", "--codec sparse-f32")),
        ({"components": 120}, {"components": 60}, ("components a channel 60", "has 120", "--freq-prune")),
        ({"codec": "quantized"}, {"codec": "quantized", "tile": "8"}, ("tiles 8", "--tile full")),
        (
            {"codec": "quantized", "color": "ycbcr"},
            {"codec": "quantized"},
            ("color space rgb", "--color ycbcr"),
        ),
        ({"codec": "quantized"}, {"codec": "quantized", "step": 0.5}, ("step 0.5", "has 0.03", "--quality")),
        ({}, {"size": (20, 12)}, ("images of 20x12", "12x20", "--size")),
    ],
)
def test_packs_that_do_not_agree_are_told_apart(edgeprune, make, tmp_path, one, other, words):
    first, second = make("one.h5", **one), make("other.h5", **other)
    code, out, err = edgeprune("merge", first, second, "-o", tmp_path / "m.h5")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    for word in (str(first), str(second), *words):
        assert word in err
    assert not (tmp_path / "m.h5").exists()


def test_classes_are_matched_by_name(make, tmp_path):
    lists = ("cat", "dog", "bird"), ("dog", "eel", "cat")
    paths = [
        make(f"{n}.h5", rows=np.arange(9) + 9 * n, seed=n, class_names=names, provenance=source("a"))
        for n, names in enumerate(lists)
    ]
    header = merge_packs(paths, tmp_path / "m.h5").header
    assert header.class_names == ("cat", "dog", "bird", "eel")
    given = {
        row: names[label]
        for path, names in zip(paths, lists, strict=True)
        for _, label, row in images_of(path)
    }
    assert {row: header.class_names[label] for _, label, row in images_of(tmp_path / "m.h5")} == given
    assert verify_pack(tmp_path / "m.h5") == []


def test_images_of_one_source_must_not_come_twice(edgeprune, make, tmp_path):
    first = make("a.h5", rows=[3, 1, 8], provenance=source("a"))
    second = make("b.h5", rows=[4, 8, 3], provenance=source("a"))
    code, _, err = edgeprune("merge", first, second, "-o", tmp_path / "m.h5")
    assert code == 2
    for word in (str(first), str(second), "row 3", "1 others", "--allow-duplicates"):
        assert word in err
    code, out, _ = edgeprune("merge", first, second, "-o", tmp_path / "m.h5", "--allow-duplicates")
    assert code == 0
    assert "6 images of 2 packs, 2 of them in several, " in out
    assert sorted(open_pack(tmp_path / "m.h5").source_index.tolist()) == [1, 3, 3, 4, 8, 8]
    assert open_pack(tmp_path / "m.h5").header.provenance["merged"]["duplicates"] == 2


def test_the_same_pack_twice_is_found_out_even_without_provenance(make, tmp_path):
    path = make("a.h5")
    with pytest.raises(ConfigError, match="leave one of the packs out"):
        merge_packs([path, path], tmp_path / "m.h5")


def test_parts_of_a_pack_of_unknown_source_are_known_to_be_of_one(make, tmp_path):
    parts = [part.path for part in split_pack(make("a.h5", rows=np.arange(20)), tmp_path / "fleet", 3)]
    report = merge_packs(parts, tmp_path / "m.h5")
    assert report.whole == "a.h5"
    assert sorted(open_pack(tmp_path / "m.h5").source_index.tolist()) == list(range(20))
    again = [part.path for part in split_pack(tmp_path / "a.h5", tmp_path / "again", 2, seed=1)]
    with pytest.raises(ConfigError, match="leave one of the packs out"):
        merge_packs([parts[0], again[0], again[1]], tmp_path / "n.h5")


@pytest.mark.slow
def test_rows_of_several_sources_stay_apart(make, tmp_path):
    """Each image can be traced to its source and row, through merging twice."""
    one = make("a.h5", rows=[5, 7], provenance=source("a", 10), seed=1)
    two = make("b.h5", rows=[5, 2, 99], provenance=source("b", 50), seed=2)
    three = make("c.h5", rows=[6], provenance=source("a", 10), seed=3)
    merge_packs([one, two], tmp_path / "m.h5")
    merge_packs([three, tmp_path / "m.h5"], tmp_path / "n.h5")
    for path, packs in ((tmp_path / "m.h5", (one, two)), (tmp_path / "n.h5", (one, two, three))):
        listed = open_pack(path).header.provenance["source"]["sources"]
        expected = {
            (numbers, label): (open_pack(pack).header.provenance["source"]["sha256"], row)
            for pack in packs
            for numbers, label, row in images_of(pack)
        }
        for numbers, label, row in images_of(path):
            of = max((facts for facts in listed if facts["first_row"] <= row), key=lambda f: f["first_row"])
            assert expected.pop((numbers, label)) == (of["sha256"], row - of["first_row"])
        assert expected == {}
    with pytest.raises(ConfigError, match="row 5 of its source is in"):
        merge_packs([tmp_path / "n.h5", one], tmp_path / "o.h5")


def test_what_parents_have_in_common_stays_and_each_is_listed(make, tmp_path):
    common = {"config": {"codec": "sparse-f32"}, "mask": "energy"}
    for name, rows, psnr in (("a", [1, 2], 30.0), ("b", [3], 20.0)):
        facts = {**common, "seed": name, "result": {"psnr_db": psnr}}
        make(f"{name}.h5", rows=rows, provenance=source("s", **facts))
    report = merge_packs([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "m.h5", seed=4)
    provenance = open_pack(tmp_path / "m.h5").header.provenance
    assert {name: provenance[name] for name in common} == common
    assert provenance["source"] == source("s")["source"]
    assert "result" not in provenance
    assert "seed" not in provenance
    merged = provenance["merged"]
    assert (merged["seed"], merged["duplicates"]) == (4, 0)
    assert [(one["file"], one["samples"], one["seed"]) for one in merged["parents"]] == [
        ("a.h5", 2, "a"),
        ("b.h5", 1, "b"),
    ]
    assert merged["parents"][0]["result"] == {"psnr_db": 30.0}
    assert all(len(one["sha256"]) == 64 for one in merged["parents"])
    assert report.whole is None


def test_parts_that_were_encoded_anew_are_not_the_whole(make, tmp_path):
    path = make("a.h5", rows=np.arange(20), provenance=source("a", result={"psnr_db": 30.0}))
    parts = []
    for number, part in enumerate(split_pack(path, tmp_path / "f", 2, by=parse_by("iid"))):
        parts.append(tmp_path / f"{number}.h5")
        convert_pack(part.path, parts[-1], BuildConfig(codec="quantized", quality=20))
    report = merge_packs(parts, tmp_path / "m.h5")
    assert report.whole is None
    assert "result" not in report.header.provenance
    assert sorted(open_pack(tmp_path / "m.h5").source_index.tolist()) == list(range(20))


def test_some_parts_are_not_the_whole(make, tmp_path):
    path = make("a.h5", rows=np.arange(20), provenance=source("a", result={"psnr_db": 30.0}))
    parts = [part.path for part in split_pack(path, tmp_path / "f", 3, by=parse_by("iid"))]
    report = merge_packs(parts[:2], tmp_path / "m.h5")
    provenance = report.header.provenance
    assert report.whole is None
    assert "result" not in provenance
    assert [one["split"]["part"] for one in provenance["merged"]["parents"]] == [1, 2]


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("split", [None, "x", {}, {"parent": 3}, {"parent": {"sha256": 3, "result": []}}])
def test_a_foreign_record_of_a_split_does_no_harm(make, tmp_path, split):
    record = {"split": {"part": 1, "parts": 2, **split} if isinstance(split, dict) else split}
    one = make("a.h5", rows=[1], provenance=source("a", **record))
    record = {"split": {"part": 2, "parts": 2, **split} if isinstance(split, dict) else split}
    two = make("b.h5", rows=[2], provenance=source("a", **record))
    merge_packs([one, two], tmp_path / "m.h5")
    assert verify_pack(tmp_path / "m.h5") == []


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("sources", [3, [], [3], [{"first_row": -1}], [{"first_row": "x"}], [{}]])
def test_a_foreign_list_of_sources_does_no_harm(make, tmp_path, sources):
    one = make("a.h5", rows=[1], provenance={"source": {"sources": sources}})
    two = make("b.h5", rows=[2], provenance=source("a"))
    merge_packs([one, two], tmp_path / "m.h5")
    assert len(open_pack(tmp_path / "m.h5").header.provenance["source"]["sources"]) == 2


def test_rows_beyond_counting_are_refused(make, tmp_path):
    paths = [make(f"{name}.h5", rows=[2**63 - 2], provenance=source(name)) for name in "ab"]
    with pytest.raises(ConfigError, match="63 bits"):
        merge_packs(paths, tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("coresets", "kept"), [(("el2n", "el2n"), True), (("el2n", "aum"), False), (("el2n", None), False)]
)
def test_scores_stay_where_all_are_of_one_kind(edgeprune, make, tmp_path, coresets, kept):
    for name, rows, kind in zip("ab", ([1, 2], [3, 4]), coresets, strict=True):
        scores = None if kind is None else np.array(rows) / 8
        facts = {} if kind is None else {"coreset": {"score": kind}}
        make(f"{name}.h5", rows=rows, scores=scores, provenance=source("s", **facts))
    code, out, _ = edgeprune("merge", tmp_path / "a.h5", tmp_path / "b.h5", "-o", tmp_path / "m.h5")
    assert code == 0
    assert ("left out" in out) is not kept
    pack = open_pack(tmp_path / "m.h5")
    assert verify_pack(tmp_path / "m.h5") == []
    assert (pack.scores.tolist() if kept else pack.scores) == (
        (pack.source_index / 8).tolist() if kept else None
    )


def test_misuse_of_the_command(edgeprune, make, tmp_path):
    one, two = make("a.h5", rows=[1], provenance=source("a")), make("b.h5", rows=[2], provenance=source("a"))
    before = one.read_bytes()
    for arguments, words in (
        ([one, "-o", tmp_path / "m.h5"], "nothing to merge"),
        ([one, two, "-o", one], "pass --force"),
        ([one, two, "-o", one, "--force"], "is one of the packs"),
        ([one, two, "-o", tmp_path / "m.h5", "--seed", -1], "--seed"),
        (["-o", tmp_path / "m.h5"], "PACK..."),
    ):
        code, out, err = edgeprune("merge", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert words in err
    assert one.read_bytes() == before
    code, out, _ = edgeprune("merge", one, two, "-o", tmp_path / "m.h5")
    assert (code, out.partition(",")[0]) == (0, f"{tmp_path / 'm.h5'}: 2 images of 2 packs")
    assert edgeprune("merge", one, two, "-o", tmp_path / "m.h5", "--force", "-q")[:2] == (0, "")


def test_the_folder_holds_nothing_but_the_pack(make, tmp_path):
    one, two = make("a.h5", rows=[1]), make("b.h5", rows=[2])
    (tmp_path / "out").mkdir()
    merge_packs([one, two], tmp_path / "out" / "m.h5")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.h5"]
