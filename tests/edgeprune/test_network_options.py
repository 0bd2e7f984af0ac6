"""Options that name networks and freeze parts of them."""

import json
import re

import own_networks
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from edgeprune.commands.training import train as train_command
from edgeprune_runtime.networks import code

SMALL = ["--batch-size", 8, "--device", "cpu", "--precision", "float32", "--epochs", 1]


@pytest.fixture(autouse=True)
def nothing_allowed():
    code.forget_code()
    yield
    code.forget_code()


@pytest.mark.slow
def test_code_of_a_run_is_named_again(edgeprune, pack, tmp_path, monkeypatch):
    run, name = tmp_path / "run", "own_networks:of_rgb"
    code_of_exit, out, err = edgeprune("train", pack, "--model", name, *SMALL, "-o", run)
    assert (code_of_exit, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"{run}/model.safetensors: {name}, 1 epoch")
    # As a process of its own, which has not named it.
    code.forget_code()
    called = []
    monkeypatch.setattr(own_networks, "of_rgb", lambda num_classes: called.append(num_classes))
    refused = [
        ("predict", run, pack),
        ("export", run, "-o", tmp_path / "a.onnx"),
        ("train", pack, "--model", "resnet8", *SMALL, "--teacher", run, "-o", tmp_path / "b"),
    ]
    for words in refused:
        status, out, err = edgeprune(*words)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert f"the network is built by code, {name}, which runs only where you name it" in err
        assert f"if you trust that code, pass --trust-model {name}" in err
    assert not called
    monkeypatch.undo()
    code.forget_code()
    status, out, _ = edgeprune("predict", run, pack, "--trust-model", name, "--json")
    assert status == 0
    assert len(out.splitlines()) == 40
    status, _, err = edgeprune("predict", run, pack, "--trust-model", "resnet8")
    assert status == 2
    assert "'resnet8' names no code, such as package.module:function" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg", "Invalid value for '--model': unknown model 'vgg'; choose one of shufflenet_v2"),
        ("torchvision:resnet19", "torchvision has no network 'resnet19'"),
        ("nowhere:net", "--model nowhere:net: there is no module nowhere; install it"),
        (
            "own_networks:raises",
            "--model own_networks:raises: building it raised ValueError: no weights for you",
        ),
        (
            "torchvision:alexnet",
            "--model torchvision:alexnet: does not take images of 3 x 16 x 16 (RuntimeErr",
        ),
    ],
)
def test_models_that_there_are_not(edgeprune, pack, tmp_path, name, message):
    status, out, err = edgeprune("train", pack, "--model", name, *SMALL, "-o", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_weights_of_torch_save_and_a_number_of_blocks(edgeprune, pack, tmp_path):
    torch.save({"state_dict": own_networks.Tiny(9, 3).state_dict()}, tmp_path / "w.pth")
    words = ["--model", "own_networks:of_rgb", "--init", tmp_path / "w.pth", *SMALL]
    status, _, err = edgeprune("train", pack, *words, "--freeze", 1, "-o", tmp_path / "run")
    assert status == 0
    assert err == "edgeprune: not of these weights, but fresh: head.weight, head.bias\n"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["freeze"] == 1
    given = torch.load(tmp_path / "w.pth", weights_only=True)["state_dict"]
    kept = load_file(tmp_path / "run" / "model.safetensors")
    changed = {n.partition(".")[0] for n in kept if not torch.equal(kept[n], given[n])}
    assert changed == {"head", "second"}
    status, _, err = edgeprune("train", pack, *words, "--freeze", 2, "-o", tmp_path / "b")
    assert status == 2
    assert (
        "--freeze 2 would freeze nothing: the network has 2 blocks; give fewer, or leave --freeze out" in err
    )


@pytest.mark.parametrize(
    ("words", "value", "rest"),
    [
        ([], False, ("p.h5",)),
        (["--freeze"], True, ("p.h5",)),
        (["--freeze", "3"], 3, ("p.h5",)),
        (["--freeze=2"], 2, ("p.h5",)),
        (["--freeze", "--init", "p.h5"], True, ("p.h5",)),
        # A word that is no number is not its value.
        (["--freeze", "p.h5"], True, ("p.h5", "p.h5")),
    ],
)
def test_an_option_alone_or_with_a_number(tmp_path, monkeypatch, words, value, rest):
    (tmp_path / "p.h5").touch()
    monkeypatch.chdir(tmp_path)
    context = train_command.command.make_context("train", ["p.h5", "-o", "run", *words])
    assert context.params["freeze"] == value
    assert type(context.params["freeze"]) is type(value)
    assert tuple(map(str, context.params["packs"])) == rest


def test_an_option_with_no_number():
    done = CliRunner().invoke(train_command.command, ["--freeze=few"])
    assert done.exit_code == 2
    assert "Invalid value for '--freeze': 'few' is no number" in done.output


@pytest.mark.slow
def test_the_cost_of_a_stem_is_told(edgeprune, pack, tmp_path):
    small = ["--batch-size", 32, "--device", "cpu", "--epochs", 1, "--precision", "float32"]
    for stem, told in {
        "auto": r"; stem small, with \d+ times the multiplications of --stem imagenet; ",
        "imagenet": "; stem imagenet; ",
    }.items():
        words = ["--model", "shufflenet_v2", "--stem", stem, *small, "-o", tmp_path / stem]
        status, out, err = edgeprune("train", pack, *words)
        assert (status, err) == (0, "")
        assert re.search(told, out.splitlines()[0])
    assert edgeprune("predict", tmp_path / "imagenet", pack)[0] == 0
