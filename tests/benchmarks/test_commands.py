import runpy
import subprocess
import sys

import pytest
from plain_commands import edgeprune


def test_bench_lists_the_benchmarks():
    done = edgeprune("bench", "--help")
    assert done.returncode == 0, done.stderr
    for name in ("storage", "time", "accuracy-per-byte", "install", "plots", "readme"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", ["storage", "time", "accuracy-per-byte"])
def test_each_new_benchmark_has_help_with_an_example(name):
    done = edgeprune("bench", name, "--help")
    assert f"Example:\n    edgeprune bench {name} --data" in done.stdout


@pytest.mark.slow
def test_the_module_is_the_same_command():
    command = [sys.executable, "-m", "edgeprune_benchmarks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "edgeprune bench storage --data" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["masks", "--mask-epochs", "0"], "--mask-epochs must be at least 1, not 0"),
        (["coresets", "--every", "41"], "--every is 41; it must be at least 1 and at most the epochs, 40"),
    ],
)
def test_what_the_library_names_is_said_in_the_flags_of_the_benchmark(
    monkeypatch, capsys, tmp_path, arguments, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["edgeprune_benchmarks", *arguments, "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("edgeprune_benchmarks", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().err) == (2, f"edgeprune: error: {said}\n")


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("imagecodecs", ["storage"]),
        ("zstandard", ["storage"]),
        ("torch", ["time", "--only", "decode", "--only", "epoch"]),
        ("imagecodecs", ["time", "--only", "loaders"]),
        ("torch", ["time", "--only", "memory", "--memory-backend", "torch"]),
        ("imagecodecs", ["accuracy-per-byte"]),
        ("torch", ["accuracy-per-byte"]),
    ],
)
def test_a_missing_package_is_one_line_before_anything_is_done(tmp_path, package, arguments):
    done = edgeprune("bench", *arguments, "--data", tmp_path, absent=[package], cwd=tmp_path)
    assert done.returncode == 2
    message = f"edgeprune: error: this benchmark needs {package}; pip install 'edgeprune[bench]'\n"
    assert done.stderr == message
    assert list(tmp_path.iterdir()) == []


def test_pictures_need_matplotlib(tmp_path):
    done = edgeprune("bench", "plots", absent=["matplotlib"], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edgeprune: error: this benchmark needs matplotlib;")


def test_missing_benchmarks_are_one_line():
    done = edgeprune("bench", "--help", absent=["edgeprune_benchmarks"])
    assert done.returncode == 2
    assert done.stderr.startswith("edgeprune: error: bench needs edgeprune_benchmarks; pip install")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_option_is_one_line(tmp_path):
    done = edgeprune("bench", "time", "--data", tmp_path, "--only", "nothing")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "bench time --help" in done.stderr


def test_installing_is_measured_in_a_checkout_only(tmp_path):
    done = edgeprune("bench", "install", cwd=tmp_path)
    assert done.returncode == 2
    expected = "installing is measured in a checkout: change to its folder, and run it again"
    assert done.stderr == f"edgeprune: error: {expected}\n"
    assert list(tmp_path.iterdir()) == []
