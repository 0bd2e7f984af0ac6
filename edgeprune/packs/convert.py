"""From one codec to another without the images that a pack was built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import (
    FORMAT_VERSION,
    Block,
    ConfigError,
    Pack,
    PackHeader,
    PackWriter,
    QuantizedBlock,
    check_target,
    color_matrix,
    color_shift,
    get_codec,
    open_pack,
)

from ..masks.energy import energy_mask
from ..presets import component_count
from .build import planned
from .config import BuildConfig
from .dct import dct2_of_pixels, idct2_of_tiles

__all__ = ["convert_pack"]


def convert_pack(
    source: str | Path,
    path: str | Path,
    config: BuildConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PackHeader, float]:
    """Write a pack of the same images, labels and scores in another codec, in bounded memory.

    What is encoded are the images that `source` decodes to, so errors add up. Components are kept as they are
    from one sparse codec to another; from a quantized pack, or with `config.freq_prune`, those of highest
    energy.

    Parameters
    ----------
    source, path : path
        The pack to read, and the one to write, which appears when it is complete.
    config : BuildConfig
        Its codec, compression, quality, color, block, rounding and freq_prune count.
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
    source, path = Path(source), Path(path)
    check_target(path)
    if path.exists() and path.samefile(source):
        raise ConfigError(f"{path} is the pack that is converted; name another file")
    with open_pack(source) as pack:
        header = _header(pack, config)
        writer = PackWriter(
            path,
            header,
            pack.labels,
            pack.source_index,
            compression=config.compression,
            scores=pack.scores,
            rounding=config.rounding or "rdo",
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
            values = math.prod((header.samples, *header.shape))
            psnr = 10 * math.log10(values / error) if error > 0 else math.inf
            writer.record(psnr_db_to_converted=psnr if math.isfinite(psnr) else None)
    with open_pack(path) as made:
        return made.header, psnr


def _header(pack: Pack, config: BuildConfig) -> PackHeader:
    old = pack.header
    components = old.components
    if config.freq_prune is not None:
        components = component_count(config.freq_prune, old.height, old.width)
    provenance = {name: value for name, value in old.provenance.items() if name != "result"}
    provenance["converted"] = {
        "from": old.codec,
        "step": old.step,
        "block": old.block,
        "result": old.provenance.get("result", {}),
        "freq_prune": config.freq_prune,
    }
    plain = {"block": "full", "color_space": "rgb", "step": 0.0}
    stored: dict[str, Any] = {**plain, **config.stored_as(old.height, old.width)}
    header = replace(
        old,
        codec=config.codec,
        components=components,
        format_version=FORMAT_VERSION,
        provenance=provenance,
        **stored,
    )
    return planned(header)


def _spectra(pack: Pack, header: PackHeader) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield the spectra of the pack's images and the components to keep, chunk by chunk."""
    for chunk in range(pack.header.chunks):
        block = pack.read_chunk(chunk)
        spectra = _whole(block, pack.header)
        same = header.components == pack.header.components and not isinstance(block, QuantizedBlock)
        yield spectra, _stored(block, header) if same else energy_mask(spectra, header.components)


def _stored(block: Block, header: PackHeader) -> NDArray[np.bool_]:
    assert not isinstance(block, QuantizedBlock)
    ones = replace(block, values=np.ones_like(block.values))
    return ones.to_dense(header.height, header.width) > 0


def _whole(block: Block, header: PackHeader) -> NDArray[np.float32]:
    """Return the spectra of whole RGB images, float32 [n, 3, H, W]."""
    if not isinstance(block, QuantizedBlock):
        return block.to_dense(header.height, header.width)
    planes = idct2_of_tiles(block.values * np.float32(header.step), header.block_shape, header.grid)
    planes = planes[:, :, : header.height, : header.width] + color_shift(header.color_space)[:, None, None]
    return dct2_of_pixels(np.einsum("ck,nkhw->nchw", color_matrix(header.color_space), planes))
