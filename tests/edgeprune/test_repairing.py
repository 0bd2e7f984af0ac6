"""What `repair_pack` saves of damaged packs of every kind, and what it says of the rest."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import repacked
from click.testing import CliRunner
from damaging import damage_array, damage_chunk, rows_of
from repacked import CONFIGS, stored

from edgeprune.cli import cli
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.repack.repair import repair_pack
from edgeprune.repack.split import split_pack
from edgeprune_formats import (
    ConfigError,
    Pack,
    PackFormatError,
    PackWriteError,
    PackWriter,
    open_pack,
    verify_pack,
)
from edgeprune_formats.files import file_sha256


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with repacked.small_chunks():
        yield


@pytest.fixture(scope="module")
def packs(small_chunks, tmp_path_factory):
    """Packs of every layout, one that was split and merged, and one with scores."""
    folder = tmp_path_factory.mktemp("packs")
    for made in repacked.packs(tmp_path_factory).iterdir():
        shutil.copy(made, folder)
    split_pack(folder / "gzip.h5", folder / "part-{part}.h5", 3)
    merge_packs([folder / "part-1.h5", folder / "part-3.h5"], folder / "merged.h5")
    with open_pack(folder / "f32.h5") as pack:
        scores = np.arange(300) / 7
        with PackWriter(
            folder / "scored.h5", pack.header, pack.labels, pack.source_index, scores=scores
        ) as writer:
            for chunk in range(pack.header.chunks):
                writer.append_coefficients(pack.read_chunk(chunk))
    return folder


@pytest.fixture
def damaged(packs, tmp_path):
    """A factory of copies to damage."""
    return lambda name: shutil.copy(packs / f"{name}.h5", tmp_path / "damaged.h5")


def images_of(path, rows=None):
    """For each image its row, label, score and stored numbers."""
    with open_pack(path) as pack:
        scores = [None] * len(pack) if pack.scores is None else pack.scores.tolist()
        images = list(
            zip(pack.source_index.tolist(), pack.labels.tolist(), scores, stored(pack), strict=True)
        )
        return images if rows is None else [images[row] for row in rows]


def fields(path):
    with h5py.File(path, "r", locking=False) as file:
        return [name for name in file["samples"] if f"{name}_crc32" in file["samples"]]


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("name", [*CONFIGS, "scored", "part-2", "merged"])
def test_every_intact_image_is_saved_bit_for_bit(packs, damaged, tmp_path, name):
    before, path = packs / f"{name}.h5", damaged(name)
    header, names = open_pack(before).header, fields(before)
    lost = sorted({1, header.chunks // 2, header.chunks - 1})
    for number, chunk in enumerate(lost):
        damage_chunk(path, chunk, names[number % len(names)])
    report = repair_pack(path, tmp_path / "saved.h5")
    assert verify_pack(tmp_path / "saved.h5") == []
    gone = rows_of(before, lost)
    kept = sorted({*range(header.samples)} - {*gone})
    assert images_of(tmp_path / "saved.h5") == images_of(before, kept)
    assert [one.chunk for one in report.lost] == lost
    whole = open_pack(before)
    assert np.concatenate([one.rows for one in report.lost]).tolist() == whole.source_index[gone].tolist()
    counts = np.bincount(whole.labels[gone], minlength=5)
    assert report.lost_by_class == {
        f"{name}": count for name, count in zip(header.class_names, counts.tolist(), strict=True) if count
    }
    assert report.lost_images == len(gone)
    saved = open_pack(tmp_path / "saved.h5")
    assert saved.header.provenance["repaired"] == {
        "parent": {
            "file": "damaged.h5",
            "sha256": file_sha256(path),
            "samples": header.samples,
            **{key: header.provenance[key] for key in ("result", "split") if key in header.provenance},
        },
        "lost_images": len(gone),
        "lost_chunks": lost,
        "lost_scores": False,
    }
    assert saved.compression == whole.compression
    assert (saved.header.mean, saved.header.class_names) == (header.mean, header.class_names)


def test_a_sound_pack(packs, tmp_path):
    report = repair_pack(packs / "tiles.h5", tmp_path / "saved.h5")
    assert (report.lost, report.lost_images, report.lost_by_class) == ((), 0, {})
    assert images_of(tmp_path / "saved.h5") == images_of(packs / "tiles.h5")


def test_damaged_scores_are_dropped(packs, damaged, tmp_path):
    path = damaged("scored")
    damage_array(path, "scores")
    damage_chunk(path, 0)
    report = repair_pack(path, tmp_path / "saved.h5")
    assert "/scores: does not match its checksum" in report.lost_scores
    saved = open_pack(tmp_path / "saved.h5")
    assert saved.scores is None
    assert saved.header.provenance["repaired"]["lost_scores"] is True
    assert verify_pack(tmp_path / "saved.h5") == []


@pytest.mark.parametrize("name", ["labels", "source_index", "class_names", "provenance"])
def test_nothing_can_be_saved_without_header_and_labels(packs, damaged, tmp_path, name):
    path = damaged("quantized")
    damage_array(path, name)
    with pytest.raises(PackFormatError, match=rf"damaged.h5: /{name}: .*; without it no image can be saved"):
        repair_pack(path, tmp_path / "saved.h5")
    assert not (tmp_path / "saved.h5").exists()


def test_nothing_can_be_saved_of_a_file_cut_short(packs, damaged, tmp_path):
    path = damaged("f16")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 3 // 4)
    with pytest.raises(PackFormatError, match="cut short"):
        repair_pack(path, tmp_path / "saved.h5")


def test_no_chunk_is_intact(packs, damaged, tmp_path):
    path = damaged("tiles")
    for chunk in range(open_pack(path).header.chunks):
        damage_chunk(path, chunk)
    with pytest.raises(PackFormatError, match="no chunk is intact, nothing can be saved"):
        repair_pack(path, tmp_path / "saved.h5")
    assert not (tmp_path / "saved.h5").exists()


@pytest.mark.slow
def test_a_chunk_that_can_be_read_the_second_time_is_saved(packs, tmp_path, monkeypatch):
    read, failed = Pack.read_chunk, set()

    def unreliable(pack, chunk, out=None):
        if chunk not in failed:
            failed.add(chunk)
            return read(open_pack(broken), 0)
        return read(pack, chunk, out)

    broken = shutil.copy(packs / "f32.h5", tmp_path / "broken.h5")
    damage_chunk(broken, 0)
    monkeypatch.setattr(Pack, "read_chunk", unreliable)
    assert repair_pack(packs / "f16.h5", tmp_path / "saved.h5").lost == ()


def test_the_damaged_pack_is_never_replaced(damaged, tmp_path):
    path = damaged("f32")
    with pytest.raises(ConfigError, match="is the pack that is repaired"):
        repair_pack(path, path)
    with pytest.raises(PackWriteError, match="there is no folder"):
        repair_pack(path, tmp_path / "no" / "saved.h5")


@pytest.mark.slow
def test_what_is_saved_can_be_repaired_split_merged_and_converted(packs, tmp_path):
    part = tmp_path / "part-2.h5"
    shutil.copy(packs / "part-2.h5", part)
    damage_chunk(part, 2)
    lost = repair_pack(part, tmp_path / "saved.h5").lost_images
    again = repair_pack(tmp_path / "saved.h5", tmp_path / "again.h5").header.provenance["repaired"]
    assert again["parent"]["repaired"]["lost_images"] == lost
    split_pack(tmp_path / "saved.h5", tmp_path / "two", 2)
    convert_pack(tmp_path / "saved.h5", tmp_path / "converted.h5", CONFIGS["tiles"])
    others = [packs / "part-1.h5", packs / "part-3.h5"]
    merged = merge_packs([*others, tmp_path / "saved.h5"], tmp_path / "merged.h5")
    # It is not the pack that was split: images are missing.
    assert merged.whole is None
    assert merged.header.samples == 300 - lost
    # With nothing lost it is.
    sound = repair_pack(packs / "part-2.h5", tmp_path / "sound.h5")
    assert sound.lost == ()
    assert merge_packs([*others, tmp_path / "sound.h5"], tmp_path / "whole.h5").whole == "gzip.h5"
    with pytest.raises(ConfigError, match=r"row .* of its source"):
        merge_packs([packs / "part-2.h5", tmp_path / "saved.h5"], tmp_path / "twice.h5")


@pytest.mark.slow
def test_a_history_as_deep_as_a_pack_may_hold_is_shortened(packs, tmp_path):
    nested = "end"
    for _ in range(60):
        nested = {"older": nested}
    with open_pack(packs / "quantized.h5") as pack:
        header = replace(pack.header, provenance={**pack.header.provenance, "notes": nested})
        with PackWriter(tmp_path / "deep.h5", header, pack.labels, pack.source_index) as writer:
            for chunk in range(pack.header.chunks):
                writer.append_coefficients(pack.read_chunk(chunk))
    assert repair_pack(tmp_path / "deep.h5", tmp_path / "saved.h5").lost == ()
    split_pack(tmp_path / "deep.h5", tmp_path / "two", 2)
    for path in (tmp_path / "saved.h5", *(tmp_path / "two").iterdir()):
        assert verify_pack(path) == []
        assert "older history was left out" in str(open_pack(path).header.provenance)


def invoke(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)


def test_the_command_names_what_is_lost(damaged, tmp_path):
    path, saved = damaged("scored"), tmp_path / "saved.h5"
    damage_array(path, "scores")
    damage_chunk(path, 1, "values")
    pack = open_pack(path)
    rows = pack.source_index[rows_of(path, [1])]
    lines = invoke("repair", path, "-o", saved).stdout.splitlines()
    listed = ", ".join(map(str, rows))
    assert lines[0].startswith(f"lost: chunk 1, {len(rows)} images, rows of the source {listed} (")
    assert "(/samples/values chunk 1: does not match its checksum" in lines[0]
    assert any(line.startswith("lost of 0: ") for line in lines)
    assert any(line.startswith("lost: all scores (/scores: ") for line in lines)
    assert lines[-1] == f"{saved}: {300 - len(rows)} images saved of 300, {len(rows)} images in 1 chunk lost"
    assert "pass --force" in str(invoke("repair", path, "-o", saved).exception)
    assert invoke("repair", path, "-o", saved, "--force", "-q").output == ""


def test_the_command_says_that_a_pack_is_sound(packs, tmp_path):
    found = invoke("repair", packs / "f16.h5", "-o", tmp_path / "saved.h5").stdout
    assert found.endswith(f"300 images saved of 300; {packs / 'f16.h5'} is sound, and nothing is lost\n")
