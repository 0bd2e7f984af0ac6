"""The tables of speed, start and memory, for docs/results."""

from __future__ import annotations

from typing import Any

from ..harness.markdown import table

__all__ = [
    "decode_short",
    "decode_table",
    "epoch_table",
    "loader_table",
    "memory_table",
    "start_table",
    "transform_table",
]

Results = dict[str, Any]


def decode_table(results: Results) -> list[str]:
    """Return, for each image size and number of threads, every way at every batch size."""
    lines: list[str] = []
    places = dict.fromkeys((row["size"], row["threads"]) for row in results["rows"])
    for size, threads in places:
        rows = [row for row in results["rows"] if (row["size"], row["threads"]) == (size, threads)]
        lines += [*([""] if lines else []), _decode_head(rows[0]), "", *_decode_rows(rows)]
    return lines


def _decode_head(row: dict[str, Any]) -> str:
    packs = ", ".join(
        f"{codec} {facts['psnr_db']:.1f} dB at {facts['file_bytes']:,.0f} B"
        for codec, facts in row["quality"].items()
    )
    jpeg = row["jpeg"]["quantized"]
    encoder = " by Pillow" if jpeg.get("encoder") == "Pillow" else ""
    limits = row["limits"]
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return (
        f"{row['size']}, {threads}, {row['images']:,} images: {packs}; peers decode {jpeg['name']}{encoder}, "
        f"{jpeg['psnr_db']:.1f} dB at {jpeg['file_bytes']:,.0f} B. Images/s, median [lowest to highest], and "
        f"in brackets of simplejpeg and of raw. Here a copy moves {limits['copy_gb_s']:.0f} GB/s and "
        f"products run at {limits['sgemm_gflop_s']:,.0f} Gflop/s."
    )


def _decode_rows(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["images_per_second"]))
    cells = [[name, *(_rate(row, name) for row in rows)] for name in names]
    for name, rate in allowed(rows[0]).items():
        cells.append([name, *[f"{rate:,.0f}"] * len(rows)])
    absent = {name: reason for row in rows for name, reason in row["absent"].items()}
    cells += [[name, *[reason] * len(rows)] for name, reason in absent.items()]
    return table(["way", *(f"batches of {row['batch']}" for row in rows)], cells)


def _rate(row: dict[str, Any], name: str) -> str:
    if name not in row["images_per_second"]:
        return "-"
    return f"{_spread(row['images_per_second'][name])} ({', '.join(_ratios(row, name))})"


def _ratios(row: dict[str, Any], name: str) -> list[str]:
    """Return a way's rate as a multiple of simplejpeg's and of raw; a dash where a peer was left out."""
    found = [row.get(f"ratio_to_{peer}", {}).get(name) for peer in ("simplejpeg", "raw")]
    return [f"{ratio['median']:.2f}x" if ratio else "-" for ratio in found]


def _spread(rate: dict[str, float]) -> str:
    return f"{rate['median']:,.0f} [{rate['min']:,.0f} to {rate['max']:,.0f}]"


def allowed(row: dict[str, Any]) -> dict[str, float]:
    """Return the images/s that copy bandwidth and the rate of products allow by themselves."""
    height, width = (int(side) for side in row["size"].split("x"))
    values = 3 * height * width
    copy, products = row["limits"]["copy_gb_s"] * 1e9, row["limits"]["sgemm_gflop_s"] * 1e9
    return {
        "limit: read uint8, write float32": copy / (5 * values),
        "limit: read int16 coefficients, write float32": copy / (6 * values),
        "limit: products of the whole-image inverse": products / (2 * values * (height + width)),
        "limit: products of the inverse, tiles of 16": products / (2 * values * (16 + 16)),
    }


def decode_short(results: Results) -> list[str]:
    """Return two threads and the largest batch: peers, and the fastest way of each of our codecs."""
    largest = max(row["batch"] for row in results["rows"])
    rows = [row for row in results["rows"] if row["threads"] == 2 and row["batch"] == largest]
    cells = []
    for row in rows:
        rates = row["images_per_second"]
        ours: dict[str, str] = {}
        for name in rates:
            codec, kind = name.partition(",")[0], name.rpartition(", ")[2]
            if kind == "from chunks":
                best = ours.get(codec, name)
                ours[codec] = max(best, name, key=lambda way: float(rates[way]["median"]))
        for name in (*(peer for peer in ("simplejpeg", "Pillow", "raw") if peer in rates), *ours.values()):
            spread = f"{rates[name]['min']:,.0f} to {rates[name]['max']:,.0f}"
            median = f"{rates[name]['median']:,.0f}"
            cells.append([row["size"], name, median, spread, *_ratios(row, name)])
    return table(["images", "way", "images/s", "spread", "of simplejpeg", "of raw"], cells)


