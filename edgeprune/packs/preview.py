"""A picture of what a pack keeps: originals, decoded images and masks side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgeprune_formats import ConfigError, Pack, PackHeader
from edgeprune_formats.coefficients import Coefficients
from edgeprune_formats.files import atomic_file, check_writable
from edgeprune_runtime import PackDataset
from edgeprune_runtime.loading.cache import ChunkCache

from ..text import printable

if TYPE_CHECKING:
    from ..sources import Source

__all__ = ["draw_preview", "kept_components"]

TILE, GAP, LEFT, TOP = 128, 6, 72, 20
MAX_IMAGES = 64
CACHE_BYTES = 2**25
PNG = b"\x89PNG"
INK, PAPER = (30, 30, 30), (255, 255, 255)


def kept_components(coefficients: Coefficients, header: PackHeader) -> NDArray[np.uint8]:
    """Draw which frequencies each image keeps: red, green and blue where that channel keeps them.

    Where images are cut in tiles, each frequency of a tile fills its share of the picture.

    Returns
    -------
    uint8 [n, H, W, 3]
        Frequency (0, 0) at the top left; 255 where kept.
    """
    kept = coefficients.kept(header)
    rows, columns = (
        np.arange(size) * side // size
        for size, side in zip((header.height, header.width), kept.shape[2:], strict=True)
    )
    mask = kept[:, :, rows[:, None], columns].astype(np.uint8) * 255
    return np.ascontiguousarray(mask.transpose(0, 2, 3, 1))


def draw_preview(pack: Pack, path: Path, *, count: int = 8, source: Source | None = None) -> None:
    """Write a PNG with a column for each of the first `count` images of a pack.

    Rows from the top: the original (where `source` is given), the decoded image, and the mask.

    Parameters
    ----------
    pack : Pack
    path : Path
        PNG file; replaced as a whole.
    count : int
        Images to show, 1 to 64.
    source : Source, optional
        What the pack was built from.

    Raises
    ------
    ConfigError
        `count` is not 1 to 64, `source` is not what the pack was built from, or `path` is no PNG.
    PackWriteError
        The picture cannot be written.
    """
    if not 1 <= count <= MAX_IMAGES:
        raise ConfigError(f"a preview shows 1 to {MAX_IMAGES} images, not {count}")
    _check_output(path)
    header = pack.header
    rows = np.arange(min(count, len(pack)))
    lines: list[tuple[str, NDArray[np.uint8]]] = []
    if source is not None:
        _check_same(pack, source)
        originals = source.read(pack.source_index[rows].astype(np.intp))
        lines.append(("original", originals.transpose(0, 2, 3, 1)))
    lines.append(("decoded", _decoded(pack, rows)))
    coefficients, where = ChunkCache(pack, CACHE_BYTES).find(rows)
    lines.append(("kept", kept_components(coefficients.take(where), header)))
    names = [header.class_names[label] for label in pack.labels[rows].tolist()]
    _write(_sheet(lines, names, header.height, header.width), path)


def _check_output(path: Path) -> None:
    check_writable(path)
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(PNG)) != PNG:
                raise ConfigError(f"{path}: exists and is no PNG; name another file")


def _check_same(pack: Pack, source: Source) -> None:
    channels, height, width = pack.header.shape
    if source.shape != (channels, height, width):
        raise ConfigError(f"{source.spec} gives images {source.shape}, the pack holds {pack.header.shape}")
    recorded = pack.header.provenance.get("source", {})
    same_length = recorded.get("images", len(source)) == len(source)
    inside = int(pack.source_index.max()) < len(source)
    if not (same_length and inside and (source.labels[pack.source_index] == pack.labels).all()):
        raise ConfigError(
            f"{source.spec} ({len(source)} images) is not the source of {pack.path}, "
            f"which was built from {recorded.get('spec', 'another')} ({recorded.get('images', '?')} images)"
        )


def _decoded(pack: Pack, rows: NDArray[Any]) -> NDArray[np.uint8]:
    dataset = PackDataset(pack, backend="scipy", cache_bytes=CACHE_BYTES)
    images = np.stack([image for image, _ in dataset.__getitems__(rows.tolist())])
    pixels: NDArray[np.uint8] = np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _sheet(
    lines: list[tuple[str, NDArray[np.uint8]]], names: list[str], height: int, width: int
) -> Image.Image:
    scale = max(1, TILE // max(height, width))
    tile = (width * scale, height * scale)
    step = (tile[0] + GAP, tile[1] + GAP)
    sheet = Image.new("RGB", (LEFT + step[0] * len(names), TOP + step[1] * len(lines)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        text = printable(name).encode("ascii", "replace").decode()
        while len(text) > 1 and draw.textlength(text) > tile[0]:
            text = text[:-1]
        draw.text((LEFT + column * step[0], 4), text, fill=INK)
    for line, (title, images) in enumerate(lines):
        top = TOP + line * step[1]
        draw.text((4, top + tile[1] // 2 - 6), title, fill=INK)
        for column, image in enumerate(images):
            picture = Image.fromarray(np.ascontiguousarray(image)).resize(tile, Image.Resampling.NEAREST)
            sheet.paste(picture, (LEFT + column * step[0], top))
    return sheet


def _write(sheet: Image.Image, path: Path) -> None:
    with atomic_file(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
