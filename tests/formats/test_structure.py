"""Which files HDF5 may open without another process before it, and which not."""

import re
import struct

import h5py
import numpy as np
import pytest

from edgeprune_benchmarks.fuzzing.hdf5_metadata import blocks, repair
from edgeprune_formats import ConfigError, PackFormatError, open_pack
from edgeprune_formats.codecs import Field
from edgeprune_formats.codecs.sparse_f32 import SparseF32
from edgeprune_formats.files import atomic_hdf5
from edgeprune_formats.packs import writer as writer_module
from edgeprune_formats.structure import mostly_holes, why_not_plain

pytestmark = pytest.mark.usefixtures("examined_in_forks")


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("chunk_samples", [1, 3, 7])
def test_what_the_writer_writes_is_plain(tools, tmp_path, compression, chunk_samples):
    made = tools.write(tmp_path / "p.h5", tools.header(chunk_samples=chunk_samples), compression=compression)
    assert why_not_plain(made.path) is None


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}])
def test_many_chunks_fill_several_pages_of_their_index(tmp_path, options):
    # HDF5 cuts an index of more than 1024 chunks into pages.
    path = tmp_path / "p.h5"
    with atomic_hdf5(path) as file:
        file.create_dataset("many", data=np.ones((2100, 2)), chunks=(1, 2), track_times=False, **options)
    assert why_not_plain(path) is None


def test_attributes_stay_in_the_header_however_many(tmp_path):
    path = tmp_path / "p.h5"
    with atomic_hdf5(path) as file:
        file.create_group("inside")
        for number in range(100):
            file.attrs[f"number {number}"] = np.int64(number)
    assert why_not_plain(path) is None


def test_codec_with_more_arrays_than_a_group_can_hold(tools, tmp_path, monkeypatch):
    class Wide(SparseF32):
        def fields(self, header):
            return tuple(Field(f"a{number}", np.dtype("<f4"), (1,)) for number in range(5))

    monkeypatch.setattr(writer_module, "get_codec", lambda name: Wide())
    with pytest.raises(ConfigError, match="more arrays"):
        tools.write(tmp_path / "p.h5")
    assert tools.names(tmp_path) == []


def soft_link(file):
    file["soft"] = h5py.SoftLink("/labels")


def deep(file):
    file.create_group("a/b/c")


def many_links(file):
    for number in range(9):
        file.create_group(f"group {number}")


def again(file):
    file["again"] = file["labels"]


def loop(file):
    file["samples/up"] = file["/"]


ADDED = {
    "soft link": (soft_link, "links"),
    "external link": (lambda file: file.__setitem__("x", h5py.ExternalLink("o.h5", "/x")), "links"),
    "deep": (deep, "too deep"),
    "many links": (many_links, "links in a heap"),
    "object with two names": (again, "parts that a pack"),
    "loop": (loop, "parts of another kind"),
    "text of variable length": (lambda file: file.attrs.__setitem__("note", "text"), "type"),
    "reference": (lambda file: file.attrs.__setitem__("there", file["labels"].ref), "type"),
    "boolean": (lambda file: file.attrs.__setitem__("yes", True), "type"),
    "no shape": (lambda file: file.attrs.__setitem__("none", h5py.Empty("i4")), "shape"),
    "named type": (lambda file: file.__setitem__("kind", np.dtype("<i4")), "lacks a part"),
    "data set that grows": (lambda file: file.create_dataset("g", (3,), "i4", maxshape=(None,)), "grow"),
    "fill value": (lambda file: file.create_dataset("f", (3,), "i4", fillvalue=7), "fill"),
    "other filter": (
        lambda file: file.create_dataset("l", (9,), "i4", chunks=(3,), compression="lzf"),
        "filters",
    ),
    "data that are not there": (lambda file: file.create_dataset("h", (9,), "i4"), "no data"),
    "attributes in order": (lambda file: file.create_group("o", track_order=True), "header is of another"),
}


