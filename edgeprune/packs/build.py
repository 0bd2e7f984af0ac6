"""From a source of images to a pack: check, choose images, transform, choose components, store."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune_formats import ConfigError, PackHeader, PackWriter, __version__, open_pack
from edgeprune_formats.chunks import plan_chunks
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coefficients import SparseCoefficients, position_dtype
from edgeprune_formats.files import check_free_space, check_writable
from edgeprune_formats.limits import MAX_CHUNK_BYTES, MAX_IMAGE_VALUES

from ..coresets.sampling import coreset_size
from ..coresets.selection import Choice, choose_images
from ..presets import component_count
from ..sources import Source, SourceCheck, check_source, open_source, source_facts
from ..work.processes import Workers
from .config import METHODS, BuildConfig
from .encoding import Encoded, Encoder, MaskStatistics, remove_parts
from .prerequisites import Artifacts, GivenFiles, Masks

if TYPE_CHECKING:
    from ..work.resumable import Report

__all__ = ["BuildReport", "Progress", "build_pack", "check_shared", "utc_now"]

Progress = Callable[[str, int, int], None]
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
    artifacts : tuple of Path
        Files that were made on the way and can be used again: scores, an FSE-Net.
    """

    path: Path
    header: PackHeader
    skipped: tuple[str, ...]
    empty_classes: tuple[str, ...]
    psnr: float
    seconds: float
    artifacts: tuple[Path, ...] = ()


