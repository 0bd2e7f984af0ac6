import shutil
import subprocess
import sys
import weakref
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from edgeprune.scoring import scores_file
from edgeprune.scoring.scores_file import (
    RECORD_TYPES,
    EpochRecords,
    read_classifier,
    read_scores_file,
    write_scores_file,
)
from edgeprune_formats import PackWriteError, isolation
from edgeprune_formats.files import file_sha256
from edgeprune_formats.structure import why_not_plain
from edgeprune_runtime.errors import ArtifactError

EPOCHS, EVERY, SAMPLES = 5, 2, 7
PROVENANCE = {
    "source": {"spec": "digits", "sha256": "ab" * 32},
    "config": {"epochs": EPOCHS},
    "classifier": {"model": "resnet8"},
}
MATRICES = ("correct", "probabilities", "margins", "errors", "entropies", "final_entropies")
NAMES = (
    "samples/rows",
    "samples/labels",
    "samples/final_entropies",
    *(f"epochs/{name}" for name in RECORD_TYPES),
    "entropies/epochs",
    "entropies/entropies",
    "classifier/conv1.weight",
    "classifier/bn1.num_batches_tracked",
    "provenance",
)


def content(epochs=EPOCHS, every=EVERY, samples=SAMPLES):
    random = np.random.default_rng(0)
    records = []
    for epoch in range(1, epochs + 1):
        values = {name: random.random(samples).astype("f4") for name in RECORD_TYPES}
        values["correct"] = random.integers(0, 2, samples).astype("u1")
        entropies = random.random(samples).astype("f4") if epoch % every == 0 or epoch == epochs else None
        records.append(EpochRecords(values, entropies))
    classifier = {
        "conv1.weight": random.random((4, 3, 3, 3)).astype("f4"),
        "bn1.num_batches_tracked": np.array(12),
    }
    rows, labels = np.arange(samples) * 2 + 1, np.arange(samples) % 3
    return SimpleNamespace(rows=rows, labels=labels, epochs=records, classifier=classifier, every=every)


def write(path, made, **changes):
    options = {
        "rows": made.rows,
        "labels": made.labels,
        "epochs": iter(made.epochs),
        "count": len(made.epochs),
        "every": made.every,
        "classifier": made.classifier,
        "provenance": PROVENANCE,
    }
    write_scores_file(path, **(options | changes))


def read_all(path):
    records = read_scores_file(path)
    return {name: records.array(name) for name in MATRICES}, read_classifier(path)


