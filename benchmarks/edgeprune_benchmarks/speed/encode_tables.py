"""The table of encoding, for the documentation."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..harness.markdown import Column, median_and_range, render

__all__ = ["encode_table", "verdict"]

Results = dict[str, Any]

# At least so many times as fast as a peer, and images/s, with rounding rdo.
GOALS = {"224x224": {"WebP, method 4": 2.0, "AVIF, speed 6": 8.0}, "32x32": {"images/s": 10_000.0}}


def encode_table(results: Results) -> list[str]:
    """Return rates, PSNR and bytes of every encoder, the goals, and what one image costs in a build."""
    columns = [
        Column("images", lambda line: line[0]["size"]),
        Column("encoder", 1),
        Column("setting", lambda line: _file(line)["setting"]),
        Column("PSNR, dB", lambda line: _file(line)["psnr_db"], "{:.2f}"),
        Column("file, B/image", lambda line: _file(line)["file_bytes"], "{:,.0f}"),
        Column("images/s", lambda line: median_and_range(line[0]["images_per_second"][line[1]], ",.0f")),
        Column("times as fast: ours, rdo", partial(_times, "ours, rdo")),
        Column("times as fast: ours, deadzone", partial(_times, "ours, deadzone")),
    ]
    rows = results["rows"]
    lines = render(columns, [(row, name) for row in rows for name in row["images_per_second"]])
    lines += ["", *(f"- {line}" for row in rows for line in _notes(row))]
    for row in rows:
        if "stages" in row:
            lines += ["", *_stages(row)]
    return lines


def verdict(found: float, goal: float, *, most: bool = False) -> str:
    """Return whether a goal is met; `most`: by a figure that is at most as large."""
    return "met" if (found <= goal if most else found >= goal) else "missed"


def _file(line: tuple[Results, str]) -> Results:
    facts: Results = line[0]["files"][line[1]]
    return facts


def _times(ours: str, line: tuple[Results, str]) -> str | None:
    found = line[0]["ratio_of_ours"][ours].get(line[1])
    return None if found is None else median_and_range(found, ".2f", "x")


def _notes(row: Results) -> list[str]:
    size, goals, found = row["size"], GOALS[row["size"]], row["ratio_of_ours"]["ours, rdo"]
    rate = row["images_per_second"]["ours, rdo"]["median"]
    notes = [
        f"Goal at {size}: at least {goal:g}x {peer}. {found[peer]['median']:.2f}x: "
        f"{verdict(found[peer]['median'], goal)}."
        for peer, goal in goals.items()
        if peer in found
    ]
    if "images/s" in goals:
        goal = goals["images/s"]
        notes.append(f"Goal at {size}: at least {goal:,.0f} images/s. {rate:,.0f}: {verdict(rate, goal)}.")
    notes += [f"{size}: another encoder is left out: {reason}." for reason in row["absent"].values()]
    kernels = row["numpy"]
    if row["compiled"]:
        notes.append(
            f"{size}: without the encoder in C, numpy takes {kernels['ratio']:.1f}x as long "
            f"({kernels['images']:,} images, measured once)."
        )
    else:
        notes.append(f"{size}: the encoder in C was not compiled; these are figures of numpy.")
    return notes


def _stages(row: Results) -> list[str]:
    intro = (
        f"Time of each stage of a build for one image at {row['size']}, in ms on one core. The source is the "
        "original JPEG file of the photograph; tiles of 16, rounding rdo. Hashing is SHA-256 and the sums "
        "over each channel."
    )
    if any("12 megapixels" in name for name in row["stages"]):
        intro += " Those of 12 megapixels are enlarged photographs, saved with quality 90."
    columns = [
        Column("stage", 0),
        Column("ms an image", lambda line: median_and_range(line[1], ".2f")),
    ]
    return render(columns, row["stages"].items(), intro)