def build_pack(
    source: str | Source,
    path: str | Path,
    config: BuildConfig | None = None,
    *,
    scores: str | Path | None = None,
    classifier: str | Path | None = None,
    fse_net: str | Path | None = None,
    beside: str | Path | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> BuildReport:
    """Build a pack, in bounded memory; it appears under its name only when it is complete.

    Every image is read twice: once to check that all can be read, before anything is written, and once to
    be encoded. A method that needs scores or masks makes them where they are not given, and keeps them
    beside the pack as ``NAME.scores.h5`` and ``NAME.fse-net.safetensors``. A build that was stopped goes on
    when it is called again with the same arguments.

    Parameters
    ----------
    source : str or Source
        ``"digits"``, ``"cifar10[:ROOT]"``, ``"cifar100[:ROOT]"``, ``"imagefolder:PATH"``, ``"npz:FILE"``,
        or an object with the `edgeprune.sources.Source` interface.
    path : path
        The pack to write; an existing one is replaced when the new one is complete.
    config : BuildConfig, optional
        Defaults to ``BuildConfig()``.
    scores : path, optional
        A scores file of ``edgeprune score`` over the same images.
    classifier : path, optional
        The network that masks are learned against: a run of ``edgeprune train``, or its model file. By
        default that of the scoring run.
    fse_net : path, optional
        An FSE-Net learned before, to choose components without learning.
    beside : path, optional
        The pack after which files made on the way are named, if not `path`.
    workers : Workers, optional
        The processes that share the work, from `edgeprune.work.joining.joined`.
    progress : callable, optional
        Called as ``progress(stage, images done, images in all)``.
    report : callable, optional
        Told of the epochs of scoring and mask learning, see `edgeprune.work.resumable.LongRun`.

    Returns
    -------
    BuildReport

    Raises
    ------
    ConfigError
        Unknown source, or a configuration that does not fit it.
    SourceError
        Images or labels that cannot be used.
    ArtifactError
        A scores file, classifier or FSE-Net that is damaged or not for these images.
    PackWriteError
        The pack cannot be written.
    TrainingError, TrainingInterrupted
        Scoring or learning masks failed, or was stopped.
    """
    started = time.perf_counter()
    config = config or BuildConfig()
    path, workers = Path(path), workers or Workers(device=config.device)
    check_writable(path)
    tell = progress if progress and workers.rank == 0 else _silent
    if isinstance(source, str):
        source = _open(source, config)
    config = replace(config, split=source.split)
    _require_room_in_pack(source, config)
    given = GivenFiles(*(None if file is None else Path(file) for file in (scores, classifier, fse_net)))
    artifacts = Artifacts(source, Path(beside or path), config, given, workers, report)
    check = check_shared(source, skip_bad=config.skip_bad, workers=workers, progress=tell)
    scored = METHODS[config.method].scored_images
    choice = choose_images(source, check, config, artifacts.records(check) if scored else None)
    masks = artifacts.masks(check)
    config = replace(config, freq_prune=masks.freq_prune)
    header = _header(source, check, choice, config, masks)
    _write(source, path, header, choice, masks, config, workers, tell)
    return _outcome(source, path, check, started, artifacts.made)


def _open(spec: str, config: BuildConfig) -> Source:
    source = open_source(spec, split=config.split, size=config.size)
    if config.split == "test" and getattr(source, "undivided", False):
        raise ConfigError(
            f"{spec} has no test half, so --split test would pack all of it; name the test images themselves "
            "and leave --split out"
        )
    return source


def _outcome(source: Source, path: Path, check: SourceCheck, started: float, made: list[Path]) -> BuildReport:
    with open_pack(path) as pack:
        header, labels = pack.header, pack.labels
    psnr = header.provenance["result"]["psnr_db"]
    counts = np.bincount(labels, minlength=len(source.class_names))
    return BuildReport(
        path=path,
        header=header,
        skipped=check.bad,
        empty_classes=tuple(source.class_names[label] for label in np.nonzero(counts == 0)[0]),
        psnr=math.inf if psnr is None else psnr,
        seconds=time.perf_counter() - started,
        artifacts=tuple(made),
    )


def check_shared(
    source: Source, *, skip_bad: bool, workers: Workers, progress: Progress | None = None
) -> SourceCheck:
    """Check a source in the first process, and return in every one what it found; see `check_source`."""
    if workers.rank > 0:
        return SourceCheck.from_bytes(workers.from_first(b""))
    tell, total = progress or _silent, len(source)
    check = check_source(source, skip_bad=skip_bad, progress=lambda done: tell("checking", done, total))
    if workers.count > 1:
        workers.from_first(check.to_bytes())
    return check


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _write(
    source: Source,
    path: Path,
    header: PackHeader,
    choice: Choice,
    masks: Masks,
    config: BuildConfig,
    workers: Workers,
    tell: Progress,
) -> None:
    encoder = Encoder(source, choice.rows, masks.select)
    folder = path.with_name(f"{path.name}.work")
    if masks.learned or workers.count > 1:
        # Not all of the provenance: versions, for one, differ from call to call and change no mask.
        if workers.rank == 0:
            # The parts beside the pack hold as much as the pack itself.
            check_free_space(path, 2 * header.samples * SparseCoefficients.image_bytes(header))
        facts = {**masks.facts, "components": masks.components, "source": header.provenance["source"]}
        parts = encoder.shared(folder, facts, workers, lambda done, total: tell("selecting", done, total))
    else:
        parts = encoder.direct()
    if workers.rank == 0:
        _write_pack(path, header, source, choice, config, parts, tell)
        remove_parts(folder)
    else:
        for _ in parts:
            pass
    workers.wait()


def _write_pack(
    path: Path,
    header: PackHeader,
    source: Source,
    choice: Choice,
    config: BuildConfig,
    parts: Iterator[Encoded],
    tell: Progress,
) -> None:
    statistics = MaskStatistics(np.zeros((header.height, header.width), np.int64))
    labels = source.labels[choice.rows]
    writer = PackWriter(
        path,
        header,
        labels,
        choice.rows,
        compression=config.compression,
        scores=choice.scores,
        rounding=config.rounding or "rdo",
    )
    with writer:
        done = 0
        for part in parts:
            writer.append(part.spectra, part.mask)
            statistics.add(part)
            done += len(part.mask)
            tell("encoding", done, len(choice.rows))
        writer.finish()
        if not get_codec(header.codec).exact:
            statistics.lost = writer.squared_error
        psnr = statistics.psnr
        # Where everything is kept, which quantization makes usual, the rates say nothing and take 5 kB.
        whole = header.step > 0 and header.components == header.height * header.width
        rates = {} if whole else {"kept_rate": statistics.kept_rate()}
        writer.record(psnr_db=psnr if math.isfinite(psnr) else None, **rates)


def _require_room_in_pack(source: Source, config: BuildConfig) -> None:
    """Refuse before any image is read what the format cannot hold."""
    channels, height, width = source.shape
    components = component_count(config.components_dropped, height, width)
    if channels * height * width > MAX_IMAGE_VALUES or _image_bytes(source, components) > MAX_CHUNK_BYTES:
        raise ConfigError(
            f"images of {height}x{width} with {components:,} components a channel are larger than a pack "
            "can hold; lower --size or raise --freq-prune"
        )
    coreset_size(config.images_dropped, len(source))


def _image_bytes(source: Source, components: int) -> int:
    channels, height, width = source.shape
    return channels * components * (4 + position_dtype(height, width).itemsize)


def _header(
    source: Source, check: SourceCheck, choice: Choice, config: BuildConfig, masks: Masks
) -> PackHeader:
    channels, height, width = source.shape
    mean, std = check.statistics(choice.rows, height * width)
    header = PackHeader(
        samples=len(choice.rows),
        channels=channels,
        height=height,
        width=width,
        components=masks.components,
        codec=config.codec,
        chunk_samples=1,
        class_names=source.class_names,
        mean=mean,
        std=std,
        generator=f"edgeprune {__version__}",
        created=utc_now(),
        provenance=_provenance(source, check, config, choice, masks),
        **config.stored_as(height, width),
    )
    return plan_chunks(header)


def _provenance(
    source: Source, check: SourceCheck, config: BuildConfig, choice: Choice, masks: Masks
) -> dict[str, Any]:
    return {
        "source": {
            **source_facts(source, check),
            "skipped_images": list(check.bad[:MAX_SKIPPED_NAMED]),
            "license": source.license,
        },
        "config": _settings(config),
        "coreset": choice.facts,
        **masks.facts,
        "versions": {
            "python": platform.python_version(),
            "edgeprune": __version__,
            **{name: version(name) for name in ("numpy", "scipy", "h5py", "pillow")},
        },
    }


def _settings(config: BuildConfig) -> dict[str, Any]:
    """Return the settings that the pack depends on, with the method's ratios in place of None."""
    settings = asdict(config)
    settings |= {"freq_prune": config.components_dropped, "sample_prune": config.images_dropped}
    for name in ("quality", "color", "tile", "rounding"):
        if settings[name] is None:
            del settings[name]
    # How scores and masks were made is told by the files they are in, whoever made them.
    return {name: value for name, value in settings.items() if name not in ("coreset", "masks", "scoring")}


def utc_now() -> str:
    """Return the time in UTC; SOURCE_DATE_EPOCH takes its place where builds must be reproducible."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(given) if given.isdecimal() else time.time()
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
