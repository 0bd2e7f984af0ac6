"""``edgeprune info``: what a pack holds and what it costs."""

from __future__ import annotations

import json
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.text import bytes_text, count_text, printable, say

from ...options.fields import FAR_PACK
from ..doctor import KERNELS_MISSING

if TYPE_CHECKING:
    from edgeprune_formats import Pack, PackHeader
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command", "describe", "look_into", "ranges_text"]

BAR_WIDTH = 24
MANY_CLASSES = 40


@click.command("info")
@FAR_PACK
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(pack: Path | RemoteFile, as_json: bool) -> None:
    """Print the content, size and origin of PACK.

    PACK may be a URL; only the parts that are needed are read then.

    \b
    Example:
      edgeprune info photos.h5
      edgeprune info photos.h5 --json
      edgeprune info https://example.org/photos.h5
    """
    from edgeprune_formats.coding.native import has_kernels

    facts = describe(pack)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for line in _lines(facts):
        say(line)
    if not has_kernels():
        say(f"note: {KERNELS_MISSING}; see edgeprune doctor", err=True)


def describe(path: Path | RemoteFile) -> dict[str, Any]:
    """Return the facts about a pack as a JSON object; sizes in bytes.

    Of a far pack only what is needed is read, see `edgeprune_formats.packs.remote.look_into`.

    Raises
    ------
    OSError, PackFormatError, RemoteError
        As `edgeprune_formats.open_pack`.
    """
    import numpy as np

    from edgeprune_formats import open_pack
    from edgeprune_formats.targets import LABEL

    with open_pack(path) if isinstance(path, Path) else look_into(path) as pack:
        header, labels, payload = pack.header, pack.labels, pack.payload_bytes
        scored = pack.scores is not None
        columns = [target.column for name, target in pack.targets.items() if name != LABEL]
        size, ranges = pack.file_bytes, getattr(pack, "ranges", None)
    classes = len(header.class_names)
    counts = np.bincount(labels, minlength=classes)[:classes].tolist()
    return {
        "path": str(path),
        "format": f"edgepack {header.format_version}",
        "codec": header.codec,
        "images": header.samples,
        "shape": list(header.shape),
        "tile": header.tile,
        "color_space": header.color_space,
        "bits": header.bits,
        "step": header.step,
        "components": header.components,
        "components_of": header.height * header.width,
        "chunks": header.chunks,
        "file_bytes": size,
        "bytes_per_image": _bytes_per_image(header, size, payload),
        "classes": [
            {"name": name, "images": count} for name, count in zip(header.class_names, counts, strict=True)
        ],
        "targets": [column.to_json() for column in columns],
        "scores": scored,
        "mean": list(header.mean),
        "std": list(header.std),
        "generator": header.generator,
        "created": header.created,
        "provenance": dict(header.provenance),
        **({} if ranges is None else {"read_bytes": ranges.bytes_read, "read_ranges": ranges.requests}),
        **({"digest_checked": False} if ranges is not None and getattr(path, "sha256", None) else {}),
    }


def look_into(remote: RemoteFile) -> Pack:
    """Open a far pack to read little of it; say so where all of it must be fetched."""
    from edgeprune_formats.packs import remote as far

    return far.look_into(remote, lambda line: say(f"edgeprune: {line}", err=True))


def ranges_text(read: int, ranges: int, size: int) -> str:
    """Return how much of a far pack was read."""
    return f"{bytes_text(read)} of {bytes_text(size)} in {count_text(ranges, 'range')}"


