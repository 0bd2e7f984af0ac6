from edgeprune_benchmarks.harness.markdown import Column, mean_and_range, median_and_range, render


def test_columns_take_keys_paths_indices_and_functions():
    columns = [
        Column("name", "name"),
        Column("rate, images/s", "rate.median", "{:,.0f}"),
        Column("twice", lambda row: 2 * row["rate"]["median"]),
        Column("PSNR, dB", "psnr", "{:.1f}", none="exact"),
    ]
    rows = [{"name": "a", "rate": {"median": 1234.0}, "psnr": None}]
    assert render(columns, rows, "Two threads.") == [
        "Two threads.",
        "",
        "| name | rate, images/s | twice | PSNR, dB |",
        "| --- | --- | --- | --- |",
        "| a | 1,234 | 2468.0 | exact |",
    ]
    assert render([Column("first", 0), Column("second", 1)], [("x", None)])[-1] == "| x | - |"


def test_spreads_name_their_ends():
    assert mean_and_range([0.25, 0.5]) == "37.5 (25.0 to 50.0)"
    assert mean_and_range([]) == "-"
    found = {"median": 2.0, "min": 1.0, "max": 4.0}
    assert median_and_range(found, ".1f", "x") == "2.0x [1.0 to 4.0]"
