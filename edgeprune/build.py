"""From a source of images to a pack: check, choose images, transform, choose components, store."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import (
    MAX_CHUNK_BYTES,
    MAX_IMAGE_VALUES,
    ConfigError,
    PackHeader,
    PackWriter,
    __version__,
    check_target,
    plan_chunk_samples,
    position_dtype,
)

from .config import BuildConfig
from .masks import component_count, energy_mask
from .sampling import coreset_size, random_coreset
from .sources import Source, SourceCheck, check_source, open_source
from .transform import dct2

__all__ = ["BuildReport", "Progress", "build_pack"]

Progress = Callable[[str, int, int], None]
# Pixels worked on at a time: in double precision, with its masks, a batch then takes some 100 MiB.
BATCH_VALUES = 4 * 2**20
MAX_SKIPPED_NAMED = 100


@dataclass(frozen=True)
class BuildReport:
    """What `build_pack` did.

    Attributes
    ----------
    path : Path
        The pack.
    header : PackHeader
        Its header.
    skipped : tuple of str
        A message for each image that could not be read.
    empty_classes : tuple of str
        Classes of which the coreset holds no image.
    psnr : float
        Of the stored images against the originals, in dB over all pixels; infinite if nothing was dropped.
    seconds : float
        Duration of the build.
    """

    path: Path
    header: PackHeader
    skipped: tuple[str, ...]
    empty_classes: tuple[str, ...]
    psnr: float
    seconds: float


def build_pack(
    source: str | Source,
    path: str | Path,
    config: BuildConfig | None = None,
    *,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a pack, in bounded memory; it appears under its name only when it is complete.

    Every image is read twice: once to check that all can be read, before anything is written, and once to
    be encoded.

    Parameters
    ----------
    source : str or Source
        ``"digits"``, ``"cifar10[:ROOT]"``, ``"cifar100[:ROOT]"``, ``"imagefolder:PATH"``, ``"npz:FILE"``,
        or an object with the `edgeprune.sources.Source` interface.
    path : path
        The pack to write; an existing one is replaced when the new one is complete.
    config : BuildConfig, optional
        Defaults to ``BuildConfig()``.
    progress : callable, optional
        Called as ``progress(stage, images done, images in all)``.

    Returns
    -------
    BuildReport

    Raises
    ------
    ConfigError
        Unknown source, or a configuration that does not fit it.
    SourceError
        Images or labels that cannot be used.
    PackWriteError
        The pack cannot be written.
    """
    started = time.perf_counter()
    config = config or BuildConfig()
    check_target(Path(path))
    tell = progress or (lambda stage, done, total: None)
    if isinstance(source, str):
        source = open_source(source, split=config.split, size=config.size)
    config = replace(config, split=source.split)
    components = _components(source, config)
    total = len(source)
    check = check_source(
        source, skip_bad=config.skip_bad, progress=lambda done: tell("checking", done, total)
    )
    rows = _choose(source, check, config)
    header = _header(source, check, rows, config, components)
    writer = PackWriter(path, header, source.labels[rows], rows, compression=config.compression)
    lost = 0.0
    with writer:
        for done, part in _batches(source, rows):
            lost += _encode(writer, part, header.components)
            tell("encoding", done, len(rows))
        psnr = _psnr(lost, len(rows) * header.channels * header.height * header.width)
        writer.record(psnr_db=psnr if np.isfinite(psnr) else None)
    counts = np.bincount(source.labels[rows], minlength=len(source.class_names))
    empty = tuple(source.class_names[label] for label in np.nonzero(counts == 0)[0])
    return BuildReport(writer.path, header, check.bad, empty, psnr, time.perf_counter() - started)


def _choose(source: Source, check: SourceCheck, config: BuildConfig) -> NDArray[np.int64]:
    """Return the rows to store, in the order in which to store them."""
    count = coreset_size(config.sample_prune, len(check.good))
    return check.good[random_coreset(source.labels[check.good], count, seed=config.seed)].astype(np.int64)


def _batches(source: Source, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    size = max(1, BATCH_VALUES // int(np.prod(source.shape)))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield start + len(part), source.read(part)


def _encode(writer: PackWriter, images: NDArray[np.uint8], components: int) -> float:
    """Append images and return the energy dropped, which is their squared error (Parseval)."""
    spectra = dct2(images)
    mask = energy_mask(spectra, components)
    writer.append(spectra, mask)
    dropped = spectra[~mask].astype(np.float64)
    return float(dropped @ dropped)


def _psnr(squared_error: float, values: int) -> float:
    """Return 10 log10(1 / MSE) in dB, for pixels on [0, 1]."""
    return float(10 * np.log10(values / squared_error)) if squared_error > 0 else float("inf")


def _components(source: Source, config: BuildConfig) -> int:
    """Return the components to keep; refuse before any image is read what the format cannot hold."""
    channels, height, width = source.shape
    components = component_count(config.freq_prune, height, width)
    if channels * height * width > MAX_IMAGE_VALUES or _image_bytes(source, components) > MAX_CHUNK_BYTES:
        raise ConfigError(
            f"images of {height}x{width} with {components:,} components a channel are larger than a pack "
            "can hold; lower --size or raise --freq-prune"
        )
    coreset_size(config.sample_prune, len(source))
    return components


def _image_bytes(source: Source, components: int) -> int:
    channels, height, width = source.shape
    return channels * components * (4 + position_dtype(height, width).itemsize)


def _header(
    source: Source, check: SourceCheck, rows: NDArray[np.int64], config: BuildConfig, components: int
) -> PackHeader:
    channels, height, width = source.shape
    image_bytes = _image_bytes(source, components)
    mean, std = _statistics(check, rows, height * width)
    return PackHeader(
        samples=len(rows),
        channels=channels,
        height=height,
        width=width,
        components=components,
        codec=config.codec,
        chunk_samples=plan_chunk_samples(len(rows), image_bytes, channels * height * width),
        class_names=source.class_names,
        mean=mean,
        std=std,
        generator=f"edgeprune {__version__}",
        created=_now(),
        provenance=_provenance(source, check, config),
    )


def _statistics(
    check: SourceCheck, rows: NDArray[np.int64], pixels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the chosen images' pixels on [0, 1], per channel."""
    count = len(rows) * pixels
    mean = check.channel_sums[rows].sum(axis=0) / count
    variance = check.channel_squares[rows].sum(axis=0) / count - mean**2
    # A channel that is the same everywhere is left as it is: dividing by 1 grey level keeps it finite.
    std = np.sqrt(np.maximum(variance, 1.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _provenance(source: Source, check: SourceCheck, config: BuildConfig) -> dict[str, Any]:
    return {
        "source": {
            "spec": source.spec,
            "split": source.split,
            "sha256": check.sha256,
            "images": len(source),
            "skipped": len(check.bad),
            "skipped_images": list(check.bad[:MAX_SKIPPED_NAMED]),
            "licence": source.licence,
        },
        "config": asdict(config),
        "selection": "random, stratified by class",
        "mask": "energy",
        "versions": {
            "python": platform.python_version(),
            "edgeprune": __version__,
            **{name: version(name) for name in ("numpy", "scipy", "h5py", "pillow")},
        },
    }


def _now() -> str:
    """Return the time in UTC; SOURCE_DATE_EPOCH takes its place where builds must be reproducible."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(given) if given.isdecimal() else time.time()
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
