import math

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from edgeprune import open_source
from edgeprune.errors import SourceError
from edgeprune.masks.components import energy_mask
from edgeprune.packs.encoding.encoder import Encoder, MaskCounts, UnreadableError
from edgeprune.packs.writing.assembly import make_folder, remove_parts
from edgeprune.packs.writing.measured import Measured
from edgeprune.sources.check import Statistics
from edgeprune_formats import PackHeader, PackWriteError
from edgeprune_formats.codecs import get_codec

SIDE, KEPT = 12, 40


@pytest.fixture
def source(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, SIDE, SIDE, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=pixels, y=np.arange(30) % 3)
    return open_source(f"npz:{tmp_path / 'images.npz'}")


def header_of(rows, codec="sparse-f32", kept=KEPT, height=SIDE, width=SIDE, **changes):
    facts = {"samples": len(rows), "channels": 3, "height": height, "width": width, "components": kept}
    facts |= {"codec": codec, "chunk_samples": 7, "class_names": ("a", "b", "c")}
    facts |= {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    return PackHeader(**(facts | changes))


def by_energy(count):
    return lambda spectra: energy_mask(spectra, count)


def spectra_of(pixels):
    return dctn(pixels / 255, axes=(2, 3), norm="ortho")


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_chunks_are_the_same_for_any_number_of_threads(source, jobs):
    rows = np.random.default_rng(1).permutation(30)[:23]
    header, encoder = header_of(rows), Encoder(source, by_energy(KEPT), None, None)
    chunks = list(encoder.chunks(header, rows, jobs))
    assert [chunk.images for chunk in chunks] == [7, 7, 7, 2]
    spectra, codec = spectra_of(source.read(rows)), get_codec("sparse-f32")
    start = 0
    for chunk in chunks:
        own = spectra[start : start + chunk.images].astype("f4")
        mask = energy_mask(own, KEPT)
        dense = codec.decode(header, chunk.arrays, chunk.images).to_dense(SIDE, SIDE)
        np.testing.assert_array_equal(dense, np.where(mask, own, 0))
        assert chunk.squared_error == pytest.approx((own[~mask].astype("f8") ** 2).sum())
        assert chunk.kept.sum() == 3 * KEPT * chunk.images
        start += chunk.images


@pytest.mark.parametrize("codec", ["sparse-f16", "quantized"])
def test_what_a_device_will_see_is_what_is_measured(source, codec):
    rows = np.arange(9)
    changes = {} if codec == "sparse-f16" else {"step": 0.3, "color_space": "ycbcr"}
    header = header_of(rows, codec, chunk_samples=9, **changes)
    (chunk,) = Encoder(source, by_energy(KEPT), None, None).chunks(header, rows, 1)
    decoded = get_codec(codec).decode(header, chunk.arrays, 9)
    assert chunk.squared_error == decoded.squared_error(header, spectra_of(source.read(rows)).astype("f4"))


def test_images_that_cannot_be_read_are_named_or_left_to_the_caller(source):
    class Torn:
        def __getattr__(self, name):
            return getattr(source, name)

        def read(self, rows):
            if 5 in list(rows):
                raise SourceError("photo 5: is empty")
            return source.read(rows)

    rows = np.arange(9)
    with pytest.raises(SourceError, match="photo 5: is empty; pass `skip_bad=True`"):
        list(Encoder(Torn(), None, None, None).chunks(header_of(rows), rows, 2))
    with pytest.raises(UnreadableError):
        list(Encoder(Torn(), None, None, None, skip_bad=True).chunks(header_of(rows), rows, 2))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "work").write_text("a file")
    with pytest.raises(PackWriteError, match=r"work/parts.*cannot be made"):
        make_folder(tmp_path / "work" / "parts")


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


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 24), (7, 5), (224, 224), (40, 33), (33, 6)])
def test_the_statistics_of_masks_are_those_of_all_images(tmp_path, height, width):
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (4, height, width, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=pixels, y=[0, 1, 0, 1])
    source, kept, rows = open_source(f"npz:{tmp_path / 'images.npz'}"), height * width // 3, np.arange(4)
    header = header_of(rows, kept=kept, height=height, width=width, chunk_samples=3)
    measured = Measured.nothing(header)
    for chunk in Encoder(source, by_energy(kept), None, None).chunks(header, rows, 2):
        measured += chunk
    spectra = spectra_of(source.read(rows)).astype("f4")
    mask = energy_mask(spectra, kept)
    result = measured.result(header)
    np.testing.assert_allclose(result["kept_rate"], mean_of_cells(mask.mean((0, 1))), atol=6e-7)
    decoded = idctn(np.where(mask, spectra, 0).astype("f8"), axes=(2, 3), norm="ortho")
    error = np.mean((decoded - pixels.transpose(0, 3, 1, 2) / 255) ** 2)
    assert result["psnr_db"] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    mean, std = measured.statistics.mean_std(height * width)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(std, (pixels / 255).std((0, 1, 2)))
    assert Measured.from_json(measured.to_json()).result(header) == result


def test_nothing_dropped_is_without_error():
    header = header_of([0], kept=4, height=2, width=2)
    kept = MaskCounts(2, 2).full(3)
    measured = Measured(1, 0.0, kept, Statistics(1, 0, (0, 0, 0), (0, 0, 0)))
    assert measured.result(header) == {"psnr_db": None, "kept_rate": [[1.0, 1.0], [1.0, 1.0]]}
