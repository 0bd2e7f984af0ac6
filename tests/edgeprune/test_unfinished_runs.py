"""Runs that are not finished: their networks, and which they are."""

import json
import shutil

import exported_models
import numpy as np
import pytest
import torch

from edgeprune.inference.export import ExportConfig, export_run
from edgeprune.inference.prediction import predict
from edgeprune.inference.predictors import open_predictor
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint, read_state, save_checkpoint
from edgeprune_runtime.training.run_folder.unfinished import open_run_network


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    """A copy of a run of 12 epochs, whose last checkpoint is that of its end."""
    shutil.copytree(exported_models.trained(tmp_path_factory) / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_says_nothing(run, capsys):
    assert open_run_network(run).stage is None
    open_predictor(run, print)
    assert capsys.readouterr().out == ""


def test_the_last_checkpoint_is_taken_and_named(run, tmp_path_factory, edgeprune):
    trained = load_trained(run)
    (run / "model.safetensors").unlink()
    network = open_run_network(run)
    assert network.stage == "the last checkpoint, after 12 of 12 epochs"
    assert (network.class_names, network.mean) == (trained.class_names, trained.mean)
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, network.model.state_dict()[name])
    newest = max(run.glob("checkpoint-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    before = sorted(run.iterdir())
    assert open_run_network(run).stage == "the last checkpoint, after 11 of 12 epochs"
    # It may be another process's.
    assert sorted(run.iterdir()) == before
    pack = exported_models.trained(tmp_path_factory) / "pack.h5"
    code, out, err = edgeprune("predict", run, pack, "--top", 1)
    assert (code, err) == (0, f"edgeprune: {run}: the last checkpoint, after 11 of 12 epochs\n")
    assert len(out.splitlines()) == len(list(predict(open_predictor(run), [pack])))


@pytest.mark.slow
def test_it_is_exported(run, edgeprune, tmp_path):
    (run / "model.safetensors").unlink()
    code, out, err = edgeprune("export", run, "-o", tmp_path / "m.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "  the last checkpoint, after 12 of 12 epochs"
    shutil.rmtree(run)
    run.mkdir()
    with pytest.raises(TrainingError, match="no trained model"):
        export_run(run, tmp_path / "n.onnx", ExportConfig())


def test_the_moving_average_is_what_is_taken(run):
    (run / "model.safetensors").unlink()
    tensors = load_checkpoint(run).tensors
    averages = {
        name.replace("model.", "average."): t / 2 if t.is_floating_point() else t.clone()
        for name, t in tensors.items()
    }
    state = read_state(run)
    state["tally"] |= {"steps": 3, "images": 48}
    state["history"].pop()
    save_checkpoint(run, tensors | averages, state)
    network = open_run_network(run)
    assert network.stage == "the last checkpoint, after 11 of 12 epochs and 3 of 6 steps"
    assert torch.equal(network.model.state_dict()["fc.weight"], tensors["model.fc.weight"] / 2)


@pytest.mark.parametrize("change", [{"config": {}}, {"num_classes": 5}, {"image_shape": [3, 0, 1]}])
def test_a_record_that_does_not_fit_is_one_line(run, edgeprune, change, npz):
    (run / "model.safetensors").unlink()
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | change))
    code, out, err = edgeprune("predict", run, npz)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "its checkpoint is no network of its record" in err


def test_a_finished_run_that_goes_on_says_which_end_it_is(run):
    state = json.loads((run / "config.json").read_text())
    state["config"]["epochs"] = 20
    (run / "config.json").write_text(json.dumps(state | {"schedules": [12, 20]}))
    stage = open_run_network(run).stage
    assert stage == "of a run that now goes on to epoch 20, as it was finished before"
    assert np.isfinite(open_run_network(run).mean).all()
