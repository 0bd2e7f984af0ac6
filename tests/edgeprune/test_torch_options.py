"""What commands that compute with torch share."""

import importlib

import pytest
import torch

from edgeprune.options import torch as torch_options
from edgeprune_formats import ConfigError


def test_a_torch_that_cannot_be_loaded(monkeypatch):
    def fail(name):
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr(torch_options.importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"failed to map segment .*; reinstall it, or allow more"):
        torch_options.require_torch()


@pytest.mark.parametrize(
    "words",
    [
        ("score", "digits"),
        ("build", "digits", "--method", "lf"),
        ("build", "digits", "--teacher", "."),
    ],
)
def test_commands_say_that_torch_cannot_be_loaded(edgeprune, monkeypatch, tmp_path, words):
    def fail(name, *rest):
        if name == "torch":
            raise ImportError("libcudart.so.12: cannot open shared object file")
        return import_module(name, *rest)

    import_module = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", fail)
    code, out, err = edgeprune(*words, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err == (
        "edgeprune: error: torch cannot be loaded (libcudart.so.12: cannot open shared object file); "
        "reinstall it, or allow more memory\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("free", "threads"), [(0.1, 1), (2.2, 2), (3.9, 4), (None, 4)])
def test_processors_that_others_hold_are_left_to_them(monkeypatch, capsys, free, threads):
    chosen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr("edgeprune_runtime.system.machine.cpu_quota", lambda: 8)
    monkeypatch.setattr("edgeprune_runtime.system.machine.free_processors", lambda: free)
    torch_options.choose_threads(None)
    err = capsys.readouterr().err
    assert chosen == [threads]
    assert (f"computing in {threads} thread" in err) == (threads < 4)
    torch_options.choose_threads(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    torch_options.choose_threads(None)
    assert chosen[1:] == [3, 4]
    assert capsys.readouterr().err == ""
