import importlib.util
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import exported_models
import forked
import numpy as np
import onnx
import pytest
import torch

from edgeprune.cli import cli
from edgeprune_formats import open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.onnx.session import open_onnx

FLOWER = all(importlib.util.find_spec(name) for name in ("flwr", "ray"))
EXAMPLES = Path(__file__).parents[1] / "examples"
JAVASCRIPT = EXAMPLES / "javascript"
INSTALLED = (JAVASCRIPT / "node_modules").exists() and shutil.which("node")


@pytest.mark.slow
def test_the_training_loop_runs_and_goes_on_where_it_stopped(make_pack, tmp_path):
    path, _ = make_pack(samples=66, size=(16, 16), components=50)
    lines = go_on(path, tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    state = json.loads((tmp_path / "position.json").read_text())
    (tmp_path / "position.json").write_text(json.dumps({**state, "epoch": 2, "batch": 1}))
    assert go_on(path, tmp_path).startswith("epoch 3: loss ")
    # As it was saved after the last of an epoch's two batches, by this version and by earlier ones.
    for position in ({"epoch": 2, "batch": 0}, {"epoch": 1, "batch": 2}):
        (tmp_path / "position.json").write_text(json.dumps({**state, **position}))
        said = go_on(path, tmp_path)
        assert said.startswith("epoch 3: loss ")
        assert said.count("\n") == 1


def go_on(path, folder):
    """Run the training loop in a folder that has what an earlier run saved; give what it says."""
    with forked.Forked(partial(train_loop, path, folder)) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def train_loop(path, folder):
    os.chdir(folder)
    sys.argv = ["train_loop.py", str(path)]
    runpy.run_path(str(EXAMPLES / "train_loop.py"), run_name="__main__")


@pytest.mark.slow
@pytest.mark.skipif(not FLOWER, reason="flwr[simulation] is not installed")
def test_a_simulated_fleet_learns(tmp_path):
    length = ["--rounds", "3", "--epochs", "2", "--devices", "2", "--by", "class"]
    command = [sys.executable, str(EXAMPLES / "flower" / "simulate.py"), "digits", *length]
    output = tmp_path / "fleet.json"
    subprocess.run(
        [*command, "--output", str(output)], cwd=tmp_path, capture_output=True, check=True, timeout=500
    )
    results = json.loads(output.read_text())["results"]
    assert len(results["class"]["by_round"]) == 4
    assert results["class"]["accuracy"] > max(results["class"]["alone"])
    assert results["central"]["accuracy"] > results["class"]["accuracy"]


@pytest.fixture
def learning(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "flower")
    yield importlib.import_module("learning")
    sys.modules.pop("learning")


@pytest.mark.parametrize("samples", [1, 5, 31, 33])
def test_a_device_of_the_fleet_learns_from_however_few_images(learning, make_pack, samples):
    path, _ = make_pack(samples=samples, size=(8, 8), components=20)
    network = learning.new_network(open_pack(path).header)
    before = [parameter.clone() for parameter in network.parameters()]
    assert learning.train(network, path, rounds=[0], of=2, epochs=1) > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_a_fleet_of_gray_packs_has_a_network_for_them(learning, make_pack):
    header = open_pack(make_pack(samples=2, size=(8, 8), components=20)[0]).header
    gray = replace(header, channels=1, mean=header.mean[:1], std=header.std[:1], color_space="gray")
    assert learning.new_network(gray)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="examples/javascript/node_modules is not there: npm install")
def test_javascript_gives_the_logits_of_python(make_pack, tmp_path, tmp_path_factory):
    path, _ = make_pack(samples=20, size=(16, 16), components=50)
    _, graph = exported_models.exported(tmp_path_factory)
    onnx.save(graph, tmp_path / "model.onnx")
    command = ["node", "predict.mjs", str(tmp_path / "model.onnx"), str(path), "18"]
    done = subprocess.run(command, cwd=JAVASCRIPT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["row"] for line in lines] == list(range(18))
    pixels = np.concatenate([images for images, _ in PackLoader(path, 16, backend="scipy")])[:18]
    # The reader in JavaScript clips pixels.
    wanted = open_onnx(tmp_path / "model.onnx").logits(pixels.clip(0, 1))
    np.testing.assert_allclose([line["logits"] for line in lines], wanted, atol=1e-4)
    names = ("cat", "dog", "bird")
    assert [line["predicted"] for line in lines] == [names[best] for best in wanted.argmax(1)]
    assert [line["label"] for line in lines] == [names[label] for label in open_pack(path).labels[:18]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["build-and-look", "train-evaluate-export"])
def test_a_notebook_runs_from_its_first_cell_to_its_last(name, tmp_path):
    notebook = json.loads((EXAMPLES / "notebooks" / f"{name}.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []
    install, *rest = ["".join(cell["source"]) for cell in cells]
    assert install.startswith("%pip install ")
    with forked.Forked(partial(notebook_cells, rest, tmp_path)) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err


def notebook_cells(cells, folder):
    """Run cells as Jupyter does, of whose commands they have ``!edgeprune`` alone."""
    os.chdir(folder)
    names = {}
    for cell in cells:
        if cell.startswith("!"):
            program, *arguments = shlex.split(cell[1:])
            assert program == "edgeprune"
            cli(arguments, standalone_mode=False)
        else:
            exec(cell, names)
