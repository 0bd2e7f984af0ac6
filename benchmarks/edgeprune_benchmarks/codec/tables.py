"""The tables of storage and of accuracy per byte, for the documentation."""

from __future__ import annotations

from collections import Counter
from statistics import mean
from typing import Any

from ..harness.markdown import Column, apart, mean_and_range, render
from .budgets import COPIES

__all__ = ["accuracy_bytes_short", "accuracy_bytes_table", "storage_short", "storage_table"]

Results = dict[str, Any]
_OURS = "quantized"
"""What the accuracy of other codecs is compared with."""


def storage_table(results: Results) -> list[str]:
    """Return bytes at equal PSNR, every setting that was tried, and table 5 where there is one."""
    intro = (
        f"{results['images']:,} images of {results['size']} ({results['source']}), drawn with seed "
        f"{results['seed']} from {results['images_in_all']:,}. PSNR is over all pixels, after clipping and "
        "rounding. Cells have bytes per image: whole files, and in parentheses without containers and "
        "headers. Other codecs are brought to our PSNR by interpolation between two neighboring qualities; "
        "after the colon is our size divided by theirs, in the same two ways."
    )
    lines = [*_matched(results, intro), "", *_all_images(results), "", "Our codecs, all settings:", ""]
    lines += [*_settings(results, ("ours", "reference")), "", "Lossless:", ""]
    lines += _settings(results, ("lossless",))
    return [*lines, "", *_table5(results["table5"])] if results["table5"] else lines


def _matched(results: Results, intro: str) -> list[str]:
    peers = dict.fromkeys(name for row in results["matched"] for name in row["peers"])
    columns = [
        Column("PSNR, dB", "ours.psnr_db", "{:.2f}"),
        Column("SSIM", "ours.ssim", "{:.4f}"),
        Column("ours", lambda row: _bytes(row["ours"])),
        *map(_peer, peers),
        Column("best file", lambda row: _best(row["file_bytes"])),
        Column("best without container", lambda row: _best(row["payload_bytes"])),
    ]
    return render(columns, results["matched"], intro)


def _peer(name: str) -> Column:
    def cell(row: Results) -> str | None:
        if name not in row["peers"]:
            return None
        ratios = [row[kind]["ratio"][name] for kind in ("file_bytes", "payload_bytes")]
        return f"{_bytes(row['peers'][name])}: {ratios[0]:.2f}x ({ratios[1]:.2f}x)"

    return Column(name, cell, none="out of reach")


def _best(kind: Results) -> str:
    return f"{kind['best_peer']}: {kind['ratio_to_best']:.2f}x" if kind["best_peer"] else "-"


def _bytes(point: Results) -> str:
    return f"{point['file_bytes']:,.0f} ({point['payload_bytes']:,.0f})"


def _all_images(results: Results) -> list[str]:
    cells = [f"{_bytes(row)} at {row['psnr_db']:.2f} dB" for row in results["all_images"]]
    return [f"The same settings in one pack of all {results['images_in_all']:,} images: {'; '.join(cells)}."]


_PSNR = Column("PSNR, dB", "psnr_db", "{:.2f}", none="exact")


def _settings(results: Results, kinds: tuple[str, ...]) -> list[str]:
    columns = [
        Column("codec", "codec"),
        Column("setting", lambda row: row["setting"] or None),
        Column("file, B/image", "file_bytes", "{:,.0f}"),
        Column("without container", "payload_bytes", "{:,.0f}"),
        _PSNR,
        Column("SSIM", "ssim", "{:.4f}"),
    ]
    return render(columns, [row for row in results["rows"] if row["kind"] in kinds])


def _table5(rows: list[Results]) -> list[str]:
    columns = [
        Column("stored as", "name"),
        Column("paper, B/image", "paper_bytes", "{:,}"),
        Column("measured without container, B/image", "bytes", "{:,.0f}"),
        Column("file, B/image", "file_bytes", "{:,.0f}"),
        Column("25,000 images, MB", "coreset_mb", "{:.1f}"),
        _PSNR,
    ]
    return render(columns, rows, "Table 5 of the paper, with rows for raw pixels and JPEG added:")


def storage_short(results: Results) -> list[str]:
    """Return bytes at equal PSNR beside JPEG 4:2:0, WebP and the smallest peer."""
    columns = [
        Column(f"{results['size']}: PSNR, dB", "ours.psnr_db", "{:.1f}"),
        Column("quantized, B/image", "ours.file_bytes", "{:,.0f}"),
        *(Column(name, _ratio_of(name), none="out of reach") for name in ("JPEG 4:2:0", "WebP")),
        Column("smallest peer", _smallest, none="out of reach"),
    ]
    return render(columns, results["matched"])