def loader_table(results: Results) -> list[str]:
    """Return epochs of every loader, and how much faster ours is."""
    rows = []
    for row in results["rows"]:
        place = [row["size"], str(row["threads"])]
        for name, rate in row["images_per_second"].items():
            rows.append([*place, name, _spread(rate), f"{row['ratio_of_ours'][name]['median']:.2f}x"])
        rows += [[*place, name, reason, "-"] for name, reason in row["absent"].items()]
    return table(["images", "cores", "loader", "images/s", "ours is as fast"], rows)


def epoch_table(results: Results) -> list[str]:
    """Return the seconds of training epochs from a pack, from ready batches and from JPEG files."""
    rows = [
        [
            f"{row['model']}, {row['size']}",
            f"{row['device']}, {row['precision']}",
            f"{row['steps']} of {row['batch']}",
            f"{row['seconds']['ready']['median']:.2f}",
            _ratio(row["ratio_to_ready"]),
            _ratio(row["files_ratio_to_ready"]),
            *(f"{row['seconds'][way]['median']:.2f}" for way in ("decoding", "decoding files")),
        ]
        for row in results["rows"]
    ]
    head = (
        f"{results['threads']} threads; files are JPEG of quality {results['quality']} through ImageFolder "
        f"and a DataLoader with {results['workers']} workers."
    )
    columns = ["network", "on", "steps", "ready batches, s", "from the pack", "from files"]
    return [head, "", *table([*columns, "decoding alone, s", "files alone, s"], rows)]


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f}x [{ratio['min']:.3f} to {ratio['max']:.3f}]"


def start_table(results: Results) -> list[str]:
    """Return the seconds of the import, and of the first batch behind it."""
    after = results["import_seconds_after_numpy"]
    head = (
        f"`import edgeprune_runtime` in a new process: {_seconds(results['import_seconds'])} s, and "
        f"{_seconds(after)} s where numpy is there already. From there to the first {results['batch']} of "
        f"{results['images']:,} shuffled images, with all that is imported on the way:"
    )
    rows = [
        [
            row["codec"],
            row["backend"],
            ", ".join(row["imported_before"]) or "nothing",
            _seconds(row["first_batch_seconds"]) if "first_batch_seconds" in row else row["absent"],
        ]
        for row in results["rows"]
    ]
    return [head, "", *table(["codec", "backend", "imported before", "first batch, s"], rows)]


def _seconds(found: dict[str, float]) -> str:
    return f"{found['median']:.3f} [{found['min']:.3f} to {found['max']:.3f}]"


def memory_table(results: Results) -> list[str]:
    """Return the peak memory of a pass by size of pack."""
    rows = [
        [
            row["codec"],
            f"{row['pack_mb']:,.1f}",
            f"{row['images']:,}",
            f"{row['imported_mib']:,.0f}",
            f"{row['peak_mib']:,.0f}",
        ]
        for row in results["rows"]
    ]
    head = f"`cache_bytes` of {results['cache_mb']:g} MB, backend {results['backend']}, shuffled."
    columns = ["codec", "pack, MB", "images", "after the imports, MiB", "peak, MiB"]
    return [head, "", *table(columns, rows)]


def transform_table(results: Results) -> list[str]:
    """Return table 4 of the paper on this machine."""
    rows = [
        [
            row["data_set"],
            f"{row['images']:,}",
            f"{row['measured_images']:,}"
            + (", extrapolated" if row["measured_images"] < row["images"] else ""),
            row["way"],
            f"{row['dct_seconds']['median']:,.2f}",
            f"{row['idct_seconds']['median']:,.2f}",
        ]
        for row in results["rows"]
    ]
    head = f"Whole images, {results['threads']} threads; CIFAR-100 has the size and number of CIFAR-10."
    return [head, "", *table(["data set", "images", "measured on", "by", "DCT, s", "inverse, s"], rows)]
