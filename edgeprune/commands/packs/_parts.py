"""What ``edgeprune build`` does with parts of a build: make one, put them together, or have Ray do both."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.packs.config import BuildConfig
from edgeprune.text import bytes_text, count_text, say
from edgeprune_formats import ConfigError, open_pack

from ...options.given import refuse_given
from ...options.parameters import say_skipped

if TYPE_CHECKING:
    from edgeprune.packs.planning.plan import Share
    from edgeprune.packs.writing.report import BuildReport

__all__ = ["assemble_parts", "build_on_engine", "build_one_part", "parse_share", "require_alone"]

_SHARE = re.compile(r"(\d{1,9})/(\d{1,9})")


def parse_share(context: click.Context, param: click.Parameter, value: str | None) -> Share | None:
    """Return the part that ``K/N`` names."""
    from edgeprune.packs.planning.plan import Share

    if value is None:
        return None
    found = _SHARE.fullmatch(value)
    if found is None or int(found[2]) == 0:
        raise click.BadParameter(f"{value!r} is no part; write one such as 3/16", context, param)
    try:
        return Share(int(found[1]), int(found[2]))
    except ConfigError as error:
        raise click.BadParameter(str(error).replace("`part` ", "the number "), context, param) from None


def require_alone(flag: str, *allowed: str) -> None:
    """Raise `UsageError` for an option beside `flag` that it would not look at."""
    names = {param.name for param in click.get_current_context().command.params}
    refuse_given(names - {flag.strip("-").replace("-", "_"), "output", "quiet", *allowed}, f"with {flag}")


def build_one_part(
    source: str, folder: Path, share: Share, config: BuildConfig, quiet: bool, **given: Any
) -> None:
    """Make one part, and say so; `given` is that of `edgeprune.packs.build.build_share`."""
    from edgeprune.packs.build import build_share
    from edgeprune.work.progress import progress_bars

    started = time.perf_counter()
    with progress_bars(quiet) as tell:
        report = build_share(source, folder, share, config, progress=tell, **given)
    if quiet:
        return
    images = f"{report.images:,} of {count_text(report.samples, 'image')}"
    seconds = time.perf_counter() - started
    how = f"in {seconds:.1f} s" if report.made else "was there already, and is sound"
    say(f"{report.path}: part {share.number} of {share.count}, {images}, {how}")


def assemble_parts(folder: Path, path: Path, quiet: bool) -> None:
    """Put the parts in a folder together, and say what came of it."""
    from edgeprune.packs.writing.assembly import assemble
    from edgeprune.work.progress import progress_bars

    with progress_bars(quiet) as tell:
        skipped = assemble(folder, path, tell)
    if quiet:
        return
    say_skipped(skipped)
    with open_pack(path) as pack:
        header = pack.header
    size, psnr = path.stat().st_size, header.provenance["result"]["psnr_db"]
    error = "nothing was lost" if psnr is None else f"{psnr:.1f} dB"
    say(
        f"{path}: {count_text(header.samples, 'image')} of {header.height}x{header.width}, "
        f"{size / header.samples:,.0f} B an image, {error}, {bytes_text(size)}"
    )


def build_on_engine(
    engine: str, source: str, path: Path, config: BuildConfig, parts: int, quiet: bool, **given: Any
) -> BuildReport:
    """Build a pack by the tasks of an engine; `given`: see `edgeprune.packs.ray_engine.build_with_ray`."""
    from edgeprune.packs.build import open_for_build
    from edgeprune.packs.ray_engine import build_with_ray
    from edgeprune.packs.writing.report import build_report
    from edgeprune.work.progress import progress_bars

    name, _, address = engine.partition(":")
    if name != "ray":
        raise ConfigError(f"unknown engine {name!r}; known: ray, ray:ADDRESS")
    started = time.perf_counter()
    with progress_bars(quiet) as tell:
        skipped = build_with_ray(
            source, path, config, parts=parts, address=address or None, progress=tell, **given
        )
    seconds = time.perf_counter() - started
    return build_report(path, open_for_build(source, config), skipped, (), seconds)
