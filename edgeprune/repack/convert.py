"""From one codec to another without the images that a pack was built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, PackHeader, PackWriter, open_pack
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coefficients import Coefficients, SparseCoefficients
from edgeprune_formats.files import check_writable

from ..masks.components import energy_mask
from ..packs.config import BuildConfig
from ..packs.encoding.dct import dct2_of_pixels, idct2_of_tiles
from ..packs.encoding.quality import DEFAULT_ROUNDING
from ..packs.encoding.tiles import laid_out, sample_size
from ..presets import component_count
from ..psnr import psnr_db
from .lineage import renewed

__all__ = ["convert_pack"]


def convert_pack(
    source: str | Path,
    path: str | Path,
    config: BuildConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PackHeader, float]:
    """Write a pack of the same images, labels, targets and scores in another codec, in bounded memory.

    What is encoded are the images that `source` decodes to, so errors add up. Components are kept as they are
    from one sparse codec to another; from a quantized pack, or with `config.freq_prune`, those of highest
    energy.

    Parameters
    ----------
    source, path : path
        The pack to read, and the one to write, which appears when it is complete.
    config : BuildConfig, optional
        Its codec, compression, quality, color, tile, rounding and freq_prune count.
    progress : callable, optional
        Called as ``progress(images done, images in all)``.

    Returns
    -------
    (PackHeader, float)
        The new header, and the PSNR in dB of the new images against those of `source`; infinite if equal.

    Raises
    ------
    ConfigError
        Both names are the same file, or the codec cannot hold these images.
    PackFormatError
        `source` is damaged.
    PackWriteError
        The pack cannot be written.
    """
    source, path, config = Path(source), Path(path), config or BuildConfig()
    check_writable(path)
    if path.exists() and path.samefile(source):
        raise ConfigError(f"{path} is the pack that is converted; name another file")
    with open_pack(source) as pack:
        plain = _header(pack, config)
        header = laid_out(plain, config.given_tile, lambda: _sample(pack, plain), rounding=config.rounding)
        psnr = _converted(pack, path, header, config, progress)
    with open_pack(path) as made:
        return made.header, psnr


def _converted(
    pack: Pack,
    path: Path,
    header: PackHeader,
    config: BuildConfig,
    progress: Callable[[int, int], None] | None,
) -> float:
    """Write the pack, and return the PSNR of its images against those of `pack`."""
    writer = PackWriter(
        path,
        header,
        pack.labels,
        pack.source_index,
        compression=config.compression,
        scores=pack.scores,
        rounding=config.rounding or DEFAULT_ROUNDING,
        targets=pack.take_targets(),
    )
    lost = 0.0
    with writer:
        done = 0
        for spectra, mask in _spectra(pack, header):
            writer.append(spectra, mask)
            lost += float(np.sum(spectra[~mask].astype(np.float64) ** 2))
            done += len(spectra)
            if progress:
                progress(done, len(pack))
        writer.finish()
        error = lost if get_codec(header.codec).exact else writer.squared_error
        psnr = psnr_db(error, math.prod((header.samples, *header.shape)))
        writer.record(psnr_db_to_converted=psnr)
    return math.inf if psnr is None else psnr


def _header(pack: Pack, config: BuildConfig) -> PackHeader:
    old = pack.header
    components = old.components
    if config.freq_prune is not None:
        components = component_count(config.freq_prune, old.height, old.width)
    provenance = {name: value for name, value in old.provenance.items() if name not in ("result", "tile")}
    provenance["converted"] = {
        "from": old.codec,
        "step": old.step,
        "tile": old.tile,
        "result": old.provenance.get("result", {}),
        "freq_prune": config.freq_prune,
        **({"rounding": config.rounding or DEFAULT_ROUNDING} if get_codec(config.codec).quantizes else {}),
    }
    return renewed(
        old,
        provenance,
        codec=config.codec,
        components=components,
        tile="full",
        **config.quantization(old.channels),
    )


def _sample(pack: Pack, header: PackHeader) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return spectra and components to keep of the first images, which packs store in random order."""
    count = sample_size(header.height, header.width)
    parts = []
    for spectra, mask in _spectra(pack, header):
        parts.append((spectra[:count], mask[:count]))
        if sum(len(mask) for _, mask in parts) >= count:
            break
    spectra, mask = (np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))
    return spectra, mask


def _spectra(pack: Pack, header: PackHeader) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield the spectra of the pack's images and the components to keep, chunk by chunk."""
    sparse = get_codec(pack.header.codec).layout is SparseCoefficients
    same = sparse and header.components == pack.header.components
    for chunk in range(pack.header.chunks):
        coefficients = pack.read_chunk(chunk)
        spectra = _whole(coefficients, pack.header)
        yield spectra, coefficients.kept(header) if same else energy_mask(spectra, header.components)


def _whole(coefficients: Coefficients, header: PackHeader) -> NDArray[np.float32]:
    """Return the spectra of whole images, float32 [n, C, H, W]."""
    tiles = coefficients.to_tiles(header)
    matrix, shift = coefficients.color_transform(header)
    if header.tile == "full" and not shift.any():
        # They are that already, and are kept bit for bit.
        return tiles.reshape(len(tiles), *header.shape)
    planes = idct2_of_tiles(tiles, header.tile_shape, header.grid)
    planes = planes[:, :, : header.height, : header.width] + shift[:, None, None]
    return dct2_of_pixels(np.einsum("ck,nkhw->nchw", matrix, planes))
