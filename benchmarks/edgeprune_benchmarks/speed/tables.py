"""The tables of speed, start and memory, for the documentation."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..harness.markdown import Column, median_and_range, render

__all__ = [
    "buffers_table",
    "decode_short",
    "decode_table",
    "epoch_table",
    "loader_table",
    "memory_table",
    "precision_table",
    "reading_table",
    "safety_table",
    "start_table",
    "transform_table",
]

Results = dict[str, Any]


def decode_table(results: Results) -> list[str]:
    """Return, for each image size and number of threads, every decoder at every batch size."""
    lines: list[str] = []
    places = dict.fromkeys((row["size"], row["threads"]) for row in results["rows"])
    for size, threads in places:
        rows = [row for row in results["rows"] if (row["size"], row["threads"]) == (size, threads)]
        lines += [*([""] if lines else []), *_decode_at(rows)]
    return lines


def _decode_at(rows: list[Results]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row["images_per_second"])
    absent = {name: reason for row in rows for name, reason in row["absent"].items()}
    limits = {name: f"{rate:,.0f}" for name, rate in allowed(rows[0]).items()}
    lines = [(name, [_rate(row, name) for row in rows]) for name in names]
    lines += [(name, [text] * len(rows)) for name, text in (limits | absent).items()]
    columns = [Column("decoder", 0)]
    columns += [_batch(number, row["batch"]) for number, row in enumerate(rows)]
    return render(columns, lines, _decode_intro(rows[0]))


def _batch(number: int, batch: int) -> Column:
    return Column(f"batches of {batch}", lambda line: line[1][number])


def _decode_intro(row: Results) -> str:
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
        f"{jpeg['psnr_db']:.1f} dB at {jpeg['file_bytes']:,.0f} B. Images/s, median [lowest to highest]; in "
        f"parentheses as multiples of simplejpeg and of raw. This machine copies {limits['copy_gb_s']:.0f} "
        f"GB/s and computes matrix products at {limits['sgemm_gflop_s']:,.0f} Gflop/s."
    )


def _rate(row: Results, name: str) -> str:
    if name not in row["images_per_second"]:
        return "-"
    return f"{_images(row['images_per_second'][name])} ({', '.join(_ratios(row, name))})"


def _ratios(row: Results, name: str) -> list[str]:
    """Return a decoder's rate as a multiple of simplejpeg's and of raw; a dash where a peer was left out."""
    found = [row.get(f"ratio_to_{peer}", {}).get(name) for peer in ("simplejpeg", "raw")]
    return [f"{ratio['median']:.2f}x" if ratio else "-" for ratio in found]


def _images(rate: dict[str, float]) -> str:
    return median_and_range(rate, ",.0f")


def allowed(row: Results) -> dict[str, float]:
    """Return the images/s that copy bandwidth and the rate of products allow by themselves."""
    height, width = (int(side) for side in row["size"].split("x"))
    values = 3 * height * width
    copy, products = row["limits"]["copy_gb_s"] * 1e9, row["limits"]["sgemm_gflop_s"] * 1e9
    return {
        "limit: read uint8, write float32": copy / (5 * values),
        "limit: read int16 coefficients, write float32": copy / (6 * values),
        "limit: matrix products of the whole-image inverse": products / (2 * values * (height + width)),
        "limit: matrix products of the inverse, tiles of 16": products / (2 * values * (16 + 16)),
    }


def decode_short(results: Results) -> list[str]:
    """Return two threads and the largest batch: peers, and the fastest backend of each of our codecs."""
    largest = max(row["batch"] for row in results["rows"])
    rows = [row for row in results["rows"] if row["threads"] == 2 and row["batch"] == largest]
    columns = [
        Column("images", lambda line: line[0]["size"]),
        Column("decoder", 1),
        Column("images/s", lambda line: line[0]["images_per_second"][line[1]]["median"], "{:,.0f}"),
        Column(
            "spread", lambda line: "{min:,.0f} to {max:,.0f}".format(**line[0]["images_per_second"][line[1]])
        ),
        Column("of simplejpeg", lambda line: _ratios(*line)[0]),
        Column("of raw", lambda line: _ratios(*line)[1]),
    ]
    return render(columns, [(row, name) for row in rows for name in _shown(row["images_per_second"])])


def _shown(rates: dict[str, dict[str, float]]) -> list[str]:
    """Return the peers, and of each codec of ours the fastest decoder that reads chunks."""
    ours: dict[str, str] = {}
    for name in rates:
        codec, kind = name.partition(",")[0], name.rpartition(", ")[2]
        if kind == "from chunks":
            ours[codec] = max(ours.get(codec, name), name, key=lambda one: rates[one]["median"])
    return [*(peer for peer in ("simplejpeg", "Pillow", "raw") if peer in rates), *ours.values()]


def buffers_table(results: Results) -> list[str]:
    """Return images/s into fresh and into reused memory, and how much faster the latter is."""
    intro = (
        f"{results['rows'][0]['images']:,} images of 32x32. Images/s, median [lowest to highest]. In each "
        "round both ways are timed, and the ratio is taken."
    )
    columns = [
        Column("threads", "threads"),
        Column("batches of", "batch"),
        Column("decoder", "decoder"),
        Column("fresh memory", lambda row: _images(row["fresh"])),
        Column("reused buffers", lambda row: _images(row["reused"])),
        Column("reused / fresh", lambda row: median_and_range(row["ratio"], ".2f")),
    ]
    return render(columns, results["rows"], intro)


def loader_table(results: Results) -> list[str]:
    """Return epochs of every loader, and how much faster ours is."""
    lines: list[tuple[Results, str, str, str | None]] = []
    for row in results["rows"]:
        for name, rate in row["images_per_second"].items():
            lines.append((row, name, _images(rate), f"{row['ratio_of_ours'][name]['median']:.2f}x"))
        lines += [(row, name, reason, None) for name, reason in row["absent"].items()]
    columns = [
        Column("images", lambda line: line[0]["size"]),
        Column("cores", lambda line: line[0]["threads"]),
        Column("loader", 1),
        Column("images/s", 2),
        Column("times as fast: ours", 3),
    ]
    return render(columns, lines)


def epoch_table(results: Results) -> list[str]:
    """Return the seconds of training epochs from a pack, from ready batches and from JPEG files."""
    intro = (
        f"{results['threads']} threads; files are JPEG of quality {results['quality']} through ImageFolder "
        f"and a DataLoader with {results['workers']} workers. Figures with x are multiples of the time with "
        "ready batches."
    )
    columns = [
        Column("network", lambda row: f"{row['model']}, {row['size']}"),
        Column("device", lambda row: f"{row['device']}, {row['precision']}"),
        Column("steps", lambda row: f"{row['steps']} of {row['batch']}"),
        Column("ready batches, s", "seconds.ready.median", "{:.2f}"),
        Column("from the pack", lambda row: median_and_range(row["ratio_to_ready"], ".3f", "x")),
        Column("from files", lambda row: median_and_range(row["files_ratio_to_ready"], ".3f", "x")),
        Column("decoding alone, s", "seconds.decoding.median", "{:.2f}"),
        Column("reading files alone, s", "seconds.decoding files.median", "{:.2f}"),
    ]
    return render(columns, results["rows"], intro)


def precision_table(results: Results) -> list[str]:
    """Return how long a training step takes in float32 and in bfloat16."""
    columns = [
        Column("network", lambda row: f"{row['model']}, {row['size']}"),
        Column("batch", "batch"),
        Column("float32, ms", lambda row: 1000 * row["seconds"]["float32"]["median"], "{:,.0f}"),
        Column("bfloat16, ms", lambda row: 1000 * row["seconds"]["bfloat16"]["median"], "{:,.0f}"),
        Column("bfloat16 to float32", lambda row: median_and_range(row["ratio"], ".2f", "x")),
        Column("`auto` takes", lambda row: f"{row['auto']} ({row['device']})"),
    ]
    return render(columns, results["rows"], f"{results['threads']} threads; images are noise.")


def start_table(results: Results) -> list[str]:
    """Return the seconds of the import, and of the first batch behind it."""
    intro = (
        f"`import edgeprune_runtime` in a new process: {_seconds(results['import_seconds'])} s, and "
        f"{_seconds(results['import_seconds_after_numpy'])} s if numpy is imported already. After that, the "
        f"time to the first batch, {results['batch']} of {results['images']:,} shuffled images, further "
        "imports included:"
    )
    columns = [
        Column("codec", "codec"),
        Column("backend", "backend"),
        Column("imported before", lambda row: ", ".join(row["imported_before"]) or "nothing"),
        Column("first batch, s", lambda row: row.get("absent") or _seconds(row["first_batch_seconds"])),
    ]
    return render(columns, results["rows"], intro)


def _seconds(found: dict[str, float]) -> str:
    return median_and_range(found, ".3f")


def memory_table(results: Results) -> list[str]:
    """Return the peak memory of a pass by size of pack."""
    columns = [
        Column("codec", "codec"),
        Column("pack, MB", "pack_mb", "{:,.1f}"),
        Column("images", "images", "{:,}"),
        Column("after the imports, MiB", "imported_mib", "{:,.0f}"),
        Column("peak, MiB", "peak_mib", "{:,.0f}"),
    ]
    intro = f"`cache_bytes` of {results['cache_mb']:g} MB, backend {results['backend']}, shuffled."
    return render(columns, results["rows"], intro)


def transform_table(results: Results) -> list[str]:
    """Return table 4 of the paper on this machine."""
    columns = [
        Column("data set", "data_set"),
        Column("images", "images", "{:,}"),
        Column("measured on", _measured),
        Column("library", "way"),
        Column("DCT, s", "dct_seconds.median", "{:,.2f}"),
        Column("inverse, s", "idct_seconds.median", "{:,.2f}"),
    ]
    intro = f"Whole images, {results['threads']} threads; CIFAR-100 has as many images of the same size."
    return render(columns, results["rows"], intro)


def _measured(row: Results) -> str:
    extrapolated = ", extrapolated" if row["measured_images"] < row["images"] else ""
    return f"{row['measured_images']:,}{extrapolated}"


def safety_table(results: Results) -> list[str]:
    """Return what care with a pack of each codec costs, as a multiple of decoding it once."""
    names = dict.fromkeys(name for row in results["rows"] for name in row["ratios"])
    columns = [Column("codec", "codec"), Column("pack, MB", lambda row: row["file_bytes"] / 1e6, "{:.2f}")]
    columns.append(Column("decoding, s", lambda row: median_and_range(row["decoding_seconds"], ".3f")))
    columns += [Column(name, partial(_share, name), "{:.3f}x") for name in names]
    intro = (
        f"{results['images']:,} images of 32x32, decoded by scipy in batches of {results['batch']}. Medians; "
        "figures with x are multiples of the time to decode the pack once."
    )
    return render(columns, results["rows"], intro)


def _share(name: str, row: Results) -> float | None:
    ratio: float | None = row["ratios"].get(name)
    return ratio


def reading_table(results: Results) -> list[str]:
    """Return images/s of the first and the second epoch, decoded in each and decoded once."""
    intro = (
        f"{results['images']:,} photographs of 224x224, JPEG of quality 90, in a folder; batches of "
        f"{results['batch']}, cropped and mirrored at random. Images/s, median [lowest to highest]; all "
        "files lie in the page cache."
    )
    columns = [
        Column("size", lambda row: f"{row['size']}x{row['size']}"),
        Column("threads", "jobs"),
        Column("decoded in every epoch: epoch 1", lambda row: _epoch_rate(row["decoded"], 0)),
        Column("epoch 2", lambda row: _epoch_rate(row["decoded"], 1)),
        Column("decoded once: epoch 1", lambda row: _epoch_rate(row["cached"], 0)),
        Column("epoch 2", lambda row: _epoch_rate(row["cached"], 1)),
        Column("disk, B an image", lambda row: row["cached"]["disk_bytes"] / results["images"], "{:,.0f}"),
        Column("peak memory, MiB", lambda row: row["cached"]["peak_mib"], "{:,.0f}"),
        Column("of which before reading", lambda row: row["cached"]["imported_mib"], "{:,.0f}"),
    ]
    return render(columns, results["rows"], intro)


def _epoch_rate(way: Results, epoch: int) -> str:
    return median_and_range(way["images_per_second"][epoch], ",.0f")
