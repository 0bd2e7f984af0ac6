import itertools
import os
import shutil
import signal
from collections import Counter
from functools import cache, partial

import h5py
import pytest
import repacked
import small_builds
from forked import Forked
from repacked import CONFIGS, stored

from edgeprune import BuildConfig, build_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.repack.partition import parse_by
from edgeprune.repack.split import part_paths, split_pack
from edgeprune_formats import ConfigError, PackWriteError, open_pack, verify_pack
from edgeprune_formats.files import file_sha256
from edgeprune_runtime import PackLoader, open_packs


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with repacked.small_chunks():
        yield


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return repacked.packs(tmp_path_factory)


@cache
def all_rows(path):
    """The same of a pack that tests leave as it is, decoded once."""
    return by_row(path)


def by_row(path):
    """What a pack holds of each image, by its row in the source: label, score, stored numbers, pixels."""
    found = {}
    with open_pack(path) as pack:
        scores = [None] * len(pack) if pack.scores is None else pack.scores.tolist()
        # One image at a time, so that no other has a part in how sums are rounded.
        pixels = [images.tobytes() for images, _ in PackLoader(pack, 1, backend="scipy", prefetch=0)]
        rows = zip(
            pack.source_index.tolist(), pack.labels.tolist(), scores, stored(pack), pixels, strict=True
        )
        for row, *facts in rows:
            assert row not in found
            found[row] = tuple(facts)
    return found


@pytest.mark.slow
# Which images a part has is known before any is read, so that not each codec needs each way.
@pytest.mark.parametrize(
    ("name", "by"), [*((name, "dirichlet:0.3") for name in CONFIGS), ("f16", "iid"), ("quantized", "class")]
)
def test_every_image_is_in_one_part_and_decodes_to_the_same_bits(packs, tmp_path, name, by):
    whole = all_rows(packs / f"{name}.h5")
    parts = split_pack(packs / f"{name}.h5", tmp_path / "fleet", 4, by=parse_by(by), seed=3)
    held = [by_row(part.path) for part in parts]
    assert sorted(itertools.chain(*held)) == sorted(whole)
    assert all(whole[row] == facts for part in held for row, facts in part.items())
    assert all(verify_pack(part.path) == [] for part in parts)
    for part, images in zip(parts, held, strict=True):
        labels = Counter(label for label, *_ in images.values())
        assert part.classes == tuple(labels[label] for label in range(5))
    merged = tmp_path / "merged.h5"
    report = merge_packs([part.path for part in parts[::-1]], merged)
    assert by_row(merged) == whole
    assert verify_pack(merged) == []
    assert report.whole == f"{name}.h5"
    with open_pack(packs / f"{name}.h5") as old, open_pack(merged) as new:
        kept = {key: value for key, value in new.header.provenance.items() if key != "merged"}
        assert kept == old.header.provenance
        for field in ("mean", "std", "class_names", "codec", "components", "step", "tile", "color_space"):
            assert getattr(new.header, field) == getattr(old.header, field)
        assert new.compression == old.compression == ("gzip" if name == "gzip" else "none")


def test_order_within_a_part_is_that_of_the_pack(packs, tmp_path):
    rows = open_pack(packs / "f32.h5").source_index.tolist()
    for part in split_pack(packs / "f32.h5", tmp_path / "fleet", 3):
        places = [rows.index(row) for row in open_pack(part.path).source_index.tolist()]
        assert places == sorted(places)


