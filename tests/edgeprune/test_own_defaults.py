"""Settings that a network brings with it, by command: given ones count, and a resumed run has its own."""

import json

import pytest

from edgeprune_runtime.training import defaults_of


@pytest.fixture
def pack(edgeprune, npz, tmp_path):
    assert edgeprune("build", npz, "-o", tmp_path / "p.h5", "-q")[0] == 0
    return tmp_path / "p.h5"


def record(folder):
    found = json.loads((folder / "config.json").read_text())
    return {**found["config"], "augment": found["provenance"]["augment"]}


def test_the_settings_of_a_network(edgeprune, pack, npz, tmp_path):
    run, given = tmp_path / "run", {"epochs": 1, "batch_size": 20, "momentum": 0.9}
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    words = ["train", pack, "-o", run, "--device", "cpu", "--threads", 1]
    code, out, err = edgeprune(*words, "--model", "resnet9", *options)
    assert code == 0, err
    assert "batches of 20;" in out
    own = {**defaults_of("resnet9"), **given}
    assert {name: record(run)[name] for name in own} == own
    code, out, err = edgeprune(*words, "--resume", "--epochs", 2)
    assert code == 0, err
    assert "epoch   2/2" in out
    assert {name: record(run)[name] for name in own} == {**own, "epochs": 2}
    code, _, err = edgeprune(*words[:3], tmp_path / "warm", "--model", "resnet9", "--init", run, *options)
    assert code == 0, err
    warm = record(tmp_path / "warm")
    assert (warm["optimizer"], warm["augment"], warm["lr"]) == ("sgd", "crop+flip", 0.05)
    code, plain, err = edgeprune("evaluate", run, npz)
    assert code == 0, err
    code, out, err = edgeprune("evaluate", run, npz, "--tta", "flip", "--json", tmp_path / "e.json")
    assert code == 0, err
    assert out.startswith("10 images and mirrored: accuracy ")
    assert out.splitlines()[0].split("entropy")[1] != plain.splitlines()[0].split("entropy")[1]
    assert json.loads((tmp_path / "e.json").read_text())["tta"] == "flip"
