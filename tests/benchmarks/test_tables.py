"""The tables that pages are made of, from small results of the shape that the benchmarks write."""

import json

import pytest

from edgeprune_benchmarks.codec.tables import (
    accuracy_bytes_short,
    accuracy_bytes_table,
    storage_short,
    storage_table,
)
from edgeprune_benchmarks.documentation.plots import draw
from edgeprune_benchmarks.documentation.readme import COMMANDS, PAGES, update
from edgeprune_benchmarks.speed.tables import (
    allowed,
    decode_short,
    decode_table,
    epoch_table,
    loader_table,
    memory_table,
    reading_table,
    safety_table,
    start_table,
    transform_table,
)

INDEX = "docs/results/index.md"


def point(size=500.0, db=32.0):
    return {"level": 80.0, "file_bytes": size, "payload_bytes": size - 100, "psnr_db": db, "ssim": 0.95}


def ratios(peers, kind):
    ratio = {name: 500 / value[kind] for name, value in peers.items()}
    best = max(ratio, key=ratio.get)
    return {"ratio": ratio, "best_peer": best, "ratio_to_best": ratio[best]}


def storage_results():
    peers = {"JPEG 4:2:0": point(1000.0), "JPEG XL e9": point(625.0)}
    rows = [
        {"kind": "lossless", "codec": "PNG", "setting": "", **point(2000.0, None)},
        {"kind": "ours", "codec": "quantized, ycbcr, whole image, rdo", "setting": "Q80", **point()},
        {"kind": "ours", "codec": "quantized, ycbcr, whole image, rdo", "setting": "Q90", **point(700, 35)},
        *({"kind": "peer", "codec": name, "setting": "q75", **value} for name, value in peers.items()),
    ]
    matched = {
        "target_db": 32,
        "ours": point(),
        "peers": peers,
        "file_bytes": ratios(peers, "file_bytes"),
        "payload_bytes": ratios(peers, "payload_bytes"),
    }
    table5 = {"name": "sparse-f32", "paper_bytes": 9216, "bytes": 9216, "file_bytes": 9267.0, "psnr_db": 39.5}
    return {
        "size": "32x32",
        "images": 10,
        "images_in_all": 20,
        "source": "images",
        "seed": 0,
        "rows": rows,
        "matched": [matched],
        "all_images": [point()],
        "table5": [{**table5, "coreset_mb": 231.7}],
    }


def rate(median):
    return {"median": median, "min": median - 1, "max": median + 1, "n": 3}


def decode_results(rates=None):
    rates = rates or {
        "raw": 400.0,
        "simplejpeg": 100.0,
        "Pillow": 50.0,
        "quantized, scipy, from chunks": 150.0,
        "quantized, torch, from chunks": 200.0,
        "quantized, torch, in memory": 250.0,
    }
    row = {
        "size": "32x32",
        "threads": 2,
        "batch": 256,
        "images": 10,
        "limits": {"copy_gb_s": 10.0, "sgemm_gflop_s": 200.0},
        "quality": {"quantized": {"psnr_db": 32.0, "file_bytes": 400.0}},
        "jpeg": {"quantized": {"name": "JPEG 4:2:0 q80", "psnr_db": 32.1, "file_bytes": 900.0}},
        "absent": {"quantized, native": "no compiler"},
        "images_per_second": {name: rate(value) for name, value in rates.items()},
    }
    for peer in ("simplejpeg", "raw"):
        row[f"ratio_to_{peer}"] = {name: rate(value / rates[peer]) for name, value in rates.items()}
    return {"rows": [row]}


def cells(lines, name):
    """The cells of the first row of a table that begins with `name`."""
    (row, *_) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_storage_gives_both_ratios_and_the_best_peer():
    lines = storage_table(storage_results())
    row = cells(lines, "32.00")
    assert row[2] == "500 (400)"
    assert row[3] == "1,000 (900): 0.50x (0.56x)"
    assert row[5:] == ["JPEG XL e9: 0.80x", "JPEG XL e9: 0.95x"]
    assert cells(lines, "PNG")[4] == "exact"
    assert cells(lines, "sparse-f32")[1:3] == ["9,216", "9,216"]
    assert cells(lines, "sparse-f32")[4] == "231.7"


