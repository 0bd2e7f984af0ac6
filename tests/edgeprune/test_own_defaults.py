"""Settings that a network brings with it, by command: given ones count, and a resumed run has its own."""

import json

import click
import pytest

from edgeprune.commands.training.train import _config, command
from edgeprune_runtime.training import defaults_of


@pytest.fixture
def pack(edgeprune, npz, tmp_path):
    assert edgeprune("build", npz, "-o", tmp_path / "p.h5", "-q")[0] == 0
    return tmp_path / "p.h5"


def record(folder):
    found = json.loads((folder / "config.json").read_text())
    return {**found["config"], "augment": found["provenance"]["augment"]}


@pytest.mark.slow
def test_the_settings_of_a_network(edgeprune, pack, npz, tmp_path):
    run, given = tmp_path / "run", {"epochs": 1, "batch_size": 20, "momentum": 0.9}
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    words = ["train", pack, "-o", run, "--device", "cpu", "--threads", 1]
    code, out, err = edgeprune(*words, "--model", "resnet9", *options)
    assert code == 0, err
    assert "batches of 20, 2 steps an epoch;" in out
    own = {**defaults_of("resnet9"), **given}
    assert {name: record(run)[name] for name in own} == own
    code, out, err = edgeprune(*words, "--resume", "--epochs", 2)
    assert code == 0, err
    assert "epoch   2/2" in out
    assert {name: record(run)[name] for name in own} == {**own, "epochs": 2}
    code, _, err = edgeprune(*words[:3], tmp_path / "warm", "--model", "resnet9", "--init", run, *options)
    assert code == 0, err
    warm = record(tmp_path / "warm")
    assert (warm["optimizer"], warm["augment"], warm["lr"]) == ("sgd", "crop+flip", 0.01976)
    code, plain, err = edgeprune("evaluate", run, npz)
    assert code == 0, err
    code, out, err = edgeprune("evaluate", run, npz, "--tta", "flip", "--json", tmp_path / "e.json")
    assert code == 0, err
    assert out.startswith("10 images and mirrored: accuracy ")
    assert out.splitlines()[0].split("entropy")[1] != plain.splitlines()[0].split("entropy")[1]
    assert json.loads((tmp_path / "e.json").read_text())["tta"] == "flip"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """What `edgeprune train` takes for the words of a user; nothing is trained."""
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: ctx.params)
    (tmp_path / "p.h5").touch()

    def of(*words):
        words = [str(tmp_path / "p.h5"), "-o", str(tmp_path / "run"), *map(str, words)]
        with command.make_context("train", words) as context:
            params = command.invoke(context)
            return _config(params.pop("batch_size"), params)

    return of


def test_smoothing_is_for_labels(settings, tmp_path):
    own = ["--model", "resnet9"]
    assert settings(*own).label_smoothing == 0.2
    for other in (["--teacher", tmp_path], ["--target", "weight"]):
        found = settings(*own, *other)
        assert (found.label_smoothing, found.optimizer) == (0.0, "muon")
        assert settings(*own, *other, "--label-smoothing", 0.1).label_smoothing == 0.1
    assert settings(*own, "--distill", 1).label_smoothing == 0.0
    assert settings(*own, "--distill", 0.9).label_smoothing == 0.2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--model", "resnet20", "--stem", "small"],
            "--stem small has no effect: resnet20 has one",
        ),
        (["--distill", 1, "--label-smoothing", 0.1], "--label-smoothing has no effect beside --distill 1"),
    ],
)
def test_options_without_effect_are_refused(edgeprune, tmp_path, words, told):
    (tmp_path / "p.h5").touch()
    code, _, err = edgeprune("train", tmp_path / "p.h5", "-o", tmp_path / "run", *words)
    assert (code, told in err) == (2, True), err


@pytest.mark.parametrize(("batch", "lr"), [(8, 0.0125), (32, 0.025), (64, 0.03536), (128, 0.05), (512, 0.05)])
def test_the_learning_rate_goes_with_the_batch(settings, tmp_path, batch, lr):
    words = ["--model", "mobilenet_v2", "--batch-size", batch]
    assert settings(*words).lr == settings(*words, "--init", tmp_path).lr == lr
    assert settings(*words, "--lr", 0.3).lr == 0.3
    assert settings("--model", "resnet9", "--batch-size", batch).lr == 0.45
    assert settings("--resume", *words).lr == lr
    # A run of before there was a rule goes on with what it has.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"config": {"batch_size": batch, "lr": 0.05}}))
    assert (settings("--resume").lr, settings("--resume").batch_size) == (0.05, batch)
    assert settings("--resume", "--batch-size", "auto").lr == 0.05


@pytest.mark.parametrize("batch", [0, -3, "9" * 400])
def test_a_batch_that_is_none_is_refused_as_such(edgeprune, pack, tmp_path, batch):
    code, _, err = edgeprune(
        "train", pack, "-o", tmp_path / "run", "--model", "resnet8", "--batch-size", batch
    )
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "--batch-size is " in err
    assert not (tmp_path / "run").exists()


def test_batches_in_chosen_parts_are_as_large_as_others(settings, tmp_path):
    auto = ["--model", "resnet9", "--batch-size", "auto"]
    assert (settings(*auto).batch_size, settings(*auto).lr) == (500, 0.45)
    assert settings("--batch-size", "auto").lr == 0.05
    assert settings(*auto, "--init", tmp_path).batch_size == 128
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({"config": {"model": "resnet9", "batch_size": 64}})
    )
    assert settings(*auto, "--resume").batch_size == 64
