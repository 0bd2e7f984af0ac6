"""Measuring an install, on environments of made-up distributions."""

import os
import zipfile

import pytest
from environments import empty_wheel

from edgeprune_benchmarks.device.install import evict, package_sizes
from edgeprune_benchmarks.device.install_tables import install_table


def site_of(tmp_path, *wheels):
    site = tmp_path / "site-packages"
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(site)
    return site


def test_packages_are_measured_by_their_files_the_largest_first(tmp_path):
    site = site_of(
        tmp_path, empty_wheel(tmp_path, "small-one", "1.0"), empty_wheel(tmp_path, "large", "2.0+local")
    )
    (site / "large.py").write_bytes(b"#" * 5000)
    record = site / "large-2.0+local.dist-info" / "RECORD"
    # A file that is listed and not there, as after a careless hand.
    record.write_text(record.read_text() + "large.py,,\ngone.py,,\n")
    large, small = package_sizes(site)
    assert (large["name"], large["version"]) == ("large", "2.0+local")
    assert (small["name"], small["version"]) == ("small-one", "1.0")
    files = (site / "large-2.0+local.dist-info").iterdir()
    assert large["bytes"] == 5000 + sum(path.stat().st_size for path in files)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be asked to forget files")
def test_evicting_leaves_files_as_they_are(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"content")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert evict(tmp_path)
    assert (tmp_path / "inner" / "file").read_bytes() == b"content"


def test_the_table_of_installs():
    def seconds(warm, **cold):
        found = {"median": warm, "min": warm, "max": warm, "n": 1}
        return {"warm": found, **{name: {**found, "median": value} for name, value in cold.items()}}

    plain = {
        "extra": "",
        "disk_bytes": 250_400_000,
        "packages": [{"name": f"p{n}", "version": "1", "bytes": (9 - n) * 10**7} for n in range(6)],
        "kernels": False,
        "works": ["info", "decode, scipy"],
        "seconds": {
            "from edgeprune_runtime import PackLoader": seconds(0.25, cold=0.5),
            "edgeprune info": seconds(0.3),
        },
    }
    lines = install_table({"rows": [plain, {**plain, "extra": "torch"}]})
    cells = "250 | 6 | p0 1 90, p1 1 80, p2 1 70, p3 1 60 | 0.25 (0.50) | 0.30 |"
    assert lines[4:6] == [f"| `edgeprune` | {cells}", f"| `edgeprune[torch]` | {cells}"]
    expected = (
        "What works after each install: info, decode, scipy; without a compiler, hence no decoders in C."
    )
    assert lines[-1] == expected
    assert lines.count(expected) == 1