def put_in_group(path, classifier):
    """Store the network as version 1 did: its tensors by name."""
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.int64(1)
        del file["classifier"]
        for name, tensor in classifier.items():
            dataset = file.create_dataset(f"classifier/{name}", data=tensor)
            dataset.attrs["crc32"] = np.uint32(zlib.crc32(np.asarray(tensor, order="C").tobytes()))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Of version 1, which has everything that version 2 has, and more data sets to damage."""
    path = tmp_path_factory.mktemp("pristine") / "s.h5"
    write(path, content())
    put_in_group(path, content().classifier)
    return path


@pytest.fixture(autouse=True)
def trusted(request, monkeypatch):
    """Leaves out the look at how a file is stored, which most tests here damage by h5py."""
    if "untrusted" not in request.fixturenames:
        monkeypatch.setattr(scores_file, "require_safe", lambda path, isolated: None)


@pytest.fixture
def untrusted():
    """Leaves the look at how a file is stored where it is."""


@pytest.fixture
def second(tmp_path):
    """A sound scores file of version 2."""
    write(tmp_path / "second.h5", content())
    return tmp_path / "second.h5"


@pytest.mark.usefixtures("untrusted")
def test_what_is_written_is_plain_and_version_1_is_still_read(second, sample):
    assert why_not_plain(second) is None
    assert why_not_plain(Path(sample)) is not None
    for ours, theirs in zip(read_all(second), read_all(sample), strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])


@pytest.mark.usefixtures("untrusted")
def test_version_2_must_be_plain(second):
    with h5py.File(second, "r+") as file:
        file.attrs["note"] = "of variable length"
    assert_refused(second, "is not stored as a scores file must be")


@pytest.mark.usefixtures("untrusted")
def test_file_that_kills_its_reader(sample, monkeypatch):
    monkeypatch.setattr(isolation, "CHILD", "import os; os.kill(os.getpid(), 11)")
    assert_refused(sample, "HDF5 cannot read this file safely", "signal 11")


@pytest.mark.parametrize("raw", [b"", b"\0" * 8, b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}"])
def test_classifier_that_is_no_safetensors(second, raw):
    put(second, "classifier", np.frombuffer(raw, "u1"))
    assert_refused(second, "/classifier")


def test_what_closing_finds_is_an_error_of_the_file(second, monkeypatch):
    def fail(self):
        raise RuntimeError("Can't decrement id ref count")

    monkeypatch.setattr(h5py.File, "close", fail)
    assert_refused(second, "HDF5 cannot close it")


@pytest.fixture
def sample(pristine, tmp_path):
    """A sound scores file, for the test to damage."""
    return shutil.copy(pristine, tmp_path / "s.h5")


def assert_refused(path, *words):
    with pytest.raises(ArtifactError) as caught:
        read_all(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: "), text
    assert "edgeprune score" in text or "newer edgeprune" in text
    assert "\n" not in text
    for word in words:
        assert word in text, text


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


def put(path, name, array, **options):
    """Replace an array by another with a right checksum."""
    with h5py.File(path, "r+") as file:
        del file[name]
        dataset = file.create_dataset(name, data=array, **options)
        stored = dataset[()]
        dataset.attrs["crc32"] = np.uint32(zlib.crc32(np.asarray(stored).tobytes()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("classifier")])
@pytest.mark.parametrize("kind", ["<f8", "<i2", "S3"])
def test_an_array_of_another_type(sample, name, kind):
    with h5py.File(sample) as file:
        array = file[name][()].astype(kind)
    put(sample, name, array)
    assert_refused(sample, f"/{name}: not of type")


@pytest.mark.parametrize("value", ["text", np.array(["a", "b"], object)])
def test_a_tensor_that_is_text(sample, value):
    put(sample, "classifier/conv1.weight", value)
    assert_refused(sample, "/classifier/conv1.weight")


@pytest.mark.parametrize("name", [f"epochs/{name}" for name in RECORD_TYPES] + ["entropies/entropies"])
@pytest.mark.parametrize("change", ["wide", "flat", "scalar", "deep"])
def test_an_array_of_another_shape(sample, name, change):
    with h5py.File(sample) as file:
        array = file[name][()]
    changed = {
        "wide": np.hstack([array, array]),
        "flat": array.ravel(),
        "scalar": array[0, 0],
        "deep": array[None],
    }[change]
    put(sample, name, changed)
    assert_refused(sample, f"/{name} has the shape")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("samples/rows", np.arange(SAMPLES - 1)),
        ("samples/rows", np.arange(SAMPLES)[::-1].copy()),
        ("samples/rows", np.arange(SAMPLES) - 1),
        ("samples/rows", np.zeros(SAMPLES, int)),
        ("samples/rows", np.arange(SAMPLES)[None]),
        ("samples/labels", np.full(SAMPLES, -1)),
        ("samples/labels", np.array(3)),
        ("samples/final_entropies", np.zeros(SAMPLES + 1, "f4")),
        ("entropies/epochs", np.array([2])),
    ],
)
def test_arrays_that_disagree(sample, name, array):
    put(sample, name, array)
    assert_refused(sample, "damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["epochs/margins", "entropies/entropies", "samples/final_entropies"])
def test_values_that_are_not_finite(sample, name, value):
    with h5py.File(sample) as file:
        array = file[name][()]
    array.flat[3] = value
    put(sample, name, array)
    assert_refused(sample, f"/{name} has values that are not finite")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 10_000,
        b"{}",
        b'{"source": {}, "config": {}, "classifier": {"model": "resnet8"}}',
        b'{"source": {"sha256": 5}, "config": {}, "classifier": {"model": "resnet8"}}',
        b'{"source": {"sha256": "ab"}, "config": [], "classifier": {"model": "resnet8"}}',
        b'{"source": {"sha256": "ab"}, "config": {}, "classifier": {"model": null}}',
        b'{"source": "sha256", "config": {}, "classifier": "model"}',
    ],
)
def test_provenance_that_is_not_a_scoring_runs(sample, text):
    put(sample, "provenance", np.frombuffer(text, "u1") if text else np.zeros(0, "u1"))
    assert_refused(sample, "/provenance")


@pytest.mark.parametrize("crc", [None, "text", -1, 2**40, [1, 2], 1.5])
def test_a_checksum_that_is_none(sample, crc):
    with h5py.File(sample, "r+") as file:
        del file["samples/rows"].attrs["crc32"]
        if crc is not None:
            file["samples/rows"].attrs["crc32"] = crc
    assert_refused(sample, "/samples/rows: does not match its checksum")


@pytest.mark.parametrize("name", ["samples/rows", "epochs/correct", "classifier/conv1.weight", "classifier"])
def test_links_are_not_followed(sample, tmp_path, pristine, name):
    for link in (h5py.SoftLink("/elsewhere"), h5py.ExternalLink(str(pristine), f"/{name}")):
        path = shutil.copy(sample, tmp_path / "linked.h5")
        with h5py.File(path, "r+") as file:
            file.move(name, "elsewhere")
            file[name] = link
        assert_refused(path, f"/{name}: a soft or external link")


@pytest.mark.parametrize("name", ["samples", "epochs", "entropies"])
def test_groups_that_are_links(sample, name):
    with h5py.File(sample, "r+") as file:
        file.move(name, "elsewhere")
        file[name] = h5py.SoftLink("/elsewhere")
    assert_refused(sample, f"/{name}: a soft or external link")


@pytest.mark.parametrize("name", ["epochs/errors", "samples/rows", "classifier/conv1.weight"])
def test_a_group_in_the_place_of_an_array(sample, name):
    with h5py.File(sample, "r+") as file:
        del file[name]
        file.create_group(name)
    assert_refused(sample, f"/{name}")


def test_an_array_in_the_place_of_a_group(sample):
    for name in ("classifier", "epochs", "samples"):
        put(sample, name, np.arange(3))
        assert_refused(sample, f"/{name}")


def test_arrays_that_keep_their_values_in_other_files(sample, tmp_path):
    (tmp_path / "outside").write_bytes(bytes(8 * SAMPLES))
    external = {"external": [(str(tmp_path / "outside"), 0, 8 * SAMPLES)]}
    with h5py.File(sample, "r+") as file:
        del file["samples/rows"]
        file.create_dataset("samples/rows", (SAMPLES,), "<i8", **external).attrs["crc32"] = np.uint32(0)
    assert_refused(sample, "/samples/rows: keeps its data in other files")
    layout = h5py.VirtualLayout((SAMPLES,), "<i8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "rows", (SAMPLES,))
    with h5py.File(sample, "r+") as file:
        del file["samples/rows"]
        file.create_virtual_dataset("samples/rows", layout)
    assert_refused(sample, "/samples/rows: keeps its data in other files")


GZIP = {"shape": (2**12,), "chunks": (2**12,), "compression": "gzip"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (2**40,)}, "declares "),
        ({"shape": (2**40,), "chunks": (2**10,)}, "declares "),
        ({**GZIP, "data": np.zeros(2**12, "<i8")}, "unknown HDF5 filters"),
        ({**GZIP, "shuffle": True, "data": np.zeros(2**12, "<i8")}, "declares "),
    ],
)
@pytest.mark.parametrize("name", ["samples/rows", "epochs/margins", "classifier/conv1.weight", "provenance"])
def test_sizes_that_are_only_declared(sample, name, options, words):
    kind = {"samples/rows": "<i8", "provenance": "u1"}.get(name, "<f4")
    with h5py.File(sample, "r+") as file:
        del file[name]
        file.create_dataset(name, **({"dtype": kind} | options)).attrs["crc32"] = np.uint32(0)
    assert_refused(sample, f"/{name}: {words}")


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


def test_files_of_other_kinds(tmp_path, make_pack):
    pack, _ = make_pack(samples=3)
    assert_refused(pack, "HDF5, but not a scores file")
    for name, data in (("empty", b""), ("photo", b"\xff\xd8\xff" * 100), ("zip", b"PK\x03\x04" + bytes(99))):
        (tmp_path / name).write_bytes(data)
        assert_refused(tmp_path / name, "not a scores file, or cut short")
    assert_refused(tmp_path / "nowhere", "no such file")
    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / "folder", "no such file")


def test_a_file_cut_short_anywhere(sample):
    data = sample.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 60)):
        sample.write_bytes(data[:size])
        assert_refused(sample)


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


def test_a_file_that_is_damaged_after_it_was_opened(sample):
    records = read_scores_file(sample)
    sample.write_bytes(sample.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cut short"):
        records.array("margins")
    sample.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        replace(records).array("margins")


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
