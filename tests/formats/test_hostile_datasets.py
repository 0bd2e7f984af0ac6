import h5py
import numpy as np
import pytest

from edgeprune_formats import PackChecksumError, PackLayoutError, PackLimitError, open_pack, verify_pack

SMALL = ("labels", "source_index", "class_names", "provenance", "scores")
SAMPLES = ("samples/values", "samples/indices")
CHECKSUMS = ("samples/values_crc32", "samples/indices_crc32")
ALL = (*SMALL, *SAMPLES, *CHECKSUMS)

OTHER_TYPES = {
    "labels": ("<i8", ">i4", "<f4", "<u4"),
    "source_index": ("<i4", ">i8", "<f8", "<u8"),
    "class_names": ("<i4",),
    "provenance": ("<f8",),
    "scores": ("<f8", ">f4", "<f2", "<i4"),
    "samples/values": ("<f8", ">f4", "<f2", "<i4"),
    "samples/indices": ("<u4", ">u2", "<i2", "<f4", "u1"),
    "samples/values_crc32": ("<u8", ">u4", "<i4"),
    "samples/indices_crc32": ("<u2", "<f4"),
}


def place(name):
    return f"/{name}: "


def replace(file, name, *, shape=None, dtype=None, **options):
    """Put another dataset under the name, keeping what is not given, with a right checksum attribute."""
    old = file[name]
    data = old[...]
    if shape is not None:
        data = np.resize(data, shape)
    if old.chunks and "chunks" not in options:
        options["chunks"] = (*data.shape[:1], *(1 for _ in data.shape[1:])) if shape else old.chunks
    crc = old.attrs.get("crc32")
    if dtype is not None:
        data = np.zeros(data.shape, dtype)
    del file[name]
    dataset = file.create_dataset(name, data=data, **options)
    if crc is not None:
        dataset.attrs["crc32"] = crc
    return dataset


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name != "scores"])
def test_missing(tools, sample, name):
    with h5py.File(sample.path, "r+") as file:
        del file[name]
    tools.assert_refused(sample.path, PackLayoutError, place(name), "missing")


def test_scores_may_be_missing(sample):
    with h5py.File(sample.path, "r+") as file:
        del file["scores"]
    assert verify_pack(sample.path, isolated=False) == []
    with open_pack(sample.path, isolated=False) as pack:
        assert pack.scores is None


@pytest.mark.parametrize("kind", ["missing", "dataset", "soft link", "external link"])
def test_samples_is_no_group(tools, sample, kind):
    with h5py.File(sample.path, "r+") as file:
        file.move("samples", "elsewhere")
        if kind == "dataset":
            file["samples"] = 1
        elif kind == "soft link":
            file["samples"] = h5py.SoftLink("/elsewhere")
        elif kind == "external link":
            file["samples"] = h5py.ExternalLink(sample.path.name, "/elsewhere")
    tools.assert_refused(sample.path, PackLayoutError, "/samples: ")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in ALL for dtype in OTHER_TYPES[name]])
def test_wrong_type(tools, sample, name, dtype):
    with h5py.File(sample.path, "r+") as file:
        replace(file, name, dtype=dtype)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "type")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("type_name", ["enum", "compound", "object reference", "opaque"])
def test_type_of_another_class(tools, sample, name, type_name):
    dtype = {
        "enum": h5py.enum_dtype({"a": 0}, "i4"),
        "compound": np.dtype([("a", "<i4")]),
        "object reference": h5py.ref_dtype,
        "opaque": np.dtype("V4"),
    }[type_name]
    with h5py.File(sample.path, "r+") as file:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, dtype)[...] = (
            np.zeros(shape, dtype) if dtype.kind != "O" else file.ref
        )
    tools.assert_refused(sample.path, PackLayoutError, place(name), "type")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("of", ["text", "numbers"])
def test_variable_length(tools, sample, name, of):
    with h5py.File(sample.path, "r+") as file:
        shape = file[name].shape
        del file[name]
        dtype = h5py.string_dtype() if of == "text" else h5py.vlen_dtype(np.int32)
        dataset = file.create_dataset(name, shape, dtype)
        dataset[(0,) * len(shape)] = "{}" if of == "text" else np.arange(3)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "type")


SHAPES = {
    "labels": [(6,), (8,), (7, 1), ()],
    "source_index": [(6,), (8,), (1, 7)],
    "provenance": [(1,), (2, 2)],
    "scores": [(6,), (8,), (7, 1), ()],
    "samples/values": [(6, 3, 40), (8, 3, 40), (7, 3, 41), (7, 2, 40), (7, 120), (840,)],
    "samples/indices": [(7, 3, 39), (7, 3, 40, 1)],
    "samples/values_crc32": [(2,), (4,), (3, 1), ()],
    "samples/indices_crc32": [(1,)],
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in SHAPES for shape in SHAPES[name]])
def test_wrong_shape(tools, sample, name, shape):
    with h5py.File(sample.path, "r+") as file:
        replace(file, name, shape=shape)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "shape")


