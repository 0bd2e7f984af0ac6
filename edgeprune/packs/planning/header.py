"""The header of a pack: what is known of it before its images are encoded."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from edgeprune_formats import PackHeader, __version__
from edgeprune_formats.targets import Target

from ...coresets.selection import Coreset
from ...masks.selector import ComponentSelector
from ...sources.base import Source, source_bits
from ...sources.decoding.files import as_text
from ..config import BuildConfig
from .deduplication import LeftOut

if TYPE_CHECKING:
    from ..encoding.teacher import TeacherColumn

__all__ = ["TakenOver", "pack_header", "utc_now"]


@dataclass(frozen=True, eq=False)
class TakenOver:
    """What a pack takes over from others that it is to be mixed with.

    Attributes
    ----------
    class_names : tuple of str
        All classes; those of the source are matched by name.
    step : float
        As in `PackHeader`.
    mean, std : tuple of float
        As in `PackHeader`, in place of those of the pack's own images.
    targets : tuple of Target
        The source's columns, as the others have them.
    """

    class_names: tuple[str, ...]
    step: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    targets: tuple[Target, ...]


def pack_header(
    source: Source,
    coreset: Coreset,
    selector: ComponentSelector,
    config: BuildConfig,
    taken: TakenOver | None = None,
    twins: LeftOut | None = None,
    teacher: TeacherColumn | None = None,
) -> PackHeader:
    """Return the header of a pack, complete but for what its images tell, for tiles and for chunks.

    See `edgeprune.packs.writing.write` and `edgeprune.packs.encoding.tiles`.
    """
    made_by = {"config": _settings(source, config, selector), "versions": _versions()}
    created = utc_now()
    channels, height, width = source.shape
    header = PackHeader(
        samples=len(coreset.rows),
        channels=channels,
        height=height,
        width=width,
        components=selector.components,
        codec=config.codec,
        chunk_samples=1,
        class_names=source.class_names,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        generator=f"edgeprune {__version__}",
        created=created,
        provenance={
            "source": {
                "spec": as_text(source.spec),
                "split": source.split,
                "images": len(source),
                "license": source.license,
            },
            "coreset": coreset.facts,
            **({} if twins is None else {"duplicates": twins.facts}),
            **selector.facts,
            **({} if teacher is None else {"teacher": teacher.teacher.identity}),
            **made_by,
        },
        bits=source_bits(source),
        **config.quantization(channels),
    )
    if taken is None:
        return header
    return replace(header, class_names=taken.class_names, step=taken.step, mean=taken.mean, std=taken.std)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("numpy", "scipy", "h5py", "pillow")}
    return {"python": platform.python_version(), "edgeprune": __version__, **packages}


def _settings(source: Source, config: BuildConfig, selector: ComponentSelector) -> dict[str, Any]:
    """Return the settings that the pack depends on, with what None stood for in its place."""
    settings = asdict(config)
    settings |= {"freq_prune": selector.freq_prune, "sample_prune": config.images_dropped}
    settings |= {"tile": config.given_tile, "split": source.split}
    for name in ("quality", "color", "tile", "rounding"):
        if settings[name] is None:
            del settings[name]
    # As it was before there was a choice.
    for name in ("channels", "drop_duplicates", "fast_jpeg"):
        if settings[name] == getattr(BuildConfig, name):
            del settings[name]
    # How scores and masks were made is told by the files they are in, whoever made them.
    return {name: value for name, value in settings.items() if name not in ("coreset", "masks", "scoring")}


def utc_now() -> str:
    """Return the time in UTC; SOURCE_DATE_EPOCH takes its place where builds must be reproducible."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(given) if given.isdecimal() else time.time()
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
