"""A picture of what a pack keeps and loses: originals, decoded images and their difference, with a legend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgeprune_formats import ConfigError, Pack, PackHeader
from edgeprune_formats.coefficients import Coefficients, QuantizedCoefficients
from edgeprune_formats.files import atomic_file, check_writable
from edgeprune_runtime.loading.chunks.cache import ChunkCache

from ..sources import Source, open_source
from ..sources.decoding.kinds import reduced_to_8
from ..text import printable
from .pixels import images_of

__all__ = [
    "Row",
    "draw_preview",
    "in_color",
    "kept_components",
    "open_originals",
    "plane_names",
    "preview_rows",
]

TILE, GAP, LEFT, TOP, LINE, LEAST_WIDTH = 128, 6, 72, 20, 14, 480
MAX_IMAGES = 64
CACHE_BYTES = 2**25
PNG = b"\x89PNG"
INK, PAPER = (30, 30, 30), (255, 255, 255)
NO_DIFFERENCE, LOUDEST = 128, 64


@dataclass(frozen=True)
class Row:
    """A row of the picture: uint8 images [n, H, W, 3], what they are called, and a line of legend."""

    title: str
    images: NDArray[np.uint8]
    legend: str


def in_color(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return planes [n, C, H, W] as pictures [n, H, W, 3]: gray, or the first three as colors."""
    n, channels, height, width = planes.shape
    shown = np.zeros((n, height, width, 3), np.uint8)
    shown[..., : 3 if channels == 1 else channels] = planes[:, :3].transpose(0, 2, 3, 1)
    return shown


def kept_components(coefficients: Coefficients, header: PackHeader) -> NDArray[np.uint8]:
    """Draw which frequencies each image keeps: in a plane's color where that keeps them, see `in_color`.

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
    return in_color(mask)


def detail(coefficients: QuantizedCoefficients, header: PackHeader) -> tuple[NDArray[np.uint8], int]:
    """Draw how many coefficients each tile stores, in all planes together.

    Returns
    -------
    images : uint8 [n, H, W, 3]
        Gray; 255 for the most that any of these tiles stores.
    most : int
        That many.
    """
    counts = (coefficients.values != 0).sum(axis=(1, 3)).reshape(len(coefficients), *header.grid)
    most = max(1, int(counts.max()))
    gray = np.rint(counts * (255 / most)).astype(np.uint8)
    rows, columns = (
        np.arange(size) // side
        for size, side in zip((header.height, header.width), header.tile_shape, strict=True)
    )
    return np.repeat(gray[:, rows[:, None], columns, None], 3, axis=3), most


def lost(originals: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Draw the original minus the decoded image, on gray, made stronger until it can be seen.

    Parameters
    ----------
    originals, decoded : uint8 [n, H, W, 3]

    Returns
    -------
    images : uint8 [n, H, W, 3]
        128 where nothing was lost.
    scale : int
        What differences were multiplied by: the power of two, at most 64, that keeps 999 of 1,000 in range.
    """
    difference = originals.astype(np.int32) - decoded
    peak = float(np.quantile(np.abs(difference), 0.999))
    scale = 1
    while 2 * scale * peak < NO_DIFFERENCE and scale < LOUDEST:
        scale *= 2
    return np.clip(NO_DIFFERENCE + scale * difference, 0, 255).astype(np.uint8), scale


