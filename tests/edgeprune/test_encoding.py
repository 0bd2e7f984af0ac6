import errno
import math

import numpy as np
import pytest
from scipy.fft import idctn

from edgeprune import open_source
from edgeprune.masks.components import energy_mask
from edgeprune.packs import encoding
from edgeprune.packs.encoding import Encoder, remove_parts
from edgeprune.packs.storing import MaskStatistics
from edgeprune.work.processes import Workers
from edgeprune_formats import EdgePruneError, PackHeader, PackWriteError, PackWriter, verify_pack
from edgeprune_runtime.errors import ArtifactError

IMAGES, SIDE, KEPT, PART = 23, 12, 40, 5
FACTS = {"mask": "energy", "components": KEPT}


@pytest.fixture
def source(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, SIDE, SIDE, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=pixels, y=np.arange(30) % 3)
    return open_source(f"npz:{tmp_path / 'images.npz'}")


@pytest.fixture
def rows():
    return np.random.default_rng(1).permutation(30)[:IMAGES]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_VALUES", PART * 3 * SIDE * SIDE + 1)


class Counting:
    """The energy selector, counting the images that it is asked about."""

    def __init__(self):
        self.images = []

    def __call__(self, spectra):
        self.images.append(len(spectra))
        return energy_mask(spectra, KEPT)


def by_energy(count):
    return lambda spectra: energy_mask(spectra, count)


def silent(done, total):
    pass


def packed(parts, path, source, rows):
    """Write a pack of some parts and give its bytes."""
    header = PackHeader(
        samples=len(rows),
        channels=3,
        height=SIDE,
        width=SIDE,
        components=KEPT,
        codec="sparse-f32",
        chunk_samples=7,
        class_names=source.class_names,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        created="2026-01-01T00:00:00Z",
    )
    statistics = MaskStatistics(np.zeros((SIDE, SIDE), np.int64))
    with PackWriter(path, header, source.labels[rows], rows) as writer:
        for part in parts:
            writer.append(part.spectra, part.mask)
            statistics.add(part)
        writer.record(psnr_db=statistics.psnr, kept_rate=statistics.kept_rate())
    assert verify_pack(path) == []
    return path.read_bytes()


def test_shared_parts_give_the_pack_that_direct_ones_give(source, rows, tmp_path, small_parts):
    encoder = Encoder(source, rows, by_energy(KEPT))
    direct = packed(encoder.direct(), tmp_path / "direct.h5", source, rows)
    told = []
    parts = encoder.shared(tmp_path / "work", FACTS, Workers(), lambda *numbers: told.append(numbers))
    assert packed(parts, tmp_path / "shared.h5", source, rows) == direct
    assert told == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    remove_parts(tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_exactly_k_are_kept_and_the_energy_of_the_others_is_counted(source, rows, small_parts):
    parts = list(Encoder(source, rows, by_energy(KEPT)).direct())
    assert [len(part.mask) for part in parts] == [5, 5, 5, 5, 3]
    for part in parts:
        assert (part.mask.sum((2, 3)) == KEPT).all()
        assert part.lost == pytest.approx((part.spectra[~part.mask].astype("f8") ** 2).sum())


def test_a_stop_in_the_middle_costs_no_part_that_was_finished(source, rows, tmp_path, small_parts):
    select, folder = Counting(), tmp_path / "work"
    encoder = Encoder(source, rows, select)

    def stop(done, total):
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(encoder.shared(folder, FACTS, Workers(), stop))
    assert select.images == [5, 5]
    parts = encoder.shared(folder, FACTS, Workers(), silent)
    interrupted = packed(parts, tmp_path / "interrupted.h5", source, rows)
    assert select.images == [5, 5, 5, 5, 3]
    whole = packed(Encoder(source, rows, Counting()).direct(), tmp_path / "whole.h5", source, rows)
    assert interrupted == whole


def test_parts_of_other_facts_or_rows_are_not_used(source, rows, tmp_path, small_parts):
    folder = tmp_path / "work"
    list(Encoder(source, rows, Counting()).shared(folder, FACTS, Workers(), silent))
    for facts, now in ((FACTS, rows[::-1]), ({**FACTS, "components": 41}, rows), (FACTS, rows[:-1])):
        select = Counting()
        parts = list(Encoder(source, now, select).shared(folder, facts, Workers(), silent))
        assert sum(select.images) == len(now)
        np.testing.assert_array_equal(
            np.concatenate([part.mask for part in parts]),
            np.concatenate([part.mask for part in Encoder(source, now, select).direct()]),
        )
        assert len(list(folder.iterdir())) == 1


class Lead(Workers):
    """The first of two processes, which sees the other do its work whenever it waits."""

    other = None

    def wait(self):
        next(self.other, None)


def test_two_processes_encode_a_half_each(source, rows, tmp_path, small_parts):
    first, second = Counting(), Counting()
    lead, folder, told = Lead(0, 2), tmp_path / "work", []
    Lead.other = Encoder(source, rows, second).shared(
        folder, FACTS, Workers(1, 2), lambda *numbers: told.append(numbers)
    )
    parts = Encoder(source, rows, first).shared(folder, FACTS, lead, silent)
    shared = packed(parts, tmp_path / "shared.h5", source, rows)
    assert (first.images, second.images) == ([5, 5, 3], [5, 5])
    assert told == [(5, 10), (10, 10)]
    assert list(Lead.other) == []
    whole = packed(Encoder(source, rows, Counting()).direct(), tmp_path / "direct.h5", source, rows)
    assert shared == whole


def flipped(content):
    content[-5] ^= 1
    return content


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[:-9], "cannot be read"),
        (lambda content: content[:4], "cannot be read"),
        (lambda content: b"", "cannot be read"),
        (flipped, "does not match its checksum"),
        (None, "No such file"),
    ],
)
def test_a_part_that_is_damaged_is_named(source, rows, tmp_path, small_parts, spoil, reason):
    folder = tmp_path / "work"
    encoder = Encoder(source, rows, by_energy(KEPT))
    parts = encoder.shared(folder, FACTS, Workers(), silent)
    next(parts)
    (path,) = folder.glob("parts-*/000003.safetensors")
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(bytearray(path.read_bytes())))
    with pytest.raises(ArtifactError, match=rf"000003\.safetensors.*{reason}.*remove .*parts-") as error:
        list(parts)
    assert "\n" not in str(error.value)


