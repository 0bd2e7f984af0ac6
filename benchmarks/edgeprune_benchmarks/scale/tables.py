"""The tables of building at a large scale, for the documentation."""

from __future__ import annotations

from typing import Any

from ..harness.markdown import Column, render
from ..speed.encode_tables import verdict

__all__ = ["IMAGENET", "hours", "scale_table"]

Results = dict[str, Any]

IMAGENET = 1_281_167
CORES = (2, 16, 64)
SPEED_UP, MEMORY_MIB, TEMPORARY = 1.8, 1536.0, 1.2
_STEPS = {
    "build": "build",
    "open": "open",
    "verify": "verify",
    "shuffle": "one shuffled epoch",
    "stop": "stop in the middle of an epoch",
    "resume": "resume it: the first batch",
}


def scale_table(results: Results) -> list[str]:
    """Return the builds, goals, what ImageNet would take, and the steps with a pack of small images."""
    rows = {row["way"]: row for row in results["photographs"]}
    lines = [*_builds(results), ""]
    lines += [f"- {line}" for line in (*_goals(rows), *_same(rows), *_extrapolated(rows))]
    lines += [f"- {way} is left out: {reason}." for way, reason in results["left_out"].items()]
    return [*lines, "", *_small(results)] if results["small"] else lines


def hours(images_per_second: float, cores: int) -> float:
    """Return the hours for ImageNet where parts of two cores each run side by side at this rate."""
    return IMAGENET / (images_per_second * cores / 2) / 3600


def _builds(results: Results) -> list[str]:
    columns = [
        Column("built with", lambda row: f"`{row['options']}`"),
        Column("s", "seconds", "{:,.0f}"),
        Column("images/s", "images_per_second", "{:,.1f}"),
        Column("cores busy", _busy, "{:.2f}"),
        Column("peak, MiB", "peak_mib", "{:,.0f}"),
        Column("peak with those of Ray itself, MiB", lambda row: row.get("peak_with_engine_mib"), "{:,.0f}"),
        Column("pack, MB", lambda row: row["file_bytes"] / 1e6, "{:,.1f}"),
        Column("B/image", lambda row: row["file_bytes"] / row["images"], "{:,.0f}"),
        Column("temporary disk", "temporary_ratio", "{:.2f}x"),
        Column("disk with the pack", lambda row: row["disk_bytes"] / row["file_bytes"], "{:.2f}x"),
    ]
    intro = (
        f"{results['images']:,} images of 224x224 on {results['cores']} cores; disk as multiples of the pack."
    )
    return render(columns, results["photographs"], intro)


def _busy(row: Results) -> float | None:
    return None if row["cpu_seconds"] is None else row["cpu_seconds"] / row["seconds"]


def _goals(rows: dict[str, Results]) -> list[str]:
    memory = max(row["peak_mib"] for row in rows.values())
    temporary = max(row["temporary_ratio"] for row in rows.values())
    lines = [
        f"Goal: at most {MEMORY_MIB:,.0f} MiB of memory. {memory:,.0f} MiB: "
        f"{verdict(memory, MEMORY_MIB, most=True)}.",
        f"Goal: temporary disk at most {TEMPORARY}x the pack. {temporary:.2f}x: "
        f"{verdict(temporary, TEMPORARY, most=True)}.",
    ]
    if {"jobs-1", "jobs-2"} <= set(rows):
        times = rows["jobs-1"]["seconds"] / rows["jobs-2"]["seconds"]
        lines.insert(0, f"Goal: two jobs at least {SPEED_UP}x one. {times:.2f}x: {verdict(times, SPEED_UP)}.")
    return lines


def _same(rows: dict[str, Results]) -> list[str]:
    """Return whether packs are the same, those of jobs byte for byte, that of parts chunk for chunk."""
    lines, first = [], rows.get("jobs-1", {})
    for way, kind, what in (
        ("jobs-2", "file_sha256", "file with two jobs as with one, byte for byte"),
        ("ray-8", "payloads_sha256", "payloads through Ray as with one job, chunk for chunk"),
    ):
        if way in rows and first:
            found = "met" if rows[way][kind] == first[kind] else "missed"
            lines.append(f"Goal: the same {what}: {found}.")
    return lines


def _extrapolated(rows: dict[str, Results]) -> list[str]:
    if "jobs-2" not in rows:
        return []
    rate = rows["jobs-2"]["images_per_second"]
    each = ", ".join(f"{60 * hours(rate, cores):.0f} minutes on {cores} cores" for cores in CORES)
    return [
        f"At the rate of two jobs, ImageNet's {IMAGENET:,} images would take {each}, if they were files of "
        "224x224 like these (extrapolated)."
    ]


def _small(results: Results) -> list[str]:
    rows = {row["step"]: row for row in results["small"]}
    columns = [
        Column("step", lambda row: _STEPS[row["step"]]),
        Column("s", "seconds", "{:,.2f}"),
        Column("images/s", lambda row: row.get("images_per_second"), "{:,.0f}"),
        Column("first batch, s", lambda row: row.get("first_batch_seconds"), "{:,.2f}"),
        Column("after the imports, MiB", "imported_mib", "{:,.0f}"),
        Column("peak, MiB", "peak_mib", "{:,.0f}"),
    ]
    build, shuffle = rows.get("build", {}), rows.get("shuffle", {})
    intro = f"A pack of {results['small_images']:,} images of 32x32, each step in a new process"
    if build:
        intro += f"; {build['file_bytes'] / 1e6:,.1f} MB, built with {build['jobs']} jobs"
    if shuffle:
        intro += f"; batches of {shuffle['batch']}, shuffled and normalized, backend {shuffle['backend']}"
    if "resume" in rows:
        intro += "; the first batch after resuming is the same as in an epoch without a stop"
    return render(columns, results["small"], f"{intro}.")