def draw_preview(pack: Pack, path: Path, *, count: int = 8, source: Source | None = None) -> None:
    """Write a PNG with a column for each of the first `count` images of a pack.

    Rows from the top: the original and, below the decoded image, what was lost (where `source` is given),
    and the frequencies that are kept or, of a pack in tiles, how many each tile stores. A legend ends it.

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
    names = [header.class_names[label] for label in pack.labels[rows].tolist()] if header.class_names else []
    names = names or [f"image {row}" for row in rows.tolist()]
    if source is not None:
        _check_same(pack, source)
    _write(_sheet(preview_rows(pack, rows, source), names), path)


def open_originals(pack: Pack, spec: str) -> Source:
    """Open the source that a pack was built from, with the split, size and channels of then.

    Raises
    ------
    ConfigError
        It is another source.
    SourceError
        It cannot be read.
    """
    config = pack.header.provenance.get("config", {})
    split = "test" if config.get("split") == "test" else "train"
    size, channels = config.get("size"), config.get("channels", "as-is")
    source = open_source(
        spec,
        split=split,
        size=size if isinstance(size, int) else None,
        channels=str(channels),
        fast_jpeg=isinstance(size, int) and config.get("fast_jpeg") is True,
    )
    _check_same(pack, source)
    return source


def preview_rows(pack: Pack, rows: NDArray[Any], source: Source | None = None) -> list[Row]:
    """Return images of a pack as a picture has them, from the top; see `draw_preview`.

    Parameters
    ----------
    pack : Pack
    rows : int [n]
        Of the pack.
    source : Source, optional
        What the pack was built from, see `open_originals`.
    """
    originals = None
    if source is not None:
        originals = in_color(reduced_to_8(source.read(pack.source_index[rows].astype(np.intp))))
    decoded = in_color(images_of(pack, rows, cache_bytes=CACHE_BYTES))
    quality = pack.header.provenance.get("result", {}).get("psnr_db")
    against = f", {quality:.1f} dB PSNR in the whole pack" if isinstance(quality, int | float) else ""
    what = f"the image that a network is trained on{_planes_shown(pack.header.channels)}"
    lines = [Row("decoded", decoded, f"{what}{against}")]
    if originals is not None:
        picture, scale = lost(originals, decoded)
        lines.insert(0, Row("original", originals, "the image of the source"))
        legend = f"original minus decoded, {scale} times as strong; even gray is no difference"
        lines.append(Row(f"lost x{scale}", picture, legend))
    coefficients, where = ChunkCache(pack, CACHE_BYTES).find(rows)
    return [*lines, _kept_row(coefficients.take(where), pack.header)]


def _planes_shown(channels: int) -> str:
    """Return what a legend says of images that are neither gray nor RGB."""
    if channels in (1, 3):
        return ""
    if channels == 2:
        return ", its planes 1 and 2 as red and green"
    return f", planes 1 to 3 of its {channels} as red, green and blue"


def _kept_row(coefficients: Coefficients, header: PackHeader) -> Row:
    if isinstance(coefficients, QuantizedCoefficients) and math.prod(header.grid) > 1:
        picture, most = detail(coefficients, header)
        height, width = header.tile_shape
        legend = f"coefficients that each tile of {height}x{width} stores; brighter is more, white {most:,}"
        return Row("detail", picture, legend)
    legend = f"frequencies that are stored, the lowest at the top left: {_planes_kept(header)}, black in none"
    return Row("kept", kept_components(coefficients, header), legend)


def plane_names(header: PackHeader) -> tuple[str, ...]:
    """Return what the planes are called in which a pack stores its images."""
    named = {"gray": ("gray",), "ycbcr": ("Y", "Cb", "Cr"), "rgb": ("R", "G", "B")}
    return named.get(header.color_space, tuple(f"plane {n}" for n in range(1, header.channels + 1)))


def _planes_kept(header: PackHeader) -> str:
    """Return in which planes a frequency of each color is stored."""
    if header.channels == 1:
        return "white"
    planes = plane_names(header)[:3]
    colors = ", ".join(
        f"{color} in {plane}" for color, plane in zip(("red", "green", "blue"), planes, strict=False)
    )
    return f"{colors}, {'yellow in both' if len(planes) == 2 else 'white in all'}"


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


def _sheet(lines: list[Row], names: list[str]) -> Image.Image:
    height, width = lines[0].images.shape[1:3]
    scale = max(1, TILE // max(height, width))
    tile = (width * scale, height * scale)
    step = (tile[0] + GAP, max(tile[1], LINE) + GAP)
    across = max(LEAST_WIDTH, LEFT + step[0] * len(names))
    legend = _legend(lines, across)
    bottom = TOP + step[1] * len(lines)
    sheet = Image.new("RGB", (across, bottom + LINE * len(legend) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((LEFT + column * step[0], 4), _fitted(name, tile[0], draw), fill=INK)
    for number, line in enumerate(lines):
        top = TOP + number * step[1]
        draw.text((4, top + tile[1] // 2 - 6), line.title, fill=INK)
        for column, image in enumerate(line.images):
            picture = Image.fromarray(np.ascontiguousarray(image)).resize(tile, Image.Resampling.NEAREST)
            sheet.paste(picture, (LEFT + column * step[0], top))
    for number, text in enumerate(legend):
        draw.text((4, bottom + number * LINE), text, fill=INK)
    return sheet


def _fitted(name: str, width: int, draw: ImageDraw.ImageDraw) -> str:
    """Return as much of a name as fits a width, in characters that the font has."""
    text = printable(name).encode("ascii", "replace").decode()
    while len(text) > 1 and draw.textlength(text) > width:
        text = text[:-1]
    return text


def _legend(lines: list[Row], width: int) -> list[str]:
    """Return the rows' legends, broken to lines of a width in pixels."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    broken = []
    for line in lines:
        text = f"{line.title}:"
        for word in line.legend.split():
            if draw.textlength(f"{text} {word}") > width - 8:
                broken.append(text)
                text = "   "
            text += f" {word}"
        broken.append(text)
    return broken


def _write(sheet: Image.Image, path: Path) -> None:
    with atomic_file(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