def test_a_part_cannot_be_written_where_the_disk_is_full(source, rows, tmp_path, small_parts, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgeprune_runtime.training.checkpoint.save_file", full)
    with pytest.raises(PackWriteError, match=r"No space left on device\); free some space") as error:
        next(Encoder(source, rows, by_energy(KEPT)).shared(tmp_path / "work", FACTS, Workers(), silent))
    assert "--resume" not in str(error.value)


def test_a_folder_that_cannot_be_made_is_named(source, rows, tmp_path):
    (tmp_path / "work").write_text("a file")
    with pytest.raises(EdgePruneError, match=r"work/parts-.*cannot be made"):
        next(Encoder(source, rows, by_energy(KEPT)).shared(tmp_path / "work", FACTS, Workers(), silent))


def test_only_parts_are_removed(tmp_path):
    (tmp_path / "work" / "parts-1").mkdir(parents=True)
    (tmp_path / "work" / "notes.txt").write_text("mine")
    remove_parts(tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["notes.txt"]
    remove_parts(tmp_path / "nowhere")


def mean_of_cells(rates):
    """Average over the cells of at most 32 rows and columns, one frequency at a time."""
    height, width = rates.shape
    grid = min(32, height), min(32, width)
    sums, counts = np.zeros((2, *grid))
    for (row, column), rate in np.ndenumerate(rates):
        cell = tuple(
            max(c for c in range(cells) if c * size // cells <= place)
            for place, size, cells in zip((row, column), (height, width), grid, strict=True)
        )
        sums[cell] += rate
        counts[cell] += 1
    return sums / counts


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 24), (7, 5), (224, 224), (40, 33), (33, 6)])
def test_the_statistics_of_masks_are_those_of_all_images(tmp_path, height, width):
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (4, height, width, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=pixels, y=[0, 1, 0, 1])
    source = open_source(f"npz:{tmp_path / 'images.npz'}")
    statistics = MaskStatistics(np.zeros((height, width), np.int64))
    parts = [
        part
        for rows in ([0, 1, 2], [3])
        for part in Encoder(source, np.array(rows), by_energy(height * width // 3)).direct()
    ]
    for part in parts:
        statistics.add(part)
    mask = np.concatenate([part.mask for part in parts])
    spectra = np.concatenate([part.spectra for part in parts])
    np.testing.assert_allclose(statistics.kept_rate(), mean_of_cells(mask.mean((0, 1))), atol=6e-7)
    decoded = idctn(np.where(mask, spectra, 0).astype("f8"), axes=(2, 3), norm="ortho")
    error = np.mean((decoded - pixels.transpose(0, 3, 1, 2) / 255) ** 2)
    assert statistics.psnr == pytest.approx(-10 * math.log10(error), abs=1e-3)


def test_nothing_dropped_is_without_error():
    statistics = MaskStatistics(np.zeros((2, 2), np.int64))
    statistics.add(encoding.Encoded(np.ones((1, 3, 2, 2), np.float32), np.ones((1, 3, 2, 2), bool), 0.0))
    assert statistics.psnr == math.inf
    assert statistics.kept_rate() == [[1.0, 1.0], [1.0, 1.0]]
