import pytest

from edgeprune_benchmarks.field.ranges import measure, ranges_table


def test_bytes_that_are_read_of_a_far_pack_are_counted(make_pack):
    pytest.importorskip("fsspec")
    path, _ = make_pack(samples=200, chunk_samples=50)
    row = measure(path)
    assert row["file_bytes"] == path.stat().st_size
    assert 0 < row["info_bytes"] <= row["preview_bytes"] < row["file_bytes"]
    assert 0 < row["info_ranges"] <= row["preview_ranges"]
    table = ranges_table({"rows": [{"images": 200, "codec": "sparse-f32", **row}]})
    assert table[-1].startswith(f"| 200 | sparse-f32 | {row['file_bytes'] / 1e3:,.0f} | ")
