"""The table of what an install takes."""

from __future__ import annotations

from typing import Any

from ..harness.markdown import Column, render

__all__ = ["install_table"]

LARGEST = 4
IMPORT = "from edgeprune_runtime import PackLoader"


def install_table(results: dict[str, Any]) -> list[str]:
    """Return size, packages and seconds of each install, and what works after it."""
    intro = (
        "Medians. Seconds with the files in memory; in parentheses, read from disk. `import` is that of "
        "PackLoader."
    )
    columns = [
        Column("install", lambda row: f"`edgeprune[{row['extra']}]`" if row["extra"] else "`edgeprune`"),
        Column("on disk, MB", lambda row: row["disk_bytes"] / 1e6, "{:,.0f}"),
        Column("packages", lambda row: len(row["packages"])),
        Column("the largest, MB", _largest),
        Column("import, s", lambda row: _seconds(row["seconds"][IMPORT])),
        Column("`edgeprune info`, s", lambda row: _seconds(row["seconds"]["edgeprune info"])),
    ]
    works = dict.fromkeys(f"{', '.join(row['works'])}{_kernels(row)}" for row in results["rows"])
    tried = [f"What works after each install: {what}." for what in works]
    return [*render(columns, results["rows"], intro), "", *tried]


def _largest(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{size['name']} {size['version']} {size['bytes'] / 1e6:,.0f}" for size in row["packages"][:LARGEST]
    )


def _seconds(found: dict[str, Any]) -> str:
    cold = f" ({found['cold']['median']:.2f})" if "cold" in found else ""
    return f"{found['warm']['median']:.2f}{cold}"


def _kernels(row: dict[str, Any]) -> str:
    return "" if row["kernels"] else "; without a compiler, hence no decoders in C"
