import importlib.util
import json
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import forked
import pytest
import torch

FLOWER = all(importlib.util.find_spec(name) for name in ("flwr", "ray"))
EXAMPLES = Path(__file__).parents[1] / "examples"


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
    network = learning.new_network(3, 8)
    before = [parameter.clone() for parameter in network.parameters()]
    assert learning.train(network, path, rounds=[0], of=2, epochs=1) > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
