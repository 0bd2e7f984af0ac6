import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgeprune_formats import FORMAT_VERSION, open_pack, verify_pack
from edgeprune_formats.coding import native, rounding

pytestmark = pytest.mark.usefixtures("examined_in_forks")
GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ["1.0", "1.1", "1.2", "1.3"]
PACKS = [f"edgepack-{version}-sparse-f32{gzip}.h5" for version in VERSIONS for gzip in ("", "-gzip")]


def facts_of(version):
    return json.loads((GOLDEN / f"edgepack-{version}-sparse-f32.json").read_text(encoding="utf-8"))


@pytest.fixture
def expected(name):
    return facts_of(name.split("-")[1])


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PACKS)
def test_header_of_a_released_file(expected, name):
    with open_pack(GOLDEN / name) as pack:
        header = pack.header
        for fact in ("format_version", "components", "chunk_samples", "generator", "created", "provenance"):
            assert getattr(header, fact) == expected[fact]
        for fact in ("shape", "mean", "std", "class_names"):
            assert list(getattr(header, fact)) == expected[fact]
        assert (header.codec, header.transform, header.tile) == ("sparse-f32", "dct-ii-orthonormal", "full")
        assert pack.labels.tolist() == expected["labels"]
        assert pack.source_index.tolist() == expected["source_index"]
        assert (None if pack.scores is None else pack.scores.tolist()) == expected.get("scores")
    assert verify_pack(GOLDEN / name) == []


@pytest.mark.parametrize("name", PACKS)
def test_samples_of_a_released_file(expected, name):
    with open_pack(GOLDEN / name) as pack:
        parts = [pack.read_chunk(chunk) for chunk in range(3)]
        assert [len(part) for part in parts] == [2, 2, 1]
        dense = np.concatenate([part.to_dense(12, 20) for part in parts])
        values = np.concatenate([part.values for part in parts])
        positions = np.concatenate([part.positions for part in parts])
    for image, planes in enumerate(expected["images"]):
        for channel, plane in enumerate(planes):
            assert values[image, channel].tolist() == plane["values"]
            assert positions[image, channel].tolist() == plane["indices"]
            for index, value in zip(plane["indices"], plane["values"], strict=True):
                assert dense[image, channel, index // 32, index % 32] == value
            assert np.count_nonzero(dense[image, channel]) == np.count_nonzero(plane["values"])


@pytest.mark.parametrize("name", PACKS)
def test_checksums_of_a_released_file(expected, name):
    with h5py.File(GOLDEN / name, "r") as file:
        assert file["samples/values_crc32"][...].tolist() == expected["values_crc32"]
        assert file["samples/indices_crc32"][...].tolist() == expected["indices_crc32"]
        assert ("scores" in file) == ("scores" in expected)
        if "scores" in file:
            assert file["scores"].attrs["crc32"] == expected["scores_crc32"]


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_values_are_what_the_script_computes(make, version):
    assert make.expected(version) == facts_of(version)


def test_the_present_version_has_its_golden_files(make):
    assert make.VERSION == VERSIONS[-1] == FORMAT_VERSION


@pytest.mark.parametrize("name", PACKS)
def test_writer_still_writes_the_same_content(make, tmp_path, name):
    make.write_pack(tmp_path / name, "gzip" if "gzip" in name else "none")
    with open_pack(GOLDEN / name) as old, open_pack(tmp_path / name) as new:
        facts = {name: make.expected()[name] for name in ("format_version", "provenance")}
        assert replace(old.header, **facts) == new.header
        assert old.labels.tolist() == new.labels.tolist()
        assert old.scores is None or old.scores.tolist() == new.scores.tolist()
        for chunk in range(3):
            before, after = old.read_chunk(chunk), new.read_chunk(chunk)
            assert before.values.tobytes() == after.values.tobytes()
            assert before.positions.tobytes() == after.positions.tobytes()


@pytest.mark.parametrize("name", ["quantized-gray", "quantized-planes", "sparse-f32-planes"])
def test_planes_are_read_as_recorded_and_written_again(make, tmp_path, name, monkeypatch):
    # What a bit may cost was more when the files were made.
    monkeypatch.setattr(rounding, "LAMBDA", 0.15)
    path = GOLDEN / f"edgepack-1.3-{name}.h5"
    recorded = json.loads(path.with_suffix(".json").read_text())
    assert verify_pack(path) == []
    make.write_planes(tmp_path / "again.h5", name)
    for file in (path, tmp_path / "again.h5"):
        found = json.loads(json.dumps(make.planes_facts(file)))
        np.testing.assert_allclose(found.pop("values"), recorded["values"], atol=1e-6)
        assert found == {name: recorded[name] for name in found}
    assert path.stat().st_size < 60_000


def test_script_refuses_to_overwrite(make):
    with pytest.raises(SystemExit, match="must never change"):
        make.main()


@pytest.mark.parametrize("name", PACKS)
def test_released_files_stay_small(name):
    assert (GOLDEN / name).stat().st_size < 60_000


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize("compiled", ["1", "0"])
@pytest.mark.parametrize("codec", ["quantized", "sparse-f16"])
@pytest.mark.parametrize("version", VERSIONS[2:])
def test_codecs_since_1_2_decode_to_what_was_recorded(monkeypatch, version, codec, compiled):
    native._library.cache_clear()
    monkeypatch.setenv("EDGEPRUNE_NATIVE", compiled)
    path = GOLDEN / f"edgepack-{version}-{codec}.h5"
    recorded = json.loads(path.with_suffix(".json").read_text())
    assert verify_pack(path) == []
    with open_pack(path) as pack:
        parts = [pack.read_chunk(chunk) for chunk in range(pack.header.chunks)]
        assert pack.labels.tolist() == recorded["labels"]
        assert pack.source_index.tolist() == recorded["source_index"]
        assert pack.header.step == recorded["step"]
    for name in ("values", "extents" if codec == "quantized" else "positions"):
        assert np.concatenate([getattr(part, name) for part in parts]).tolist() == recorded[name]
    native._library.cache_clear()


def test_columns_since_1_3_are_what_was_recorded(make):
    path = GOLDEN / "edgepack-1.3-targets.h5"
    recorded = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert recorded == json.loads(json.dumps(make.targets()))
    assert verify_pack(path) == []
    with open_pack(path) as pack:
        assert pack.header.class_names == ()
        assert list(pack.targets) == list(recorded)
        for name, (kind, values, facts) in recorded.items():
            column = pack.targets[name].column
            assert column.kind == kind
            assert {key: getattr(column, key) for key in facts} == facts | (
                {"classes": tuple(facts["classes"])} if "classes" in facts else {}
            )
            read = pack.targets[name].read()
            read = np.rint(read * 255) if name == "parts" else read
            assert read.tolist() == values


def test_columns_are_still_written_alike(make, tmp_path):
    path = tmp_path / "edgepack-1.3-targets.h5"
    make.write_targets(path)
    with h5py.File(path) as new, h5py.File(GOLDEN / path.name) as old:
        assert list(new["targets"]) == list(old["targets"])
        for name, dataset in old["targets"].items():
            assert new["targets"][name].dtype == dataset.dtype
            assert new["targets"][name][()].tobytes() == dataset[()].tobytes()
