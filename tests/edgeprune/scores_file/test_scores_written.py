"""What is written to a scores file is read again, and failing to write it leaves the older."""

import subprocess
import sys
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest
from scores_files import EPOCHS, NAMES, PROVENANCE, content, read_all, write

from edgeprune.scoring.scores_file import RECORD_TYPES, read_classifier, read_scores_file
from edgeprune_formats import PackWriteError
from edgeprune_formats.files import file_sha256
from edgeprune_formats.structure import why_not_plain
from edgeprune_runtime.errors import ArtifactError


@pytest.mark.parametrize(("epochs", "every"), [(5, 2), (4, 2), (1, 1), (3, 3)])
def test_what_is_written_is_read(tmp_path, epochs, every):
    made = content(epochs, every)
    write(tmp_path / "s.h5", made)
    records = read_scores_file(tmp_path / "s.h5")
    np.testing.assert_array_equal(records.rows, made.rows)
    np.testing.assert_array_equal(records.labels, made.labels)
    assert records.provenance == PROVENANCE
    for name in RECORD_TYPES:
        array = records.array(name)
        np.testing.assert_array_equal(array, [epoch.arrays[name] for epoch in made.epochs])
        assert array.dtype == (bool if name == "correct" else np.float32)
    recorded = [epoch.entropies for epoch in made.epochs[every - 1 :: every]]
    np.testing.assert_array_equal(records.array("entropies"), recorded)
    np.testing.assert_array_equal(records.array("final_entropies"), [made.epochs[-1].entropies])
    classifier = read_classifier(tmp_path / "s.h5")
    assert classifier.keys() == made.classifier.keys()
    for name, tensor in made.classifier.items():
        np.testing.assert_array_equal(classifier[name], tensor)
        assert classifier[name].shape == tensor.shape


@pytest.mark.usefixtures("untrusted")
def test_what_is_written_is_plain_and_version_1_is_still_read(second, sample):
    assert why_not_plain(second) is None
    assert why_not_plain(Path(sample)) is not None
    for ours, theirs in zip(read_all(second), read_all(sample), strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])


def test_nothing_is_of_variable_length(sample):
    """Of which HDF5 keeps a heap, and can loop for ever where that is damaged."""
    assert b"GCOL" not in sample.read_bytes()


def test_the_file_is_the_one_described(sample):
    with h5py.File(sample) as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(found) == sorted(NAMES)
        assert all(file[name].attrs["crc32"].dtype == np.uint32 for name in NAMES)
        assert file["entropies/epochs"][()].tolist() == [2, 4]


def test_equal_records_give_equal_files(second, tmp_path):
    write(tmp_path / "again.h5", content())
    assert file_sha256(tmp_path / "again.h5") == file_sha256(second)


def test_one_epoch_at_a_time_is_in_memory(tmp_path):
    given = []

    def epochs():
        for _ in range(EPOCHS):
            # The loop that asks for the next still holds the last.
            assert not any(epoch() for epoch in given[:-1])
            epoch = content().epochs[-1]
            given.append(weakref.ref(epoch))
            yield epoch
            del epoch

    write(tmp_path / "s.h5", content(), epochs=epochs())
    assert len(given) == EPOCHS


def test_a_failure_in_an_epoch_leaves_the_older_file(sample):
    before = sample.read_bytes()

    def epochs():
        yield content().epochs[0]
        raise ArtifactError("epoch 2 is damaged")

    with pytest.raises(ArtifactError, match="epoch 2 is damaged"):
        write(sample, content(), epochs=epochs())
    assert [path.name for path in sample.parent.iterdir()] == ["s.h5"]
    assert sample.read_bytes() == before


def test_provenance_that_is_no_json_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "s.h5", content(), provenance={**PROVENANCE, "loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(PackWriteError, match="there is no folder"):
        write(tmp_path / "no" / "s.h5", content())


FILL_THE_DISK = """
import os, sys
import numpy as np
from edgeprune.scoring.scores_file import RECORD_TYPES, EpochRecords, write_scores_file
from edgeprune_formats import PackWriteError
from pathlib import Path

path, samples = Path(sys.argv[1]), 20_000
epoch = EpochRecords({name: np.zeros(samples) for name in RECORD_TYPES}, np.zeros(samples))
try:
    write_scores_file(path, rows=np.arange(samples), labels=np.arange(samples), epochs=iter([epoch] * 4),
                  count=4, every=1, classifier={"w": np.zeros(9, "f4")}, provenance={})
except PackWriteError as error:
    print(error)
print(sorted(os.listdir(path.parent)))
"""


def fill(path):
    command = [sys.executable, "-c", FILL_THE_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["8k", "500k", "1m"])
def test_a_full_disk_leaves_the_older_file_and_nothing_else(small_disk, size):
    path = small_disk(size) / "s.h5"
    path.write_bytes(b"older")
    message, left = fill(path)
    assert message == f"{path}: the disk is full; free some space or write elsewhere"
    assert left == "['s.h5']"
    assert path.read_bytes() == b"older"


@pytest.mark.slow
def test_a_disk_just_large_enough(small_disk):
    assert fill(small_disk("3m") / "s.h5") == ["['s.h5']"]