@pytest.mark.parametrize("libver", ["v110", "latest"])
@pytest.mark.parametrize("what", ADDED)
def test_what_a_pack_must_not_have_is_not_plain(sample, what, libver):
    add, reason = ADDED[what]
    with h5py.File(sample.path, "r+", libver=("v110", libver)) as file:
        add(file)
    found = why_not_plain(sample.path)
    assert found is not None
    assert re.search(reason, found), found


def test_old_format_is_not_plain(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w", libver="earliest") as file:
        file["labels"] = np.arange(3)
    assert "old kind" in why_not_plain(tmp_path / "old.h5")


def test_attributes_in_a_heap_are_not_plain(tmp_path):
    with h5py.File(tmp_path / "dense.h5", "w", libver=("v110", "v110")) as file:
        for number in range(9):
            file.attrs[str(number)] = number
    assert "attributes in a heap" in why_not_plain(tmp_path / "dense.h5")


@pytest.mark.parametrize("length", range(0, 9000, 250))
def test_file_that_is_cut_is_not_plain(sample, length):
    content = sample.path.read_bytes()
    sample.path.write_bytes(content[: min(length, len(content) - 1)])
    assert why_not_plain(sample.path) is not None


def forged(path, change):
    """Change the metadata of a plain file and repair its checksums."""
    content, places = bytearray(path.read_bytes()), blocks(path)
    change(content)
    repair(content, places)
    path.write_bytes(content)


def test_checksums_are_those_of_hdf5(sample):
    content = sample.path.read_bytes()
    forged(sample.path, lambda content: None)
    assert sample.path.read_bytes() == content


def index_of(content):
    """Where the header of an index of chunks begins."""
    return bytes(content).index(b"FAHD")


def counts_more(content):
    at = index_of(content) + 8
    content[at : at + 8] = struct.pack("<Q", 2**40)


def other_pages(content):
    content[index_of(content) + 7] = 63


def other_entries(content):
    content[index_of(content) + 6] = 1


def chunk_far_away(content):
    at = bytes(content).index(b"FADB") + 14
    content[at : at + 8] = struct.pack("<Q", 2**62)


def chunks_on_each_other(content):
    at = bytes(content).index(b"FADB") + 14
    content[at + 8 : at + 16] = content[at : at + 8]


def shared_message(content):
    content[bytes(content).index(b"OHDR", 60) + 7 + 3] |= 2


def root_at_the_end(content):
    content[36:44] = struct.pack("<Q", len(content) - 5)


FORGED = (counts_more, other_pages, other_entries, chunk_far_away, chunks_on_each_other, shared_message)


@pytest.mark.parametrize("change", [*FORGED, root_at_the_end], ids=lambda change: change.__name__)
def test_forged_metadata_with_right_checksums(tools, sample, change):
    forged(sample.path, change)
    assert why_not_plain(sample.path) is not None
    with pytest.raises(PackFormatError) as caught:
        open_pack(sample.path, isolated=True)
    assert str(sample.path) in str(caught.value)


@pytest.mark.parametrize("where", ["end", "middle"])
def test_file_of_holes_is_refused_before_it_is_read(sample, where):
    with sample.path.open("r+b") as file:
        file.truncate(2**30)
        if where == "middle":
            file.seek(2**30 - 1)
            file.write(b"x")
    if sample.path.stat().st_blocks * 512 > 2**29:
        pytest.skip("this file system stores holes")
    assert mostly_holes(sample.path)
    for isolated in (None, False):
        with pytest.raises(PackFormatError, match="never written"):
            open_pack(sample.path, isolated=isolated)


def test_few_holes_do_no_harm(tools, sample):
    with sample.path.open("r+b") as file:
        file.truncate(2**22)
    assert not mostly_holes(sample.path)
    np.testing.assert_array_equal(tools.read_dense(sample.path), sample.dense)
