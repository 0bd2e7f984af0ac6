"""The distribution: what is in the wheel, and that it works away from the checkout."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"edgeprune", "edgeprune_formats", "edgeprune_runtime", "edgeprune_benchmarks"}

CHECK = """
import sys
from pathlib import Path
import edgeprune, edgeprune_benchmarks, edgeprune_formats, edgeprune_runtime
from edgeprune.cli import main
from edgeprune_formats.coding.native import has_kernels
from edgeprune_runtime.decode.kernels import lanes

site = sys.argv.pop(1)
for package in (edgeprune, edgeprune_benchmarks, edgeprune_formats, edgeprune_runtime):
    assert Path(package.__file__).is_relative_to(site), package.__file__
assert has_kernels() and lanes()
main()
"""


@pytest.mark.slow
def test_the_wheel_holds_the_four_packages_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert "edgeprune_formats/codecs/sparse_f32.py" in names
    assert {f"edgeprune/report/templates/report.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)
    assert len(list(built.glob("*.tar.gz"))) == 1


@pytest.mark.slow
def test_the_kernels_are_for_any_python_3_and_for_glibc_2_17(built):
    (wheel,) = built.glob("*.whl")
    assert "-py3-none-linux_" in wheel.name
    archive = zipfile.ZipFile(wheel)
    libraries = [name for name in archive.namelist() if name.endswith(".so")]
    assert libraries == [
        f"{folder}/_kernels.so"
        for folder in ("edgeprune_formats/coding", "edgeprune_runtime/decode", "edgeprune_runtime/networks")
    ]
    for name in libraries:
        found = re.findall(rb"GLIBC_(\d+)\.(\d+)", archive.read(name))
        assert found
        assert max((int(major), int(minor)) for major, minor in found) <= (2, 17)


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    command = [
        sys.executable,
        "-c",
        CHECK,
        str(site),
        "build",
        "digits",
        "--codec",
        "sparse-f32",
        "-o",
        "p.h5",
        "-q",
    ]
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.h5").stat().st_size > 13_000_000
