import ctypes
import json
import shutil
import subprocess
import zlib
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from edgeprune_formats import PackFormatError, PackHeader, PackWriter, open_pack, verify_pack
from edgeprune_formats.coding import native


def build_header(**changes):
    facts = {
        "samples": 7,
        "channels": 3,
        "height": 12,
        "width": 20,
        "components": 40,
        "codec": "sparse-f32",
        "chunk_samples": 3,
        "class_names": ("ant", "bee", "Käfer"),
        "mean": (0.5, 0.25, 0.125),
        "std": (0.2, 0.3, 0.4),
        "generator": "tests of edgeprune-formats",
        "created": "2026-01-02T03:04:05Z",
        "provenance": {"source": {"name": "noise"}, "seed": 7},
    }
    return PackHeader(**(facts | changes))


def build_spectra(header, seed=0):
    """Coefficients, a mask of K in each channel, and the dense spectra that must come back."""
    random = np.random.default_rng(seed)
    planes = (header.samples, header.channels, header.height * header.width)
    coefficients = random.standard_normal(planes).astype(np.float32)
    mask = np.zeros(planes, bool)
    kept = np.argsort(random.random(planes), axis=2)[..., : header.components]
    np.put_along_axis(mask, kept, True, axis=2)
    shape = (header.samples, *header.shape)
    dense = np.where(mask, coefficients, 0)
    return coefficients.reshape(shape), mask.reshape(shape), dense.reshape(shape)


def write(path, header=None, *, compression="none", seed=0, pieces=None, scored=True, targets=()):
    header = header or build_header()
    coefficients, mask, dense = build_spectra(header, seed)
    labels = np.arange(header.samples) % max(1, len(header.class_names))
    source_index = np.arange(header.samples) * 3 + 1
    scores = np.linspace(-2, 3, header.samples).astype(np.float32)[::-1] if scored else None
    options = {"compression": compression, "scores": scores, "targets": targets}
    with PackWriter(path, header, labels, source_index, **options) as writer:
        start = 0
        for count in pieces or [header.samples]:
            writer.append(coefficients[start : start + count], mask[start : start + count])
            start += count
    rows = {"labels": labels, "source_index": source_index, "scores": scores}
    return SimpleNamespace(path=path, header=header, dense=dense, **rows)


# Tests damage packs by h5py, which stores more than a pack may. They are about the checks that come after the
# look at how a file is stored, and leave that out: test_isolation.py and test_structure.py are about it.
def read_dense(path):
    with open_pack(path, isolated=False) as pack:
        parts = [pack.read_chunk(chunk) for chunk in range(pack.header.chunks)]
        return np.concatenate([part.to_dense(pack.header.height, pack.header.width) for part in parts])


def read_all(path):
    with open_pack(path, isolated=False) as pack:
        return read_dense(path), pack.scores


def assert_refused(path, kind, location, *words):
    """Reading ends in exactly this error, which names file and object, and verify lists the same defect.

    Of the root, "/", the name is left out.
    """
    with pytest.raises(PackFormatError) as caught:
        read_all(path)
    text = str(caught.value)
    assert type(caught.value) is kind, text
    problem = caught.value.problem
    if location == "/":
        assert (problem.location, text) == ("/", f"{path}: {problem.message}")
    else:
        assert text.startswith(f"{path}: {location}"), text
    for word in words:
        assert word in text
    assert problem in verify_pack(path, isolated=False)
    return caught.value


def seal(file, name):
    """Recompute the checksums of a codec's dataset, chunk by chunk, from what it now holds."""
    rows = int(file.attrs["chunk_samples"])
    dataset = file["samples"][name]
    for chunk, start in enumerate(range(0, len(dataset), rows)):
        file["samples"][f"{name}_crc32"][chunk] = zlib.crc32(dataset[start : start + rows].tobytes())


def reseal(file, name):
    """Recompute the checksum of a small dataset from what it now holds."""
    file[name].attrs["crc32"] = np.uint32(zlib.crc32(np.asarray(file[name][...]).tobytes()))


def put(file, name, array, **options):
    """Replace a small dataset by another with a right checksum."""
    if name in file:
        del file[name]
    dataset = file.create_dataset(name, data=array, **options)
    if dataset.dtype != object:
        reseal(file, name)
    return dataset


def describe(file, change):
    """Replace the description of the columns of targets by other bytes, or change what its JSON lists."""
    listed = json.loads(file["targets/columns"][()])
    raw = json.dumps(change(listed)).encode() if callable(change) else change
    put(file, "targets/columns", np.array(raw, h5py.string_dtype("utf-8", len(raw))))


def chunk_place(path, name, chunk):
    """Byte offset and stored size of a chunk."""
    with h5py.File(path, "r") as file:
        dataset = file["samples"][name]
        start = (chunk * dataset.chunks[0], *(0 for _ in dataset.shape[1:]))
        info = dataset.id.get_chunk_info_by_coord(start)
        return info.byte_offset, info.size


def flip(path, position, bit=1):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ bit]))


@pytest.fixture(scope="session")
def tools():
    return SimpleNamespace(
        header=build_header,
        spectra=build_spectra,
        write=write,
        read_dense=read_dense,
        assert_refused=assert_refused,
        seal=seal,
        put=put,
        reseal=reseal,
        describe=describe,
        chunk_place=chunk_place,
        flip=flip,
        names=lambda folder: sorted(path.name for path in folder.iterdir()),
    )


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    return {name: write(folder / f"{name}.h5", compression=name) for name in ("none", "gzip")}


@pytest.fixture
def sample(pristine, tmp_path):
    """A sound pack of 7 images of 3x12x20 in 3 chunks, for the test to damage."""
    return _copy(pristine["none"], tmp_path)


@pytest.fixture
def gzip_sample(pristine, tmp_path):
    return _copy(pristine["gzip"], tmp_path)


def _copy(made, folder):
    path = folder / "pack.h5"
    shutil.copy(made.path, path)
    return SimpleNamespace(**(vars(made) | {"path": path}))


@pytest.fixture(scope="session")
def scalar_library(tmp_path_factory):
    """The kernels in C as they are where there are no vectors that they know."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no compiler here")
    sources = [Path(native.__file__).with_name(name) for name in ("_kernels.c", "_encode.c")]
    library = tmp_path_factory.mktemp("scalar") / "scalar.so"
    options = ("-O2", "-std=c11", "-ffp-contract=off", "-shared", "-fPIC", "-DEDGEPRUNE_SCALAR")
    subprocess.run([compiler, *options, "-o", library, *sources], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(params=["built", "scalar"])
def compiled(request):
    """The kernels that encode as they are compiled here, and without vectors."""
    if request.param == "scalar":
        return native._NativeKernels(request.getfixturevalue("scalar_library"))
    if native._library() is None:
        pytest.skip("no compiled encoder here")
    return native.encoding_kernels()
