"""The tables of storage and of accuracy per byte, for docs/results."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ..harness.markdown import table

__all__ = ["accuracy_bytes_table", "storage_short", "storage_table"]

Results = dict[str, Any]


def storage_table(results: Results) -> list[str]:
    """Return bytes at equal PSNR, every setting that was tried, and table 5 where there is one."""
    head = (
        f"{results['images']:,} images of {results['size']} ({results['source']}; of "
        f"{results['images_in_all']:,} in all, drawn from seed {results['seed']}), PSNR over all pixels "
        "after clipping and rounding. Bytes an image: of whole files, and in brackets without containers and "
        "headers. Peers at our PSNR, between two neighboring qualities; behind the colon ours as a multiple "
        "of theirs, both ways."
    )
    lines = [head, "", *_matched(results), "", *_all_images(results), "", "Settings of ours:", ""]
    lines += [*_settings(results, ("ours", "reference")), "", "Without loss:", ""]
    lines += _settings(results, ("lossless",))
    return [*lines, "", *_table5(results["table5"])] if results["table5"] else lines


def _matched(results: Results) -> list[str]:
    peers = list(dict.fromkeys(name for row in results["matched"] for name in row["peers"]))
    rows = []
    for row in results["matched"]:
        cells = [f"{row['ours']['psnr_db']:.2f}", f"{row['ours']['ssim']:.4f}", _bytes(row["ours"])]
        for name in peers:
            point = row["peers"].get(name)
            ratios = [row[kind]["ratio"].get(name) for kind in ("file_bytes", "payload_bytes")]
            cells.append(f"{_bytes(point)}: {ratios[0]:.2f}x ({ratios[1]:.2f}x)" if point else "out of reach")
        for kind in ("file_bytes", "payload_bytes"):
            best = row[kind]["best_peer"]
            cells.append(f"{best}: {row[kind]['ratio_to_best']:.2f}x" if best else "-")
        rows.append(cells)
    return table(["PSNR, dB", "SSIM", "ours", *peers, "best file", "best without container"], rows)


def _all_images(results: Results) -> list[str]:
    cells = [f"{_bytes(row)} at {row['psnr_db']:.2f} dB" for row in results["all_images"]]
    return [f"The same settings in one pack of all {results['images_in_all']:,} images: {'; '.join(cells)}."]


def _settings(results: Results, kinds: tuple[str, ...]) -> list[str]:
    rows = [
        [
            row["codec"],
            row["setting"] or "-",
            f"{row['file_bytes']:,.0f}",
            f"{row['payload_bytes']:,.0f}",
            "exact" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}",
            f"{row['ssim']:.4f}",
        ]
        for row in results["rows"]
        if row["kind"] in kinds
    ]
    return table(["codec", "setting", "file, B/image", "without container", "PSNR, dB", "SSIM"], rows)


def _table5(rows: list[dict[str, Any]]) -> list[str]:
    cells = [
        [
            row["name"],
            "-" if row["paper_bytes"] is None else f"{row['paper_bytes']:,}",
            f"{row['bytes']:,.0f}",
            f"{row['file_bytes']:,.0f}",
            f"{row['coreset_mb']:.1f}",
            "exact" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}",
        ]
        for row in rows
    ]
    header = ["as stored", "paper, B/image", "ours or theirs, B/image", "file, B/image", "25,000 images, MB"]
    return ["Table 5 of the paper, with the rows that it lacks:", "", *table([*header, "PSNR, dB"], cells)]


def storage_short(results: Results) -> list[str]:
    """Return bytes at equal PSNR beside JPEG 4:2:0, WebP and the smallest peer."""
    rows = []
    for row in results["matched"]:
        cells = [f"{row['ours']['psnr_db']:.1f}", f"{row['ours']['file_bytes']:,.0f}"]
        best = row["file_bytes"]["best_peer"]
        for name in ("JPEG 4:2:0", "WebP", best):
            if name not in row["peers"]:
                cells.append("out of reach")
                continue
            label = f"{name} " if name == best else ""
            size, ratio = row["peers"][name]["file_bytes"], row["file_bytes"]["ratio"][name]
            cells.append(f"{label}{size:,.0f} ({ratio:.2f}x)")
        # The last column names the peer; the others need not.
        rows.append([*cells[:2], *(cell.removeprefix(f"{best} ") for cell in cells[2:4]), cells[4]])
    return table(
        [f"{results['size']}: PSNR, dB", "quantized, B/image", "JPEG 4:2:0", "WebP", "smallest peer"], rows
    )


def accuracy_bytes_table(results: Results) -> list[str]:
    """Return test accuracy by codec and budget: mean, and range over seeds, with the number of images."""
    cells: dict[tuple[str, str, float | None], dict[float, list[dict[str, Any]]]] = {}
    for row in results["rows"]:
        key = row["codec"], row["setting"], row["psnr_db"]
        cells.setdefault(key, {}).setdefault(row["budget_mb"], []).append(row)
    budgets = sorted({row["budget_mb"] for row in results["rows"]})
    recipe = results["recipe"]
    head = (
        f"{recipe['model']}, {recipe['iterations']:,} steps of {recipe['batch_size']} whatever the images; "
        f"of {results['train_images']:,} images (decoded from a JPEG copy of CIFAR-10) as many as fit, in "
        f"the same random order for all; tested on {results['test_images']:,}; {results['seeds']} seeds; "
        "test accuracy in %, mean (lowest to highest), and how many images fit."
    )
    rows = [
        [
            f"{codec} {setting}".strip(),
            "exact" if quality is None else f"{quality:.1f}",
            *(_accuracies(line.get(budget, [])) for budget in budgets),
        ]
        for (codec, setting, quality), line in cells.items()
    ]
    return [head, "", *table(["stored as", "PSNR, dB", *(f"{budget:g} MB" for budget in budgets)], rows)]


def _accuracies(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "-"
    found = [100 * row["test_accuracy"] for row in rows]
    images = round(mean(row["images"] for row in rows))
    return f"{mean(found):.1f} ({min(found):.1f} to {max(found):.1f}), {images:,}"


def _bytes(point: dict[str, Any]) -> str:
    return f"{point['file_bytes']:,.0f} ({point['payload_bytes']:,.0f})"