def test_the_short_table_of_storage_says_what_is_out_of_reach():
    assert cells(storage_short(storage_results()), "32.0") == [
        "32.0",
        "500",
        "1,000 (0.50x)",
        "out of reach",
        "JPEG XL e9 625 (0.80x)",
    ]


def test_decoding_gives_ratios_limits_and_what_is_absent():
    lines = decode_table(decode_results())
    found = cells(lines, "quantized, torch, from chunks")[1]
    assert found == "200 [199 to 201] (2.00x, 0.50x)"
    assert cells(lines, "quantized, native")[1] == "no compiler"
    assert "peers decode JPEG 4:2:0 q80, 32.1 dB at 900 B" in lines[0]


def test_what_the_machine_allows():
    (row,) = decode_results()["rows"]
    rates = allowed(row)
    assert rates["limit: read uint8, write float32"] == pytest.approx(10e9 / (5 * 3072))
    assert rates["limit: matrix products of the whole-image inverse"] == pytest.approx(
        200e9 / (2 * 3072 * 64)
    )


def test_the_short_table_of_decoding_has_the_fastest_decoder_of_chunks():
    lines = decode_short(decode_results())
    assert any("| quantized, torch, from chunks | 200 |" in line for line in lines)
    assert not any("scipy" in line or "in memory" in line for line in lines)


def test_loaders_that_are_not_installed_have_a_row():
    row = {"size": "32x32", "threads": 2, "batch": 256, "absent": {"FFCV": "not installed (ffcv)"}}
    rates = {"images_per_second": {"WebDataset": rate(50.0)}, "ratio_of_ours": {"WebDataset": rate(4.0)}}
    lines = loader_table({"rows": [{**row, **rates}]})
    assert "| 32x32 | 2 | WebDataset | 50 [49 to 51] | 4.00x |" in lines
    assert "| 32x32 | 2 | FFCV | not installed (ffcv) | - |" in lines


def test_epochs_start_memory_and_transforms():
    seconds = {name: rate(2.0) for name in ("pack", "ready", "files", "decoding", "decoding files")}
    epoch = {"model": "resnet8", "size": "32x32", "device": "cpu", "precision": "float32", "seconds": seconds}
    epoch |= {"steps": 5, "batch": 2, "ratio_to_ready": rate(1.01), "files_ratio_to_ready": rate(1.5)}
    results = {"threads": 2, "workers": 2, "quality": 90, "rows": [epoch]}
    ratios = ["1.010x [0.010 to 2.010]", "1.500x [0.500 to 2.500]"]
    assert cells(epoch_table(results), "resnet8, 32x32")[2:6] == ["5 of 2", "2.00", *ratios]

    first = {
        "codec": "quantized",
        "backend": "scipy",
        "imported_before": [],
        "first_batch_seconds": rate(3.0),
    }
    absent = {"codec": "sparse", "backend": "native", "imported_before": [], "absent": "no compiler"}
    imports = {"import_seconds": rate(1.5), "import_seconds_after_numpy": rate(1.2)}
    start = start_table({"batch": 2, "images": 10, **imports, "rows": [first, absent]})
    assert "new process: 1.500 [0.500 to 2.500] s" in start[0]
    assert cells(start, "quantized")[3] == "3.000 [2.000 to 4.000]"
    assert cells(start, "sparse")[3] == "no compiler"

    row = {"codec": "quantized", "pack_mb": 5.04, "images": 9000, "imported_mib": 60.4, "peak_mib": 130.2}
    memory = memory_table({"cache_mb": 64, "backend": "scipy", "rows": [row]})
    assert cells(memory, "quantized") == ["quantized", "5.0", "9,000", "60", "130"]

    costs = {"codec": "quantized", "file_bytes": 2_500_000, "decoding_seconds": rate(1.2)}
    unsigned = {**costs, "codec": "sparse", "ratios": {"structure": 0.0204}}
    rows = [{**costs, "ratios": {"structure": 0.02, "signature": 0.26}}, unsigned]
    safety = safety_table({"images": 10, "batch": 2, "rows": rows})
    assert cells(safety, "quantized")[1:] == ["2.50", "1.200 [0.200 to 2.200]", "0.020x", "0.260x"]
    assert cells(safety, "sparse")[3:] == ["0.020x", "-"]

    times = {"dct_seconds": rate(5.0), "idct_seconds": rate(6.0), "way": "scipy"}
    whole = {"data_set": "CIFAR-10", "images": 50_000, "measured_images": 50_000, **times}
    part = {"data_set": "ImageNet-1K", "images": 1_281_167, "measured_images": 250, **times}
    lines = transform_table({"threads": 2, "rows": [whole, part]})
    assert cells(lines, "CIFAR-10")[2] == "50,000"
    assert cells(lines, "ImageNet-1K")[2] == "250, extrapolated"


