"""Checkpoints and networks that follow every checksum, and are not what a run writes."""

import json
import math
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import TINY, metrics, run

from edgeprune_formats import EdgePruneError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = replace(TINY, model="resnet8", epochs=3)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that stopped after an epoch and two of four steps."""
    folder = tmp_path_factory.mktemp("stopped") / "run"

    def stop(epoch, batch):
        if (epoch, batch) == (1, 1):
            os.kill(os.getpid(), 15)

    with pytest.raises(TrainingInterrupted):
        run(folder, CONFIG, on_batch=stop)
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def forge(folder, change_state=lambda state: None, change_tensors=lambda tensors: None):
    checkpoint = load_checkpoint(folder)
    change_state(checkpoint.state)
    change_tensors(checkpoint.tensors)
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    save_checkpoint(folder, checkpoint.tensors, checkpoint.state)


def test_without_a_change_it_goes_on(folder):
    forge(folder)
    run(folder, CONFIG, resume=True)
    assert len(metrics(folder)) == 3


STATES = {
    "step as text": lambda state: state.update(step="6"),
    "step negative": lambda state: state.update(step=-2),
    "step huge": lambda state: state.update(step=2**62),
    "step of another epoch": lambda state: state.update(step=2),
    "step as float": lambda state: state.update(step=6.0),
    "step as bool": lambda state: state.update(step=True),
    "a name that clears the screen": lambda state: state.update({"\x1b[2J": 1}),
    "a name without end": lambda state: state.update({"a" * 5000: 1}),
    "step missing": lambda state: state.pop("step"),
    "something unknown": lambda state: state.update(other=1),
    "tally missing": lambda state: state.pop("tally"),
    "tally a list": lambda state: state.update(tally=[]),
    "tally of negative images": lambda state: state["tally"].update(images=-1),
    "tally of more steps than an epoch has": lambda state: (
        state["tally"].update(steps=5),
        state.update(step=9),
    ),
    "tally of fewer images than steps": lambda state: state["tally"].update(images=0),
    "tally of time that runs back": lambda state: state["tally"].update(seconds=-1.0),
    "loss as text": lambda state: state["tally"].update(loss="0"),
    "history an object": lambda state: state.update(history={}),
    "history of numbers": lambda state: state.update(history=[1]),
    "history too long": lambda state: state.update(history=state["history"] * 4),
    "history with text": lambda state: state["history"][0].update(train_loss="low"),
    "history of no loss": lambda state: state["history"][0].update(train_loss=None),
    "history of no time": lambda state: state["history"][0].update(seconds=None),
    "history without a loss": lambda state: state["history"][0].pop("train_loss"),
    "history of another epoch": lambda state: state["history"][0].update(epoch=2),
    "loader a number": lambda state: state.update(loader=7),
    "loader without a place": lambda state: state.update(loader={}),
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_forged_states_are_refused_in_one_line(folder, change):
    forge(folder, change)
    with pytest.raises(
        TrainingError, match=r"run: the checkpoint is not one of this run: .*another folder"
    ) as caught:
        run(folder, CONFIG, resume=True)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_number_beyond_double_precision_is_refused_as_it_is_read(folder):
    forge(folder, lambda state: state.update(step=10**400))
    with pytest.raises(
        TrainingError, match=r"the checkpoint cannot be read .*a number is too large"
    ) as caught:
        run(folder, CONFIG, resume=True)
    assert str(caught.value).isprintable()


def first(tensors, start, dtype=torch.float32):
    return next(name for name in tensors if name.startswith(start) and tensors[name].dtype == dtype)


def swapped(start, make):
    def change(tensors):
        name = first(tensors, start)
        tensors[name] = make(tensors[name])

    return change


TENSORS = {
    "a weight of NaN": swapped("model.", lambda t: torch.full_like(t, math.nan)),
    "an infinite momentum": swapped("momentum.", lambda t: torch.full_like(t, math.inf)),
    "an average in half precision": swapped("average.", lambda t: t.half()),
    "a weight of integers": swapped("model.", lambda t: t.int()),
    "a weight of another shape": swapped("model.", lambda t: t[:1].clone()),
    "a momentum of another shape": swapped("momentum.", lambda t: t[None].clone()),
    "a weight missing": lambda tensors: tensors.pop(first(tensors, "model.")),
    "an average missing": lambda tensors: tensors.pop(first(tensors, "average.")),
    "the random state missing": lambda tensors: tensors.pop("random.cpu"),
    "the random state short": lambda tensors: tensors.update(
        {"random.cpu": tensors["random.cpu"][:9].clone()}
    ),
    "a weight unknown": lambda tensors: tensors.update({"model.other": torch.zeros(1)}),
    "a name that clears the screen": lambda tensors: tensors.update({"model.\x1b[2J": torch.zeros(1)}),
    "a momentum unknown": lambda tensors: tensors.update({"momentum.other": torch.zeros(1)}),
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_forged_tensors_are_refused_in_one_line(folder, change):
    forge(folder, change_tensors=change)
    with pytest.raises(
        TrainingError, match=r"the checkpoint (does not fit the model|cannot be read)"
    ) as caught:
        run(folder, CONFIG, resume=True)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["config.json", "checkpoint-0002.json", "checkpoint-0002.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_never_waited_for(folder, name, kind):
    for path in folder.glob("checkpoint-*"):
        number = "0002" if path.stem == max(p.stem for p in folder.glob("checkpoint-*")) else None
        path.rename(path.with_name(f"checkpoint-{number}{path.suffix}")) if number else path.unlink()
    (folder / name).unlink()
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).mkdir()
    with pytest.raises(EdgePruneError, match=r"run.*cannot be read") as caught:
        run(folder, CONFIG, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"config": []}', '{"config": {}, "notes": 3}', "[" * 99_999, ""]
)
def test_a_forged_description_of_a_run(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(EdgePruneError, match="run") as caught:
        run(folder, CONFIG, resume=True)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder, replace(CONFIG, epochs=1))
    return folder / "model.safetensors"


def network(facts=None, change=lambda tensors: None):
    def write(finished, path):
        tensors = load_file(finished)
        change(tensors)
        known = {"model": "resnet8", "num_classes": 4, "image_shape": [3, 16, 16]}
        text = facts if isinstance(facts, str) else json.dumps({**known, **(facts or {})})
        save_file(tensors, path, {"edgeprune": text})

    return write


def spoil(make):
    def change(tensors):
        name = first(tensors, "")
        tensors[name] = make(tensors[name])

    return change


NETWORKS = {
    "a weight of NaN": network(change=spoil(lambda t: torch.full_like(t, math.nan))),
    "half precision": network(change=spoil(lambda t: t.half())),
    "a shape of text": network({"image_shape": "3xx"}),
    "a shape of texts": network({"image_shape": ["3", "16", "16"]}),
    "a shape of two": network({"image_shape": [16, 16]}),
    "one channel": network({"image_shape": [1, 16, 16]}),
    "many channels": network({"image_shape": [128, 16, 16]}),
    "a name that clears the screen": network({"\x1b[2J": 1}),
    "a name without end": network({"a" * 5000: 1}),
    "an unknown network without end": network({"model": "a" * 5000}),
    "no pixels": network({"image_shape": [3, 0, 16]}),
    "pixels without end": network({"image_shape": [3, 10**9, 16]}),
    "another number of classes": network({"num_classes": 5}),
    "no classes": network({"num_classes": 0}),
    "classes without end": network({"num_classes": 10**12}),
    "classes as text": network({"num_classes": "4"}),
    "an unknown network": network({"model": "resnet8\n"}),
    "a network of no text": network({"model": ["resnet8"]}),
    "names that are no texts": network({"class_names": [1, 2, 3, 4]}),
    "a mean of text": network({"mean": "0.5", "std": [1, 1, 1]}),
    "a mean of NaN": network(
        '{"model": "resnet8", "num_classes": 4, "image_shape": [3, 16, 16], "mean": [NaN]}'
    ),
    "a name twice": network('{"model": "resnet8", "model": "resnet8"}'),
    "nested without end": network("[" * 99_999),
    "no object": network("[]"),
}


@pytest.mark.parametrize("write", NETWORKS.values(), ids=NETWORKS)
def test_forged_networks_are_refused_in_one_line(finished, tmp_path, write):
    write(finished, tmp_path / "model.safetensors")
    with pytest.raises(TrainingError, match=r"model.safetensors: not a model of a run, or damaged") as caught:
        load_trained(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_the_same_network_unchanged_is_read(finished, tmp_path):
    network()(finished, tmp_path / "model.safetensors")
    assert load_trained(tmp_path).num_classes == 4


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_network_that_is_no_file(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(TrainingError, match="not a regular file"):
        load_trained(tmp_path)