def test_a_part_tells_where_it_came_from(packs, tmp_path):
    source = packs / "quantized.h5"
    before = open_pack(source).header
    parts = split_pack(source, tmp_path / "fleet", 3, by=parse_by("dirichlet:0.5"), seed=9)
    for number, part in enumerate(parts, 1):
        header = open_pack(part.path).header
        assert header == part.header
        split = header.provenance["split"]
        assert split == {
            "part": number,
            "parts": 3,
            "by": "dirichlet:0.5",
            "seed": 9,
            "parent": {
                "file": "quantized.h5",
                "sha256": file_sha256(source),
                "samples": 300,
                "result": before.provenance["result"],
            },
        }
        assert "result" not in header.provenance
        for name in ("source", "config", "coreset", "versions"):
            assert header.provenance[name] == before.provenance[name]
        assert (header.mean, header.std, header.class_names) == (before.mean, before.std, before.class_names)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_parts(packs, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    files = [
        [part.path.read_bytes() for part in split_pack(packs / "f16.h5", tmp_path / name, 3, seed=seed)]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.slow
def test_a_part_can_be_split_and_put_together_again(packs, tmp_path):
    first = split_pack(packs / "f16.h5", tmp_path / "a", 2)[0].path
    again = split_pack(first, tmp_path / "b", 3, by=parse_by("class"))
    merge_packs([part.path for part in again], tmp_path / "m.h5")
    old, new = (open_pack(path).header.provenance for path in (first, tmp_path / "m.h5"))
    assert new["split"] == old["split"]
    assert by_row(tmp_path / "m.h5") == by_row(first)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("second", [{"seed": 1}, {"by": parse_by("class")}, {"parent": "f32.h5"}])
def test_parts_of_two_splits_side_by_side_are_refused(packs, tmp_path, second):
    """As a split leaves them that is killed while it replaces the parts of an older one."""
    source = tmp_path / "p.h5"
    shutil.copy(packs / "f16.h5", source)
    old = split_pack(source, tmp_path / "fleet", 3)
    os.link(old[2].path, tmp_path / "old-part.h5")
    shutil.copy(packs / second.pop("parent", "f16.h5"), source)
    split_pack(source, tmp_path / "fleet", 3, **second)
    paths = [part.path for part in old]
    assert len(open_packs(paths)) == 300
    (tmp_path / "old-part.h5").replace(paths[2])
    for use in (open_packs, lambda some: merge_packs(some, tmp_path / "m.h5", allow_duplicates=True)):
        with pytest.raises(ConfigError, match=r"p-3-of-3.h5 and .*p-1-of-3.h5 are parts of two"):
            use(paths)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("held", [1, 60_000, 2**40])
def test_bounded_memory_changes_nothing(packs, tmp_path, monkeypatch, held):
    monkeypatch.setattr("edgeprune.repack.split.HELD_BYTES", held)
    done = []
    parts = split_pack(
        packs / "f32.h5", tmp_path / "fleet", 5, progress=lambda images, total: done.append((images, total))
    )
    assert by_row(packs / "f32.h5") == {k: v for part in parts for k, v in by_row(part.path).items()}
    assert done[-1] == (300, 300)
    assert done == sorted(done)


@pytest.mark.slow
def test_scores_go_with_their_images(tmp_path, tmp_path_factory):
    made = small_builds.scored(tmp_path_factory)
    path = tmp_path / "p.h5"
    build_pack(made.spec, path, BuildConfig(method="je", device="cpu", sample_prune=0.25), scores=made.scores)
    whole = by_row(path)
    assert all(score is not None for _, score, *_ in whole.values())
    parts = split_pack(path, tmp_path / "fleet", 3)
    assert whole == {k: v for part in parts for k, v in by_row(part.path).items()}
    report = merge_packs([part.path for part in parts], tmp_path / "m.h5")
    assert by_row(tmp_path / "m.h5") == whole
    assert not report.lost_scores


def test_names_of_parts(packs, tmp_path):
    source = packs / "f32.h5"
    names = [path.name for path in part_paths(source, tmp_path / "fleet", 12)]
    assert names[0] == "f32-01-of-12.h5"
    assert names[-1] == "f32-12-of-12.h5"
    assert part_paths(source, tmp_path / "dev{part}.h5", 3)[2] == tmp_path / "dev3.h5"
    with pytest.raises(ConfigError, match="names one file for 3 parts"):
        part_paths(source, tmp_path / "one.h5", 3)


def test_the_pack_itself_is_not_replaced(packs):
    before = (packs / "f32.h5").read_bytes()
    with pytest.raises(ConfigError, match="is the pack that is split"):
        split_pack(packs / "f32.h5", packs / "f{part}2.h5", 3)
    assert (packs / "f32.h5").read_bytes() == before


def test_a_damaged_pack_leaves_no_part(packs, tmp_path):
    path = tmp_path / "p.h5"
    path.write_bytes((packs / "f32.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        crc = file["samples/values_crc32"]
        crc[-1] = crc[-1] ^ 1
    with pytest.raises(Exception, match=r"p\.h5: /samples/values chunk"):
        split_pack(path, tmp_path / "fleet", 3)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_part(packs, small_disk):
    size = (packs / "gzip.h5").stat().st_size
    folder = small_disk(f"{size // 1024 + 1200}k")
    (folder / "fill").write_bytes(bytes(1_190_000))
    with pytest.raises(PackWriteError, match="disk"):
        split_pack(packs / "gzip.h5", folder / "fleet", 3)
    assert [path.name for path in folder.iterdir()] == ["fill"]


def split_and_wait(path, fleet):
    def wait(done, total):
        print("ready", flush=True)
        signal.pause()

    split_pack(path, fleet, 3, progress=wait)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_split_that_is_stopped_leaves_no_part(packs, tmp_path, number):
    with Forked(partial(split_and_wait, packs / "f32.h5", tmp_path / "fleet")) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        process.wait(20)
    if number == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
    else:
        assert list((tmp_path / "fleet").glob("*.h5")) == []
        split_pack(packs / "f32.h5", tmp_path / "fleet", 3)
        assert len(list((tmp_path / "fleet").iterdir())) == 3


def test_the_command_prints_a_line_a_part(edgeprune, packs, tmp_path):
    arguments = ["split", packs / "f32.h5", "-n", 2, "--by", "class", "-o", tmp_path / "fleet"]
    code, out, _ = edgeprune(*arguments)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path / 'fleet' / 'f32-1-of-2.h5'}: ")
    assert " of 5 classes, " in lines[0]
    code, out, err = edgeprune(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("edgeprune: error: ")
    assert "exists; pass --force" in err
    assert edgeprune(*arguments, "--force", "-q")[:2] == (0, "")
    info = edgeprune("info", tmp_path / "fleet" / "f32-1-of-2.h5")[1]
    assert "split       by=class, part=1, parts=2, seed=0" in info


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-n", 1], "-n 1 splits nothing"),
        (["-n", 301], "300 images do not fill 301 parts"),
        (["-n", 6, "--by", "class"], "images of 5 classes do not fill 6 parts"),
        (["-n", 2, "--by", "dirichlet"], "--by 'dirichlet' is none of"),
        (["-n", 2, "--seed", -1], "--seed"),
    ],
)
def test_misuse_is_one_line(edgeprune, packs, tmp_path, options, words):
    code, out, err = edgeprune("split", packs / "f32.h5", *options, "-o", tmp_path / "fleet")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_where_parts_cannot_go(edgeprune, packs, tmp_path):
    code, _, err = edgeprune("split", packs / "f32.h5", "-n", 2, "-o", tmp_path / "no" / "fleet")
    assert code == 1
    assert "create it first" in err
    code, _, err = edgeprune("split", packs / "f32.h5", "-n", 2, "-o", tmp_path / "no{part}" / "a.h5")
    assert code == 1
    assert "create it first" in err
