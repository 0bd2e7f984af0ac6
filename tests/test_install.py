"""The wheel: what is in it, what works without torch, and that a torch which is there already stays."""

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import numpy as np
import pytest
from environments import Environment, empty_wheel, needed

from edgeprune_formats import open_pack

pytestmark = pytest.mark.slow

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

DECODE = """
import sys
from edgeprune_runtime import PackLoader
for backend in sys.argv[2:]:
    images, labels = next(iter(PackLoader(sys.argv[1], 4, backend=backend, normalize=True)))
    print(backend, type(images).__module__, images.shape, images.dtype, labels.dtype)
assert "torch" not in sys.modules
"""
# As NVIDIA numbers the wheels for JetPack; the registry's torch is newer.
JETPACK_TORCH, JETPACK_TORCHVISION = "2.6.0a0+ecf3bae40a.nv25.01", "0.21.0a0+6843cb7"
NEWER_TORCH, NEWER_TORCHVISION = "2.99.0", "0.99.0"
BASE = ("numpy", "scipy", "h5py", "click", "pillow", "tqdm")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sdist, and the wheel that is made from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_holds_the_four_packages_and_nothing_else(built, wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert "edgeprune_formats/codecs/sparse_f32.py" in names
    assert {f"edgeprune/report/templates/report.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)
    assert len(list(built.glob("*.tar.gz"))) == 1


def test_the_kernels_are_for_any_python_3_and_for_glibc_2_17(wheel):
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


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    np.savez(tmp_path / "images.npz", x=np.zeros((6, 16, 16, 3), np.uint8), y=np.arange(6) % 3)
    arguments = ["build", "npz:images.npz", "--codec", "sparse-f32", "-o", "p.h5", "-q"]
    command = [sys.executable, "-c", CHECK, str(site), *arguments]
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(open_pack(tmp_path / "p.h5")) == 6


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """An environment of the wheel and what it depends on, without torch."""
    environment = Environment(tmp_path_factory.mktemp("bare") / "env")
    done = environment.pip("--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    (info,) = environment.site.glob("edgeprune-*.dist-info")
    environment.link(*needed(PathDistribution(info)))
    return environment


def test_the_plain_install_depends_on_six_packages_and_not_on_torch(bare):
    assert set(bare.installed()) == {"edgeprune", *BASE}
    for absent in ("torch", "torchvision", "safetensors", "sklearn", "pytest"):
        done = bare.run("-c", f"import {absent}")
        assert f"No module named '{absent}'" in done.stderr


def test_commands_of_a_plain_install(bare, make_pack, tmp_path):
    path, _ = make_pack(samples=9)
    for command, told in {
        ("info", path): "9 of 3x32x32",
        ("verify", path): "every checksum matches",
        ("preview", path, "-o", tmp_path / "grid.png"): "grid.png: 8 images",
    }.items():
        done = bare.run("edgeprune", *command)
        assert (done.returncode, done.stderr) == (0, "")
        assert told in done.stdout
    done = bare.run("edgeprune", "train", path, "-o", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("edgeprune: error: training needs torch; pip install")


def test_decoding_to_numpy_in_a_plain_install(bare, make_pack):
    path, _ = make_pack(samples=9)
    done = bare.run("-c", DECODE, path, "auto", "scipy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{backend} numpy (4, 3, 32, 32) float32 int64" for backend in ("auto", "scipy")
    ]


def test_bench_time_in_a_plain_install_runs_what_it_can(bare, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    labels = np.arange(24) % 3
    arrays = {"x_train": pixels.astype(np.uint8), "y_train": labels}
    np.savez(tmp_path / "cifar10-lossless-6k.npz", **arrays, x_test=arrays["x_train"], y_test=labels)
    options = ["--only", "decode", "--rounds", "1", "--data", tmp_path, "-o", tmp_path]
    done = bare.run("edgeprune", "bench", "time", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "224x224: left out, imagenet-sample.zip is not in the data" in done.stdout
    record = json.loads((tmp_path / "time-decode.json").read_text())
    assert "torch" not in record["versions"]
    for row in record["results"]["rows"]:
        assert {"raw", "Pillow", "sparse-f32, scipy, from chunks"} <= set(row["images_per_second"])
        assert row["absent"]["simplejpeg"] == "not installed (simplejpeg)"
        assert "needs torch" in row["absent"]["quantized, torch, in memory"]
        assert row["jpeg"]["quantized"]["encoder"] == "Pillow"
    assert "torchvision.io                       left out: not installed" in done.stdout


def test_bench_time_without_only_names_the_parts_it_leaves_out(bare, tmp_path):
    done = bare.run("edgeprune", "bench", "time", "--data", tmp_path, "-o", tmp_path / "out", cwd=tmp_path)
    # The data is not there either, hence nothing is measured.
    assert done.returncode != 0
    assert "epoch: left out, because it needs torch; pip install 'edgeprune[bench]'\n" in done.stdout
    assert "loaders: left out, because it needs torch, torchvision, imagecodecs;" in done.stdout
    assert "decode: left out" not in done.stdout


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A folder in place of a registry: newer releases of all that any extra asks for."""
    folder = tmp_path_factory.mktemp("registry")
    empty_wheel(folder, "torch", NEWER_TORCH)
    empty_wheel(folder, "torchvision", NEWER_TORCHVISION, [f"torch=={NEWER_TORCH}"])
    for name in (*BASE, *OTHERS):
        # Years, so that no minimum asks for more.
        empty_wheel(folder, name, "2099.1")
    return folder


OTHERS = (
    *("safetensors", "scikit-learn", "isal", "onnx", "onnxruntime", "imagecodecs", "matplotlib"),
    *("captum", "cryptography", "onnxscript", "pyautoattack", "simplejpeg", "zstandard", "tensorboard"),
    *("pyarrow", "braceexpand", "timm", "jinja2", "fsspec", "aiohttp"),
)


@pytest.fixture
def device(registry, tmp_path):
    """Make an environment with JetPack's torch, and its torchvision if wanted."""

    def make(torch=JETPACK_TORCH, torchvision=JETPACK_TORCHVISION):
        environment = Environment(tmp_path / "device")
        wheels = [empty_wheel(tmp_path, "torch", torch)]
        if torchvision:
            wheels.append(empty_wheel(tmp_path, "torchvision", torchvision, ["torch"]))
        for one in wheels:
            environment.unpack(one)
        return environment

    return make


def installs(environment, registry, requirement, *options):
    """Return what pip would install, by name, or None where it refuses."""
    report = registry.parent / "report.json"
    arguments = ["--dry-run", "--quiet", "--report", report, "--find-links", registry, *options]
    done = environment.pip(*arguments, requirement)
    if done.returncode:
        assert "ResolutionImpossible" in done.stderr or "conflict" in done.stderr, done.stderr
        return None
    found = json.loads(report.read_text())["install"]
    return {one["metadata"]["name"]: one["metadata"]["version"] for one in found}


# Older than what training takes, and newer.
@pytest.mark.parametrize("torch", ["2.5.0a0+872d972e41.nv24.08", "2.9.0"])
def test_nothing_that_a_device_needs_touches_torch(device, registry, wheel, torch):
    found = installs(device(torch, None), registry, f"{wheel}[device,fast,onnx]")
    assert {"edgeprune", "safetensors", *BASE} <= set(found)
    assert not {"torch", "torchvision"} & set(found)


# JetPack's is installed for real below.
@pytest.mark.parametrize("torch", ["2.6.0rc1", "2.9.0"])
def test_a_torch_with_its_torchvision_stays_with_every_extra(device, registry, wheel, torch):
    found = installs(device(torch), registry, f"{wheel}[all]")
    assert "safetensors" in found
    assert not {"torch", "torchvision"} & set(found)


def test_a_constraint_stops_pip_where_it_would_replace_torch(device, registry, wheel, tmp_path):
    # The registry's torchvision wants exactly the registry's torch.
    environment = device(torchvision=None)
    assert installs(environment, registry, f"{wheel}[torch]")["torch"] == NEWER_TORCH
    constraint = tmp_path / "keep.txt"
    constraint.write_text(f"torch=={environment.installed()['torch']}\n")
    assert installs(environment, registry, f"{wheel}[torch]", "-c", constraint) is None
    assert "torch" not in installs(environment, registry, f"{wheel}[device]", "-c", constraint)


def test_installing_for_real_keeps_the_torch_that_is_there(device, registry, wheel):
    environment = device()
    done = environment.pip("--find-links", registry, f"{wheel}[all]")
    assert done.returncode == 0, done.stderr
    found = environment.installed()
    assert found["torch"] == JETPACK_TORCH
    assert found["torchvision"] == JETPACK_TORCHVISION
    assert found["scikit-learn"] == "2099.1"
