"""Scores files that are damaged, cut short, or of another kind."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from scores_files import MATRICES, NAMES, assert_refused, read_all

from edgeprune.scoring.scores_file import read_scores_file
from edgeprune_runtime.errors import ArtifactError


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_byte_in_any_array(sample, name):
    with h5py.File(sample) as file:
        dataset = file[name]
        if dataset.chunks is None:
            offset = dataset.id.get_offset()
        else:
            offset = dataset.id.get_chunk_info(dataset.id.get_num_chunks() - 1).byte_offset
    data = bytearray(sample.read_bytes())
    data[offset] ^= 1
    sample.write_bytes(data)
    assert_refused(sample, f"/{name}: does not match its checksum")


@pytest.mark.slow
def test_a_flipped_bit_anywhere_gives_the_records_or_the_error(sample):
    whole, network = read_all(sample)
    data = sample.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        sample.write_bytes(damaged)
        try:
            found, tensors = read_all(sample)
        except ArtifactError:
            refused += 1
            continue
        assert all(np.array_equal(found[name], whole[name]) for name in MATRICES)
        for name in tensors.keys() & network.keys():
            assert np.array_equal(tensors[name], network[name])
    assert refused > 25


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array(sample, name):
    with h5py.File(sample, "r+") as file:
        del file[name]
    if name.startswith("classifier"):
        # Which tensors there must be is for the network to say.
        assert len(read_all(sample)[1]) == 1
    else:
        assert_refused(sample, f"/{name}: missing")


@pytest.mark.parametrize("name", ["samples", "epochs", "entropies", "classifier"])
def test_a_missing_group(sample, name):
    with h5py.File(sample, "r+") as file:
        del file[name]
    assert_refused(sample, f"/{name}")


def test_a_file_cut_short_anywhere(sample):
    data = sample.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 60)):
        sample.write_bytes(data[:size])
        assert_refused(sample)


def test_a_file_that_is_damaged_after_it_was_opened(sample):
    records = read_scores_file(sample)
    sample.write_bytes(sample.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cut short"):
        records.array("margins")
    sample.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        replace(records).array("margins")


def test_what_closing_finds_is_an_error_of_the_file(second, monkeypatch):
    def fail(self):
        raise RuntimeError("Can't decrement id ref count")

    monkeypatch.setattr(h5py.File, "close", fail)
    assert_refused(second, "HDF5 cannot close it")


def test_files_of_other_kinds(tmp_path, make_pack):
    pack, _ = make_pack(samples=3)
    assert_refused(pack, "HDF5, but not a scores file")
    for name, data in (("empty", b""), ("photo", b"\xff\xd8\xff" * 100), ("zip", b"PK\x03\x04" + bytes(99))):
        (tmp_path / name).write_bytes(data)
        assert_refused(tmp_path / name, "not a scores file, or cut short")
    assert_refused(tmp_path / "nowhere", "no such file")
    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / "folder", "no such file")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"format": "edgepack"}, "HDF5, but not a scores file"),
        ({"format": "edgeprune-scores"}, "HDF5, but not a scores file"),
        ({"format": np.bytes_(b"edgeprune-scored")}, "HDF5, but not a scores file"),
        ({"format": None}, "HDF5, but not a scores file"),
        ({"format": 7}, "HDF5, but not a scores file"),
        ({"format": ["edgeprune-scores", "x"]}, "HDF5, but not a scores file"),
        ({"format": h5py.Empty("f4")}, "HDF5, but not a scores file"),
        ({"format_version": 3}, "of version 3, and this release reads up to 2; install a newer edgeprune"),
        ({"format_version": None}, "it has no version"),
        ({"format_version": "1"}, "it has no version"),
        ({"format_version": [1, 1]}, "it has no version"),
        ({"format_version": -1}, "it has no version"),
    ],
)
def test_another_format_or_version(sample, attributes, words):
    with h5py.File(sample, "r+") as file:
        for name, value in attributes.items():
            del file.attrs[name]
            if value is not None:
                file.attrs[name] = value
    assert_refused(sample, words)


@pytest.mark.parametrize("crc", [None, "text", -1, 2**40, [1, 2], 1.5])
def test_a_checksum_that_is_none(sample, crc):
    with h5py.File(sample, "r+") as file:
        del file["samples/rows"].attrs["crc32"]
        if crc is not None:
            file["samples/rows"].attrs["crc32"] = crc
    assert_refused(sample, "/samples/rows: does not match its checksum")