@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_wrong_shape_of_class_names(tools, sample, shape):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "class_names", np.resize(file["class_names"][...], shape))
    tools.assert_refused(sample.path, PackLimitError, "/class_names: ", "shape")


@pytest.mark.parametrize("name", ALL)
def test_empty_dataspace(tools, sample, name):
    with h5py.File(sample.path, "r+") as file:
        dtype = file[name].dtype
        del file[name]
        file[name] = h5py.Empty(dtype)
        file[name].attrs["crc32"] = np.uint32(0)
    tools.assert_refused(sample.path, PackLayoutError, place(name))


@pytest.mark.parametrize("name", ALL)
def test_group_in_place_of_a_dataset(tools, sample, name):
    with h5py.File(sample.path, "r+") as file:
        del file[name]
        file.create_group(name)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "not a dataset")


@pytest.mark.parametrize("name", ALL)
def test_named_type_in_place_of_a_dataset(tools, sample, name):
    with h5py.File(sample.path, "r+") as file:
        del file[name]
        file[name] = np.dtype("<i4")
    tools.assert_refused(sample.path, PackLayoutError, place(name), "not a dataset")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["soft", "dangling", "external"])
def test_link(tools, sample, pristine, name, kind):
    with h5py.File(sample.path, "r+") as file:
        file.move(name, "elsewhere")
        file[name] = {
            "soft": h5py.SoftLink("/elsewhere"),
            "dangling": h5py.SoftLink("/nowhere"),
            "external": h5py.ExternalLink(str(pristine["none"].path), f"/{name}"),
        }[kind]
    tools.assert_refused(sample.path, PackLayoutError, place(name), "link")


@pytest.mark.parametrize("name", ["labels", "source_index", "scores", "samples/values_crc32"])
def test_external_storage(tools, sample, tmp_path, name):
    with h5py.File(sample.path, "r+") as file:
        data = file[name][...]
        del file[name]
        (tmp_path / "outside.bin").write_bytes(data.tobytes())
        outside = [(str(tmp_path / "outside.bin"), 0, data.nbytes)]
        dataset = file.create_dataset(name, data.shape, data.dtype, external=outside)
        dataset.attrs["crc32"] = np.uint32(0)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "other files")


@pytest.mark.parametrize("name", ALL)
def test_virtual_dataset(tools, sample, pristine, name):
    with h5py.File(sample.path, "r+") as file:
        shape, dtype = file[name].shape or (1,), file[name].dtype
        del file[name]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(pristine["none"].path), name, shape)
        file.create_virtual_dataset(name, layout)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "other files")


FILTERS = {
    "lzf": {"compression": "lzf"},
    "fletcher32": {"fletcher32": True},
    "scaleoffset": {"scaleoffset": 4},
    "deflate alone": {"compression": "gzip"},
    "shuffle alone": {"shuffle": True},
    "three": {"compression": "gzip", "shuffle": True, "fletcher32": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SAMPLES, *CHECKSUMS, "labels", "scores"])
@pytest.mark.parametrize("kind", FILTERS)
def test_filter_that_a_pack_has_not(tools, sample, name, kind):
    with h5py.File(sample.path, "r+") as file:
        options = {"chunks": file[name].chunks or file[name].shape}
        replace(file, name, **options, **FILTERS[kind])
    tools.assert_refused(sample.path, PackLayoutError, place(name), "filters")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["labels", "source_index", "class_names", "scores", *CHECKSUMS])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}])
def test_small_array_in_chunks(tools, sample, name, options):
    with h5py.File(sample.path, "r+") as file:
        replace(file, name, chunks=(2,), **options)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "chunked")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("chunks", [None, (1, 3, 40), (7, 3, 40), (3, 1, 40), (3, 3, 20)])
def test_samples_in_other_chunks(tools, sample, name, chunks):
    with h5py.File(sample.path, "r+") as file:
        replace(file, name, chunks=chunks)
    tools.assert_refused(sample.path, PackLayoutError, place(name), "chunks")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("crc", [None, 0, 1.5, "0", np.zeros(2, np.uint32), h5py.Empty("u4")])
def test_checksum_attribute_missing_or_wrong(tools, sample, name, crc):
    with h5py.File(sample.path, "r+") as file:
        del file[name].attrs["crc32"]
        if crc is not None:
            file[name].attrs["crc32"] = crc
    tools.assert_refused(sample.path, PackChecksumError, place(name), "checksum")
