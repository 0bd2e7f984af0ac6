import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from edgeprune_formats import ConfigError, EdgePruneError, PackWriteError, PackWriter, open_pack, verify_pack

LABELS = np.arange(7) % 3
ROWS = np.arange(7)


def start(path, header, labels=LABELS, rows=ROWS, **options):
    return PackWriter(path, header, labels, rows, **options)


def write_then_raise(path, header, spectra, error):
    with start(path, header) as writer:
        writer.append(*spectra)
        raise error


@pytest.fixture
def spectra(tools):
    return tools.spectra(tools.header())[:2]


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_exception_inside_leaves_nothing(tools, tmp_path, spectra, error):
    with pytest.raises(type(error)):
        write_then_raise(tmp_path / "p.h5", tools.header(), spectra, error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_exception_inside_keeps_what_was_there(tools, sample, spectra, error):
    before = sample.path.read_bytes()
    with pytest.raises(type(error)):
        write_then_raise(sample.path, tools.header(), spectra, error)
    assert tools.names(sample.path.parent) == ["pack.h5"]
    assert sample.path.read_bytes() == before


def test_existing_file_is_replaced_only_at_the_end(tools, sample, spectra):
    before = sample.path.read_bytes()
    with start(sample.path, tools.header()) as writer:
        writer.append(*spectra)
        assert sample.path.read_bytes() == before
    assert sample.path.read_bytes() != before
    assert tools.names(sample.path.parent) == ["pack.h5"]


def test_too_few_images(tools, tmp_path, spectra):
    def write():
        with start(tmp_path / "p.h5", tools.header()) as writer:
            writer.append(spectra[0][:5], spectra[1][:5])

    with pytest.raises(ConfigError, match="5 of the 7 images"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_no_images(tools, tmp_path):
    def write():
        with start(tmp_path / "p.h5", tools.header()):
            pass

    with pytest.raises(ConfigError, match="0 of the 7 images"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_too_many_images(tools, tmp_path, spectra):
    def write():
        with start(tmp_path / "p.h5", tools.header()) as writer:
            writer.append(*spectra)
            writer.append(spectra[0][:1], spectra[1][:1])

    with pytest.raises(ConfigError, match="more than the 7 images"):
        write()
    assert list(tmp_path.iterdir()) == []


def one_more(coefficients, mask):
    mask = mask.copy()
    mask[4, 1].flat[np.flatnonzero(~mask[4, 1])[0]] = True
    return coefficients, mask


def one_fewer(coefficients, mask):
    mask = mask.copy()
    mask[6, 2].flat[np.flatnonzero(mask[6, 2])[-1]] = False
    return coefficients, mask


def infinite(coefficients, mask):
    return np.where(mask, np.float32(np.inf), coefficients), mask


def not_a_number(coefficients, mask):
    coefficients = coefficients.copy()
    coefficients[2, 0][mask[2, 0]] = np.nan
    return coefficients, mask


MISUSE = {
    "a mask of one more": one_more,
    "a mask of one fewer": one_fewer,
    "infinite": infinite,
    "NaN": not_a_number,
    "transposed": lambda c, m: (c.swapaxes(2, 3), m.swapaxes(2, 3)),
    "one channel": lambda c, m: (c[:, :1], m[:, :1]),
    "mask of other length": lambda c, m: (c, m[:3]),
    "no sample axis": lambda c, m: (c[0], m[0]),
    "mask not boolean": lambda c, m: (c, m.astype(np.uint8)),
}


@pytest.mark.parametrize("misuse", MISUSE)
def test_wrong_images_are_refused(tools, tmp_path, spectra, misuse):
    def write():
        with start(tmp_path / "p.h5", tools.header()) as writer:
            writer.append(*MISUSE[misuse](*spectra))

    with pytest.raises(ConfigError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"components": 0},
        {"components": 241},
        {"chunk_samples": 0},
        {"chunk_samples": 8},
        {"channels": 1},
        {"height": 0},
        {"width": 65537},
        {"codec": "unheard-of"},
        {"color_space": "cmyk"},
        {"transform": "dst"},
        {"tile": "8x8"},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (0.5, 0.0, 0.5)},
        {"class_names": ()},
        {"format_version": "2.0"},
        {"generator": "x" * 5000},
        {"provenance": {"notes": "x" * 2**24}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_header_that_no_reader_accepts_is_refused(tools, tmp_path, spectra, changes):
    def write():
        header = tools.header(**changes)
        with start(tmp_path / "p.h5", header) as writer:
            writer.append(*spectra)

    with pytest.raises(ConfigError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (LABELS[:6], ROWS),
        (LABELS, ROWS[:6]),
        (LABELS[:, None], ROWS),
        (LABELS + 1, ROWS),
        (LABELS - 1, ROWS),
        (LABELS + 2**32, ROWS),
        (LABELS + 0.5, ROWS),
        (LABELS, ROWS - 1),
    ],
    ids=[
        "few labels",
        "few rows",
        "2-D labels",
        "label too large",
        "negative label",
        "label beyond int32",
        "fractional labels",
        "negative row",
    ],
)
def test_wrong_labels_are_refused(tools, tmp_path, spectra, labels, rows):
    def write():
        with start(tmp_path / "p.h5", tools.header(), labels, rows) as writer:
            writer.append(*spectra)

    with pytest.raises(ConfigError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(6),
        np.zeros(8),
        np.zeros((7, 1)),
        np.zeros(()),
        np.array([0, 1, 2, np.nan, 4, 5, 6]),
        np.array([0, 1, 2, np.inf, 4, 5, 6], np.float32),
        np.array([0, 1, 2, -1e39, 4, 5, 6]),
        np.zeros(7, bool),
        np.zeros(7, complex),
        np.array(["1"] * 7),
        np.array([None] * 7),
    ],
    ids=["few", "many", "2-D", "scalar", "NaN", "inf", "beyond float32", "bool", "complex", "text", "object"],
)
def test_wrong_scores_are_refused(tools, tmp_path, scores):
    with pytest.raises(ConfigError, match="scores"):
        start(tmp_path / "p.h5", tools.header(), scores=scores)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i8", "u1"])
def test_scores_of_any_real_type_are_stored_as_float32(tools, tmp_path, spectra, dtype):
    scores = np.arange(14)[::-2].astype(dtype)
    expected = scores.tolist()
    with start(tmp_path / "p.h5", tools.header(), scores=scores) as writer:
        scores[:] = 99  # The caller may reuse it.
        writer.append(*spectra)
    assert verify_pack(tmp_path / "p.h5") == []
    with open_pack(tmp_path / "p.h5") as pack:
        assert pack.scores.dtype == np.float32
        assert pack.scores.tolist() == expected


def test_unknown_compression_is_refused(tools, tmp_path):
    with pytest.raises(ConfigError, match="lzma"):
        start(tmp_path / "p.h5", tools.header(), compression="lzma")


@pytest.mark.parametrize("provenance", [{"when": object()}, {"name": "\udc80"}])
def test_provenance_that_is_not_json_leaves_nothing(tools, tmp_path, spectra, provenance):
    def write():
        with start(tmp_path / "p.h5", tools.header(provenance=provenance)) as writer:
            writer.append(*spectra)

    with pytest.raises(ConfigError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_caller_may_reuse_its_arrays_after_append(tools, tmp_path, spectra):
    coefficients, mask, dense = tools.spectra(tools.header())
    with start(tmp_path / "p.h5", tools.header()) as writer:
        batch, kept = np.empty_like(coefficients[:1]), np.empty_like(mask[:1])
        for image in range(7):
            batch[...], kept[...] = coefficients[image], mask[image]
            writer.append(batch, kept)
    np.testing.assert_array_equal(tools.read_dense(tmp_path / "p.h5"), dense)


def test_arrays_need_not_be_contiguous_or_float32(tools, tmp_path, spectra):
    coefficients, mask, dense = tools.spectra(tools.header())
    with start(tmp_path / "p.h5", tools.header()) as writer:
        writer.append(np.asfortranarray(coefficients.astype(">f8")), np.asfortranarray(mask))
    np.testing.assert_array_equal(tools.read_dense(tmp_path / "p.h5"), dense)


def test_empty_append_is_harmless(tools, tmp_path, spectra):
    with start(tmp_path / "p.h5", tools.header()) as writer:
        writer.append(spectra[0][:0], spectra[1][:0])
        writer.append(*spectra)
    assert verify_pack(tmp_path / "p.h5") == []


def test_recorded_facts_come_back(tools, tmp_path, spectra):
    with start(tmp_path / "p.h5", tools.header()) as writer:
        writer.append(*spectra)
        writer.record(psnr=31.5, seconds=2)
        writer.record(seconds=3)
    with open_pack(tmp_path / "p.h5") as pack:
        assert pack.header.provenance["result"] == {"psnr": 31.5, "seconds": 3}
        assert pack.header.provenance["seed"] == 7


def test_class_names_and_texts_come_back(tools, tmp_path):
    header = tools.header(class_names=("", " spaced ", "蟻"), generator="", created="é" * 100)
    made = tools.write(tmp_path / "p.h5", header)
    with open_pack(made.path) as pack:
        assert pack.header == header


def test_names_that_end_in_nul_are_refused_rather_than_shortened(tools, tmp_path):
    with pytest.raises(ConfigError):
        tools.write(tmp_path / "p.h5", tools.header(class_names=("a", "b", "c\0")))


@pytest.mark.parametrize("place", ["missing/p.h5", "file/p.h5", "folder"])
def test_path_that_cannot_hold_a_file(tools, tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PackWriteError) as caught:
        tools.write(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert tools.names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("name", ["[a]*?.h5", "ü ä.h5", "-p", "p.partial"])
def test_odd_names(tools, tmp_path, name):
    made = tools.write(tmp_path / name)
    assert tools.names(tmp_path) == [name]
    assert verify_pack(made.path) == []


def test_no_permission(tools, tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py.h5f, "create", refuse)
    with pytest.raises(PackWriteError, match="no permission") as caught:
        tools.write(tmp_path / "p.h5")
    assert str(tmp_path / "p.h5") in str(caught.value)


def test_disk_without_room_is_found_before_writing(tools, sample, monkeypatch):
    before = sample.path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(PackWriteError, match="needs about") as caught:
        tools.write(sample.path)
    assert str(sample.path) in str(caught.value)
    assert isinstance(caught.value, EdgePruneError)
    assert sample.path.read_bytes() == before
    assert tools.names(sample.path.parent) == ["pack.h5"]
