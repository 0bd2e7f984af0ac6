"""The table of what an install takes, for docs/results/device.md."""

from __future__ import annotations

from typing import Any

from ..harness.markdown import table

__all__ = ["install_table"]

LARGEST = 4


def install_table(results: dict[str, Any]) -> list[str]:
    """Return size, packages and seconds of each install, and what works after it."""
    columns = ["install", "on disk, MB", "packages", "the largest, MB", "import, s", "`edgeprune info`, s"]
    lines = table(columns, [_cells(row) for row in results["rows"]])
    works = dict.fromkeys(f"{', '.join(row['works'])}{_kernels(row)}" for row in results["rows"])
    head = (
        "Medians; seconds with files in memory and, in brackets, read from disk. `import` is of PackLoader."
    )
    return [head, "", *lines, "", *(f"Tried after each install: {tried}." for tried in works)]


def _cells(row: dict[str, Any]) -> list[str]:
    largest = ", ".join(
        f"{size['name']} {size['version']} {size['bytes'] / 1e6:,.0f}" for size in row["packages"][:LARGEST]
    )
    extra = f"[{row['extra']}]" if row["extra"] else ""
    return [
        f"`edgeprune{extra}`",
        f"{row['disk_bytes'] / 1e6:,.0f}",
        str(len(row["packages"])),
        largest,
        _seconds(row["seconds"]["from edgeprune_runtime import PackLoader"]),
        _seconds(row["seconds"]["edgeprune info"]),
    ]


def _seconds(found: dict[str, Any]) -> str:
    cold = f" ({found['cold']['median']:.2f})" if "cold" in found else ""
    return f"{found['warm']['median']:.2f}{cold}"


def _kernels(row: dict[str, Any]) -> str:
    return "" if row["kernels"] else "; without a compiler, hence no decoders in C"