def accuracy_results():
    cell = {"codec": "quantized", "setting": "Q60", "psnr_db": 30.6, "target_db": 30.0, "budget_mb": 1.0}
    rows = [{**cell, "seed": seed, "images": 2000, "test_accuracy": 0.5 + 0.1 * seed} for seed in range(3)]
    recipe = {"model": "resnet8", "iterations": 100, "batch_size": 64}
    counts = {"train_images": 8068, "test_images": 1017, "held_out": 1000, "seeds": 3, "lines": [1, 4]}
    tried = {"codec": "quantized", "budget_mb": 1.0, "accuracy": 0.5}
    chosen = [{**tried, "target_db": target} for target in (27.0, 30.0)]
    return {"recipe": recipe, "copies": False, **counts, "chosen": chosen, "rows": rows}


def test_reading_has_both_epochs_of_both_ways():
    ways = {
        way: {"images_per_second": [rate(first), rate(second)], "peak_mib": 640.2, "imported_mib": 525.9}
        for way, first, second in (("decoded", 500, 501), ("cached", 400, 9000))
    }
    ways["cached"]["disk_bytes"] = 1_500_000
    table = reading_table({"images": 100, "batch": 8, "rows": [{"size": 64, "jobs": 2, **ways}]})
    rates = ["500 [499 to 501]", "501 [500 to 502]", "400 [399 to 401]", "9,000 [8,999 to 9,001]"]
    assert cells(table, "64x64")[1:] == ["2", *rates, "15,000", "640", "526"]


def test_accuracy_per_byte_has_mean_range_and_images():
    table = accuracy_bytes_table(accuracy_results())
    assert cells(table, "quantized")[1:] == ["60.0 (50.0 to 70.0), 2,000, 31 dB"]
    assert "1 of 4 codecs and budgets are measured" in table[0]
    assert "6,400 image passes" in table[0]
    assert "3 seeds if no other number is named" in table[0]
    assert "chosen on 1,000 of them, by one network for each quality. Each seed" in table[0]
    more = accuracy_results()
    webp = [{**row, "codec": "WebP"} for row in more["rows"]]
    webp[0]["test_accuracy"], webp[1]["test_accuracy"], webp[2]["test_accuracy"] = 0.48, 0.58, 0.74
    more["rows"] += [*webp, *({**webp[0], "seed": seed} for seed in (3, 4, 5))]
    table = accuracy_bytes_table(more)
    assert "3 seeds if" in table[0]
    assert cells(table, "quantized")[1:] == ["60.0 (50.0 to 70.0), 2,000, 31 dB"]
    assert cells(table, "WebP")[1:] == ["54.0 (48.0 to 74.0), 2,000, 31 dB, 6 seeds; +0.0 ± 8.6"]


def test_accuracy_per_byte_tells_of_second_networks_that_judged_qualities():
    results = accuracy_results()
    results["chosen"] += [{**row, "judge": 1} for row in results["chosen"]]
    second = "chosen on 1,000 of them, by one network for each quality, and by a second one for the best two"
    # Raw images have no choice.
    results["chosen"].append({**results["chosen"][0], "codec": "raw uint8", "target_db": None})
    assert f"{second}. Each" in accuracy_bytes_table(results)[0]
    assert accuracy_bytes_table(results)[0].startswith("resnet8, 6,400 image passes")
    results["recipe"]["precision"] = "bfloat16"
    assert accuracy_bytes_table(results)[0].startswith("resnet8 in bfloat16, 6,400 image passes")
    webp = [{**row, "codec": "WebP"} for row in results["chosen"][:2]]
    more = {**results, "chosen": [*results["chosen"], *webp]}
    assert f"{second} (for 1 of 2 codecs and budgets). Each" in accuracy_bytes_table(more)[0]


