import io
import zipfile

import h5py
import numpy as np
import pytest

from edgeprune_formats import (
    NotAPackError,
    PackChecksumError,
    PackFormatError,
    PackLayoutError,
    PackVersionError,
    open_pack,
    verify_pack,
)


def zip_bytes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("labels.npy", b"0123456789")
    return buffer.getvalue()


FOREIGN = {
    "JPEG": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(100), "JPEG"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
    "zip": (zip_bytes(), "zip or npz"),
    "pickle": (b"\x80\x04\x95" + bytes(40), "pickle"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "empty": (b"", "empty"),
    "text": (b"label,path\n0,a.png\n", "no HDF5 file"),
    "half a signature": (b"\x89HDF", "no HDF5 file"),
    "signature broken by text mode": (b"\x89HDF\n\x1a\n" + bytes(100), "no HDF5 file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_not_hdf5(tools, tmp_path, kind):
    content, word = FOREIGN[kind]
    (tmp_path / "p.h5").write_bytes(content)
    tools.assert_refused(tmp_path / "p.h5", NotAPackError, "/", word)


@pytest.mark.parametrize("length", [8, 9, 48, 100])
def test_signature_and_nothing_sound_after_it(tools, tmp_path, length):
    (tmp_path / "p.h5").write_bytes((b"\x89HDF\r\n\x1a\n" + bytes(92))[:length])
    tools.assert_refused(tmp_path / "p.h5", PackChecksumError, "/")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    "attributes", [{}, {"format": np.bytes_("anndata")}, {"keras_version": "3"}, {"format_version": "1.0"}]
)
def test_hdf5_of_another_kind(tools, tmp_path, attributes, libver):
    with h5py.File(tmp_path / "p.h5", "w", libver=libver) as file:
        file["labels"] = np.arange(7)
        file.attrs.update(attributes)
    tools.assert_refused(tmp_path / "p.h5", NotAPackError, "/", "not a pack")


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "3.1"])
def test_other_major_version_names_the_release(tools, sample, version):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["format_version"] = np.bytes_(version)
        del file["labels"]  # What a version looks like inside is for its own readers to judge.
    tools.assert_refused(
        sample.path,
        PackVersionError,
        "/ attribute format_version: ",
        f"EdgePack {version} is not read by this release",
        f"install the edgeprune release whose formats/SPEC.md describes EdgePack {version.split('.')[0]}",
    )
    assert len(verify_pack(sample.path, isolated=False)) == 1


@pytest.mark.parametrize(
    "version", ["", "1", "1.", ".0", "one.zero", "1.0.0", "-1.0", "+1.0", "1.0 ", "²¹.0"]
)
def test_malformed_version(tools, sample, version):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["format_version"] = np.array(version.encode() or b"\0", "S")
    tools.assert_refused(sample.path, PackVersionError, "/ attribute format_version: ", "MAJOR.MINOR")


@pytest.mark.parametrize("version", ["1.2", "1.7", "1.10"])
def test_newer_minor_version_with_additions_is_read(tools, sample, version):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["format_version"] = np.bytes_(version)
        file.attrs["soft_label_temperature"] = 2.0
        file.attrs["note"] = "of variable length"
        file["soft_labels"] = np.zeros((7, 3), "<f2")
        file["samples/importance"] = np.ones(7)
        file["names"] = ["of", "variable", "length"]
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file.create_group("model")["state"] = np.zeros(4)
    np.testing.assert_array_equal(tools.read_dense(sample.path), sample.dense)
    assert verify_pack(sample.path, isolated=False) == []
    with open_pack(sample.path, isolated=False) as pack:
        assert pack.header.format_version == version
        assert pack.scores.tolist() == sample.scores.tolist()


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.10"])
def test_scores_are_checked_since_version_1_1(tools, sample, version):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["format_version"] = np.bytes_(version)
        del file["scores"]
        file["scores"] = h5py.SoftLink("/labels")
    tools.assert_refused(sample.path, PackLayoutError, "/scores: ", "link")


@pytest.mark.parametrize("kind", ["scores", "group", "text", "dangling link"])
def test_scores_mean_nothing_in_version_1_0(sample, kind):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["format_version"] = np.bytes_("1.0")
        if kind != "scores":
            del file["scores"]
        if kind == "group":
            file.create_group("scores")
        elif kind == "text":
            file["scores"] = "of variable length"
        elif kind == "dangling link":
            file["scores"] = h5py.SoftLink("/nowhere")
    assert verify_pack(sample.path, isolated=False) == []
    with open_pack(sample.path, isolated=False) as pack:
        assert pack.scores is None


def test_unknown_codec_names_what_is_known(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["codec"] = np.bytes_("wavelet")
    tools.assert_refused(
        sample.path, PackVersionError, "/ attribute codec: ", "'wavelet'", "sparse-f32", "install a newer"
    )


def test_bytes_after_the_end_do_no_harm(tools, sample):
    with sample.path.open("ab") as file:
        file.write(b"appended by a careless download")
    np.testing.assert_array_equal(tools.read_dense(sample.path), sample.dense)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_cut_off_at_any_length(tools, pristine, tmp_path, compression):
    content = pristine[compression].path.read_bytes()
    path = tmp_path / "p.h5"
    lengths = [*range(0, 60, 5), *range(60, len(content), len(content) // 40), len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(PackFormatError) as caught:
            tools.read_dense(path)
        assert type(caught.value) is (NotAPackError if length < 8 else PackChecksumError), length
        assert str(caught.value) == f"{path}: {caught.value.problem.message}"
        assert verify_pack(path, isolated=False) == [caught.value.problem]


def test_cut_off_file_is_called_so(tools, sample):
    sample.path.write_bytes(sample.path.read_bytes()[:-1])
    tools.assert_refused(sample.path, PackChecksumError, "/", "cut short", "copy or build the pack again")