def _ratio_of(name: str) -> Any:
    def cell(row: Results) -> str | None:
        if name not in row["peers"]:
            return None
        return f"{row['peers'][name]['file_bytes']:,.0f} ({row['file_bytes']['ratio'][name]:.2f}x)"

    return cell


def _smallest(row: Results) -> str | None:
    best = row["file_bytes"]["best_peer"]
    return f"{best} {_ratio_of(best)(row)}" if best in row["peers"] else None


def accuracy_bytes_table(results: Results) -> list[str]:
    """Return test accuracy by codec and budget: mean, and range over seeds, with images and quality."""
    lines: dict[str, dict[float, list[Results]]] = {}
    for row in results["rows"]:
        lines.setdefault(row["codec"], {}).setdefault(row["budget_mb"], []).append(row)
    recipe = results["recipe"]
    passes = recipe["iterations"] * recipe["batch_size"]
    codec, quality = COPIES
    learned = f"copies of them ({codec}, quality {quality})" if results["copies"] else "exact pixels"
    usual = _usual_seeds(results["rows"])
    done, all_lines = results["lines"]
    left = "" if done == all_lines else f" {done} of {all_lines} codecs and budgets are measured."
    network = recipe["model"] + " in bfloat16" * (recipe.get("precision") == "bfloat16")
    intro = (
        f"{network}, {passes:,} image passes in every row. Of {results['train_images']:,} images "
        f"({learned}) it learns from as many as fit, in the same random order for all codecs. The quality "
        f"is chosen on {results['held_out']:,} of them{_judges(results)}. Each seed is tested on "
        f"{results['test_images']:,} others in exact pixels. A cell has the test accuracy in %, mean (lowest "
        f"to highest) of {usual} seeds if no other number is named; the number of images; the PSNR; and "
        f"after the semicolon the difference to {_OURS} in points, mean and 95% interval over the seeds that "
        f"both have.{left}"
    )
    budgets = sorted({row["budget_mb"] for row in results["rows"]})
    columns = [
        Column("stored as", lambda line: line[0]),
        *(_budget(budget, results["rows"]) for budget in budgets),
    ]
    return render(columns, _ours_first(lines), intro)


def _judges(results: Results) -> str:
    """Return how many networks judged the qualities of a codec and budget that had a choice."""
    tried = Counter((row["budget_mb"], row["codec"]) for row in results["chosen"] if "judge" not in row)
    choices = [line for line, count in tried.items() if count > 1]
    again = {(row["budget_mb"], row["codec"]) for row in results["chosen"] if "judge" in row}
    if not again:
        return ", by one network for each quality"
    share = "" if len(again) == len(choices) else f" (for {len(again)} of {len(choices)} codecs and budgets)"
    return f", by one network for each quality, and by a second one for the best two{share}"


def accuracy_bytes_short(results: Results) -> list[str]:
    """Return the test accuracies in one budget, the one that most codecs have."""
    rows = results["rows"]
    of_budget = Counter(budget for budget, _ in {(row["budget_mb"], row["codec"]) for row in rows})
    if not rows:
        return []
    budget = max(sorted(of_budget), key=of_budget.__getitem__)
    lines: dict[str, dict[float, list[Results]]] = {}
    for row in rows:
        if row["budget_mb"] == budget:
            lines.setdefault(row["codec"], {}).setdefault(budget, []).append(row)
    columns = [Column("stored as", lambda line: line[0]), _budget(budget, rows)]
    return render(columns, _ours_first(lines))


def _ours_first(lines: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(lines.items(), key=lambda line: line[0] != _OURS)


def _usual_seeds(rows: list[Results]) -> int:
    """Return how many networks most lines have; of two numbers that are as common the lower."""
    lines = Counter(Counter((row["budget_mb"], row["codec"]) for row in rows).values())
    return min(lines, key=lambda seeds: (-lines[seeds], seeds), default=0)


def _budget(budget: float, all_rows: list[Results]) -> Column:
    usual_seeds, of_budget = _usual_seeds(all_rows), [row for row in all_rows if row["budget_mb"] == budget]

    def cell(line: tuple[str, dict[float, list[Results]]]) -> str | None:
        rows = line[1].get(budget)
        if not rows:
            return None
        gap = apart(of_budget, line[0], _OURS, "codec")
        accuracies = mean_and_range([row["test_accuracy"] for row in rows])
        psnr = rows[0]["psnr_db"]
        quality = "exact" if psnr is None else f"{psnr:.0f} dB"
        seeds = "" if len(rows) == usual_seeds else f", {len(rows)} seeds"
        images = round(mean(row["images"] for row in rows))
        return f"{accuracies}, {images:,}, {quality}{seeds}" + (f"; {gap}" if gap else "")

    return Column(f"{budget:g} MB", cell)