def _bytes_per_image(header: PackHeader, size: int, payload: int) -> dict[str, float]:
    from edgeprune_formats.codecs import get_codec, stored_bytes

    fixed = all(field.shape is not None for field in get_codec(header.codec).fields(header))
    values = header.channels * header.height * header.width
    return {
        "file": size / header.samples,
        # Where nothing has a fixed size, as it lies in the file.
        "coefficients": stored_bytes(header) if fixed else payload / header.samples,
        f"raw_uint{header.bits}": values * header.bits // 8,
        "raw_float32": 4 * values,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    channels, height, width = facts["shape"]
    share = facts["components"] / facts["components_of"]
    each, bits = facts["bytes_per_image"], facts["bits"]
    raw, planes = each[f"raw_uint{bits}"], "" if bits == 8 else f" of {bits} bits"
    lines = [
        f"{facts['path']}: {facts['format']}, codec {facts['codec']}, {bytes_text(facts['file_bytes'])}",
        f"  images      {facts['images']:,} of {channels}x{height}x{width}{planes} "
        f"in {count_text(facts['chunks'], 'chunk')}",
        f"  components  {facts['components']:,} of {facts['components_of']:,} a channel ({share:.1%})",
        f"  bytes/image {each['file']:,.0f} in the file, {each['coefficients']:,.0f} as coefficients; "
        f"raw uint{bits} {raw:,} ({_ratio(each['file'], raw)}), "
        f"float32 {each['raw_float32']:,} ({_ratio(each['file'], each['raw_float32'])})",
    ]
    if facts["step"]:
        tiles = "whole images" if facts["tile"] == "full" else f"tiles of {facts['tile']} pixels"
        peak = 2**bits - 1
        step = f"step {peak * facts['step']:.2f} of {peak:,}"
        lines.append(f"  quantized   {tiles}, {facts['color_space']}, {step}")
    result = facts["provenance"].get("result", {})
    for name, against in (
        ("psnr_db", "the original pixels"),
        ("psnr_db_to_converted", "the pack it was made from"),
    ):
        if isinstance(result.get(name), int | float):
            lines.append(f"  quality     {result[name]:.2f} dB PSNR against {against}")
    lines.append(f"  mean, std   {_numbers(facts['mean'])}, {_numbers(facts['std'])}")
    if facts["scores"]:
        coreset = facts["provenance"].get("coreset")
        kind = coreset.get("score") if isinstance(coreset, dict) else None
        lines.append(f"  scores      one an image, {kind or 'of a kind that is not told'}")
    lines += _target_lines(facts["targets"]) + _class_lines(facts["classes"]) + _provenance_lines(facts)
    if "read_bytes" in facts:
        read = ranges_text(facts["read_bytes"], facts["read_ranges"], facts["file_bytes"])
        unchecked = "; its digest was not checked, which needs all of it" if "digest_checked" in facts else ""
        lines.append(f"  read        {read}{unchecked}")
    return [*lines, "  checked     structure and labels; edgeprune verify reads all the images"]


def _target_lines(targets: list[dict[str, Any]]) -> list[str]:
    lines = []
    for place, facts in enumerate(targets):
        classes, width, unit = facts.get("classes", []), facts.get("width"), facts.get("unit")
        of = (
            f", {len(classes):,} class{'' if len(classes) == 1 else 'es'}: {', '.join(classes[:3])}"
            if classes
            else ""
        )
        of += ", ..." if len(classes) > 3 else ""
        if facts.get("top"):
            size = facts["top"] * (2 + (len(classes) > 256))
            of += f"; the {facts['top']} likeliest and the rest, {size} B an image"
        of += f", {count_text(width, 'number')} an image" if width else ""
        what = printable(f"{facts['name']}: {facts['kind']}{of}{f', in {unit}' if unit else ''}")
        lines.append(f"  {'' if place else 'targets':<11} {what}")
    return lines


def _ratio(size: float, raw: int) -> str:
    return f"{size / raw:.2f}x"


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _class_lines(classes: list[dict[str, Any]]) -> list[str]:
    if not classes:
        return ["  classes     none"]
    counts = [entry["images"] for entry in classes]
    if len(classes) > MANY_CLASSES:
        return [f"  classes     {len(classes):,}, with {min(counts)} to {max(counts)} images each"]
    names = [printable(entry["name"]) for entry in classes]
    width = max(map(len, names))
    scale = BAR_WIDTH / max(counts)
    return [f"  classes     {len(classes):,}"] + [
        f"    {name:<{width}} {entry['images']:>7,} {'#' * round(entry['images'] * scale)}"
        for name, entry in zip(names, classes, strict=True)
    ]


def _short(item: Any) -> Any:
    """Return a number with six digits, and how many there are of objects that have facts of their own."""
    many = isinstance(item, list) and any(isinstance(one, dict) for one in item)
    return f"{len(item)} of them" if many else f"{item:g}" if isinstance(item, float) else item


def _tile_trial(trial: dict[str, Any]) -> str:
    """Return what each size of tiles took, see `edgeprune.packs.encoding.tiles`."""
    costs = sorted(trial["bytes_per_image"].items(), key=itemgetter(1))
    listed = ", ".join(f"{size}: {cost:,.0f}" for size, cost in costs)
    return f"{listed} B an image, on a sample of {trial['images']} at {trial['psnr_db']:.2f} dB"


def _provenance_lines(facts: dict[str, Any]) -> list[str]:
    lines = [f"  made by     {facts['generator']}, {facts['created']}"]
    for name, value in facts["provenance"].items():
        if name == "result":
            continue
        if name == "tile":
            # A file from elsewhere may hold anything there.
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                value = _tile_trial(value)
        if isinstance(value, dict):
            plain = {key: item for key, item in value.items() if not isinstance(item, dict)}
            inside = ", ".join(
                f"{key}={_short(item)}" for key, item in plain.items() if item not in (None, [])
            )
            lines.append(f"  {name:<11} {inside}")
        else:
            lines.append(f"  {name:<11} {value}")
    return lines
