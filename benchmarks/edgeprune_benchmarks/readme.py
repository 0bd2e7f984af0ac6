"""The measured parts of README.md and docs/, written from the JSON results between markers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError

from .selection_tables import (
    coreset_table,
    correlation_table,
    learning_table,
    mask_table,
    not_measured,
    table,
)

__all__ = ["update"]

Table = Callable[[dict[str, Any]], list[str]]


def update(root: Path, results: Path, *, write: bool) -> bool:
    """Bring the tables of all pages up to date, and return whether they were so already.

    Between ``<!-- NAME -->`` and ``<!-- end NAME -->`` stands the table made from ``NAME.json``.

    Raises
    ------
    ConfigError
        A marker without its end, or without a result.
    """
    # Every page, hence no generator, which would stop at the first that is out of date.
    current = [_update(root / page, tables, results, write=write) for page, tables in PAGES.items()]
    return all(current)


def _update(page: Path, tables: Mapping[str, Table], results: Path, *, write: bool) -> bool:
    old = page.read_text()
    new = old
    for name, lines_of in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(new):
            raise ConfigError(f"{page} lacks the markers <!-- {name} --> and <!-- end {name} -->")
        path = results / f"{name}.json"
        if not path.exists() and name in NEED_GPU:
            new = pattern.sub(partial(_fill, not_measured(NEED_GPU[name]) + "\n"), new)
            continue
        if not path.exists():
            raise ConfigError(
                f"{path} is missing; run: python -m edgeprune_benchmarks {name.partition('-')[0]}"
            )
        record = json.loads(path.read_text())
        body = "\n".join([*lines_of(record["results"]), "", _source(record)]) + "\n"
        new = pattern.sub(partial(_fill, body), new)
    if write and new != old:
        page.write_text(new)
    return new == old


def _fill(body: str, found: re.Match[str]) -> str:
    return found[1] + body + found[2]


def _source(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    gpu = machine["gpu"] or "no GPU"
    return (
        f"`{record['command'].split(' -o ')[0]}`, {record['date']}, commit {record['commit']}: "
        f"{machine['processor']}, {machine['cores']} cores, {gpu}; torch {versions.get('torch', '-')}, "
        f"numpy {versions['numpy']}."
    )


def _build(results: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["source"],
            f"{row['freq_prune']:.0%}",
            row["compression"],
            f"{row['components']:,}",
            f"{row['coefficient_bytes']:,}",
            f"{row['file_bytes_per_image']:,.0f}",
            f"{row['file_bytes_per_image'] / _raw(row):.2f}x",
            f"{row['psnr_db']:.2f}",
            f"{row['seconds']:.1f}",
            f"{row['peak_mib']:,.0f}",
        ]
        for row in results["rows"]
    ]
    header = ["images", "pruned", "gzip", "K", "coefficients, B", "file, B/image", "of raw uint8", "PSNR, dB"]
    return table([*header, "build, s", "peak, MiB"], rows)


def _raw(row: dict[str, Any]) -> int:
    channels, height, width = row["shape"]
    size: int = channels * height * width
    return size


def _decode(results: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["setting"],
            str(row["threads"]),
            name,
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f} to {rate['max']:,.0f}",
            f"{row['ratio_to_simplejpeg'][name]['median']:.2f}x",
            f"{row['ratio_to_raw'][name]['median']:.2f}x",
        ]
        for row in results["rows"]
        for name, rate in row["images_per_second"].items()
    ]
    rows += [_product_limit(row) for row in results["rows"]]
    return table(["images", "threads", "way", "images/s", "spread", "of simplejpeg", "of raw"], rows)


def _product_limit(row: dict[str, Any]) -> list[str]:
    """Return the rate at which the matrix products of the inverse DCT alone would run."""
    height, width = (int(side) for side in row["setting"].split("x"))
    operations = 2 * 3 * height * width * (height + width)
    limit = row["limits"]["sgemm_gflop_s"] * 1e9 / operations
    ratios = [f"{limit / row['images_per_second'][peer]['median']:.2f}x" for peer in ("simplejpeg", "raw")]
    note = f"at {row['limits']['sgemm_gflop_s']:,.0f} Gflop/s"
    return [row["setting"], str(row["threads"]), "limit: products alone", f"{limit:,.0f}", note, *ratios]


def _accuracy(results: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["model"],
            "original pixels" if row["freq_prune"] == 0 else f"pack, {row['freq_prune']:.0%} pruned",
            str(row["seed"]),
            f"{row['test_accuracy']:.2%}",
        ]
        for row in results["rows"]
    ]
    return table(["network", "trained from", "seed", "test accuracy"], rows)


def _demo(results: dict[str, Any]) -> list[str]:
    """Return the demo's output, of ``info`` the first lines only."""
    lines = results["output"].strip().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  mean, std"))
    end = next(number for number, line in enumerate(lines) if line.startswith("$ edgeprune verify"))
    return ["```", "$ edgeprune demo", "", *lines[:start], "  ...", "", *lines[end:], "```"]


PAGES: dict[str, dict[str, Table]] = {
    "README.md": {"demo": _demo, "build": _build, "decode": _decode, "accuracy": _accuracy},
    "docs/selection.md": {
        "coresets-lossless": lambda results: [*coreset_table(results), "", *correlation_table(results)],
        "coresets-jpeg": lambda results: [*coreset_table(results), "", *correlation_table(results)],
        "masks-lossless": mask_table,
        "masks-jpeg": mask_table,
        "learning": learning_table,
    },
}

# Results at the papers' scale, and the commands that give them.
NEED_GPU = {
    "coresets-jpeg": "coresets --images jpeg --model resnet18 --iterations 40000 --batch-size 256 --lr 0.1 "
    "--score-epochs 200 --every 5 --device cuda",
    "masks-jpeg": "masks --images jpeg --model resnet18 --score-epochs 200 --mask-epochs 300 --epochs 200 "
    "--batch-size 256 --lr 0.1 --device cuda",
}