def test_accuracy_per_byte_in_short_has_the_budget_with_most_codecs():
    results = accuracy_results()
    first = results["rows"][0]
    results["rows"] += [{**first, "budget_mb": 2.0, "codec": codec} for codec in ("AVIF", "quantized")]
    results["rows"] += [{**first, "budget_mb": 2.0, "codec": "AVIF, no container"}]
    table = accuracy_bytes_short(results)
    assert cells(table, "stored as") == ["stored as", "2 MB"]
    assert table[2].startswith("| quantized |")
    assert cells(table, "AVIF")[1:] == ["50.0 (50.0 to 50.0), 2,000, 31 dB"]
    assert len(table) == 5
    assert cells(accuracy_bytes_short(accuracy_results()), "stored as") == ["stored as", "1 MB"]
    assert accuracy_bytes_short({"rows": []}) == []


@pytest.fixture
def pages(tmp_path):
    """The project's pages with nothing but their markers, and an empty folder of results."""
    for page, tables in PAGES.items():
        path = tmp_path / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"<!-- {name} -->\n<!-- end {name} -->\n" for name in tables))
    (tmp_path / "results").mkdir()
    return tmp_path


def record(name, results, folder):
    machine = {"processor": "P", "cores": 2, "vectors": "avx2", "gpu": None}
    earlier = [{"command": "first -o x", "commit": "b", "date": "a"}]
    facts = {"command": "bench -o x", "commit": "c", "date": "d", "earlier": earlier, "machine": machine}
    versions = {"numpy": "2", "torch": "2"}
    (folder / f"{name}.json").write_text(json.dumps({**facts, "versions": versions, "results": results}))


def test_pages_say_what_is_not_measured_and_take_what_is(pages, monkeypatch):
    storage, time = "docs/results/storage.md", "docs/results/time.md"
    sizes = {name: PAGES[storage][name] for name in ("storage-32x32", "storage-224x224")}
    only = {storage: sizes, time: PAGES[time]}
    monkeypatch.setattr("edgeprune_benchmarks.documentation.readme.PAGES", only)
    assert not update(pages, pages / "results", write=True)
    for page, tables in only.items():
        assert (pages / page).read_text().count("Not yet measured.") == len(tables)
    text = (pages / time).read_text()
    assert "`python -m edgeprune_benchmarks time --only start --data FOLDER`" in text
    record("storage-32x32", storage_results(), pages / "results")
    assert not update(pages, pages / "results", write=False)
    assert not update(pages, pages / "results", write=True)
    assert update(pages, pages / "results", write=False)
    text = (pages / storage).read_text()
    assert "| 32.00 | 0.9500 | 500 (400) |" in text
    assert "`bench`, d, commit c: P (avx2), 2 cores, no GPU;" in text
    assert "Other rows of this result were measured earlier by:\n\n- `first`, a, commit b\n<!-- end" in text


def test_a_short_table_comes_from_the_same_result(pages, monkeypatch):
    tables = {"time-decode short": PAGES[INDEX]["time-decode short"]}
    monkeypatch.setattr("edgeprune_benchmarks.documentation.readme.PAGES", {INDEX: tables})
    record("time-decode", decode_results(), pages / "results")
    update(pages, pages / "results", write=True)
    text = (pages / INDEX).read_text()
    assert "<!-- time-decode short -->\n| images | decoder |" in text


def test_every_result_that_may_be_missing_stands_on_a_page():
    named = {name.partition(" ")[0] for tables in PAGES.values() for name in tables}
    assert set(COMMANDS) <= named


@pytest.mark.slow
def test_pictures_are_drawn_of_what_is_there_and_always_the_same(tmp_path):
    pytest.importorskip("matplotlib")
    results = tmp_path / "results"
    results.mkdir()
    record("storage-32x32", storage_results(), results)
    record("time-decode", decode_results(), results)
    record("accuracy-bytes", accuracy_results(), results)
    first, second = draw(results, tmp_path / "one"), draw(results, tmp_path / "two")
    assert [path.name for path in first] == [
        f"{name}.{kind}"
        for name in ("rate-distortion-32x32", "throughput-decode", "accuracy-bytes")
        for kind in ("png", "svg")
    ]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    svg = (tmp_path / "one" / "rate-distortion-32x32.svg").read_text()
    assert "JPEG XL e9" in svg
    assert "<dc:date>" not in svg
