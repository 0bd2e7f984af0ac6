"""What the picture of a pack shows of what is kept and lost."""

import numpy as np
import pytest
from PIL import Image

from edgeprune import BuildConfig, build_pack
from edgeprune.report.preview import detail, draw_preview, kept_components, lost
from edgeprune.sources import open_source
from edgeprune_formats import open_pack


@pytest.fixture
def wide(tmp_path):
    """Images of 8x32 whose detail is all in their right half."""
    x, random = np.full((6, 8, 32, 3), 90, np.uint8), np.random.default_rng(0)
    x[:, :, 16:] = random.integers(0, 256, (6, 8, 16, 3))
    np.savez(tmp_path / "wide.npz", x=x, y=np.arange(6) % 2)
    return f"npz:{tmp_path / 'wide.npz'}"


def packed(spec, tmp_path, **config):
    path = tmp_path / "p.h5"
    build_pack(spec, path, BuildConfig(codec="quantized", **config))
    pack = open_pack(path)
    return pack, pack.read_chunk(0)


def test_frequencies_of_tiles_that_are_larger_than_the_image_are_drawn_where_they_are(wide, tmp_path):
    pack, block = packed(wide, tmp_path, tile="16")
    block.values[:] = 0
    # Plane 1, the second tile's frequency (2, 5) of 16 x 16.
    block.values[0, 1, 1, 2 * 16 + 5] = 3
    mask = kept_components(block, pack.header)
    assert mask.shape == (6, 8, 32, 3)
    rows, columns = np.nonzero(mask[0, :, :, 1])
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(1, 10), (1, 11)}
    assert not mask[0, :, :, 0].any()
    assert not mask[1:].any()


def test_frequencies_of_a_whole_image_that_is_no_square(wide, tmp_path):
    pack, block = packed(wide, tmp_path, tile="full")
    block.values[:] = 0
    block.values[0, 0, 0, 3 * 32 + 20] = -1
    assert np.argwhere(kept_components(block, pack.header)).tolist() == [[0, 3, 20, 0]]


def test_detail_is_where_coefficients_are(wide, tmp_path):
    pack, block = packed(wide, tmp_path, tile="8")
    picture, most = detail(block, pack.header)
    assert picture.shape == (6, 8, 32, 3)
    assert most == (block.values != 0).sum(axis=(1, 3)).max()
    assert picture[:, :, :16].max() < 20 < picture[:, :, 16:].min()
    assert picture.max() == 255


@pytest.mark.parametrize(("difference", "scale"), [(0, 64), (1, 64), (3, 32), (20, 4), (100, 1), (255, 1)])
def test_what_was_lost_is_made_as_strong_as_fits(difference, scale):
    originals = np.full((1, 4, 4, 3), 255, np.uint8)
    picture, found = lost(originals, originals - np.uint8(difference))
    assert found == scale
    assert (picture == min(255, 128 + scale * difference)).all()
    darker, _ = lost(originals - np.uint8(difference), originals)
    assert (darker == max(0, 128 - scale * difference)).all()


@pytest.mark.parametrize("tile", ["8", "16", "full"])
def test_a_quantized_pack_has_a_row_more_with_its_source_and_a_legend(wide, tmp_path, tile):
    pack, _ = packed(wide, tmp_path, tile=tile)
    draw_preview(pack, tmp_path / "without.png", count=2)
    draw_preview(pack, tmp_path / "with.png", count=2, source=open_source(wide))
    without, with_source = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("without", "with"))
    # Images of 8 x 32 are drawn 4 times as large; the rows original and lost, and their two lines of legend.
    assert len(with_source) - len(without) == 2 * (32 + 6) + 2 * 14
    assert (without[-30:] < 128).any()
    assert (without[-6:] == 255).all()
