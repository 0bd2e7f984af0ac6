"""Scores files that HDF5 can do harm with: links, other files, sizes that are only declared."""

import shutil

import h5py
import numpy as np
import pytest
from scores_files import (
    SAMPLES,
    assert_refused,
    put,
)

from edgeprune_formats import isolation


@pytest.mark.usefixtures("untrusted")
def test_version_2_must_be_plain(second):
    with h5py.File(second, "r+") as file:
        file.attrs["note"] = "of variable length"
    assert_refused(second, "is not stored as a scores file must be")


@pytest.mark.usefixtures("untrusted")
def test_file_that_kills_its_reader(sample, monkeypatch):
    monkeypatch.setattr(isolation, "CHILD", "import os; os.kill(os.getpid(), 11)")
    assert_refused(sample, "HDF5 cannot read this file safely", "signal 11")


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
