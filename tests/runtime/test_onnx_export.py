import json
from dataclasses import replace

import exported_models
import numpy as np
import onnx
import pytest
import torch
from exported_models import MEAN, NAMES, STD, finished_run

from edgeprune_formats import ConfigError, PackWriteError, __version__
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.models import MODEL_NAMES
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.onnx.check import check_export, check_structure, write_model
from edgeprune_runtime.onnx.export import export_network
from edgeprune_runtime.onnx.runtimes import IR_VERSION, OPSET
from edgeprune_runtime.onnx.session import start_session
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def exported(tmp_path_factory):
    return exported_models.exported(tmp_path_factory)


def logits(model, images):
    return start_session(model.SerializeToString()).run(None, {"images": images})[0]


def expected(network, images):
    """What the network gives for images that are normalized here, not by code under test."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return network.model(torch.from_numpy((images - mean) / std)).numpy()


@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_the_graph_takes_images_on_0_to_1_in_any_number(exported, count):
    network, model = exported
    images = exported_models.images(count)
    found, wanted = logits(model, images), expected(network, images)
    assert found.shape == (count, 3)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_batch_norms_are_folded_and_nothing_of_the_exporter_is_left(exported):
    _, model = exported
    assert {node.op_type for node in model.graph.node} & {
        "BatchNormalization",
        "Constant",
        "Identity",
    } == set()
    assert not model.functions
    text = str(model)
    assert "stack_trace" not in text
    assert ".py" not in text


def test_versions_and_metadata(exported):
    _, model = exported
    check_structure(model)
    assert model.ir_version == IR_VERSION
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["edgeprune"] == __version__
    assert (facts["model"], facts["precision"]) == ("resnet8", "float32")
    assert tuple(json.loads(facts["class_names"])) == NAMES
    assert json.loads(facts["image_shape"]) == [3, 16, 16]
    assert (tuple(json.loads(facts["mean"])), tuple(json.loads(facts["std"]))) == (MEAN, STD)


@pytest.mark.slow
# resnet8 is what the other tests export; resnet20 and resnet34 are more of its blocks, and of resnet18's.
@pytest.mark.parametrize(
    "name", [one for one in MODEL_NAMES if one not in ("resnet8", "resnet20", "resnet34")]
)
def test_every_network_agrees_with_torch(tmp_path_factory, name):
    # One of them with large images that are no squares.
    size = (96, 64) if name == "shufflenet_v2" else (32, 32)
    network, model = exported_models.exported(tmp_path_factory, name, size)
    agreement = check_export(model, network, exported_models.images(4, size))
    assert agreement.images == 14
    assert agreement.difference <= 1e-4 * max(1, agreement.logit)
    assert agreement.logit > 1e-3


def test_a_model_that_differs_from_torch_is_refused(exported):
    network, model = exported
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (bias,) = (one for one in changed.graph.initializer if list(one.dims) == [3])
    array = onnx.numpy_helper.to_array(bias) + np.float32(1e-3)
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))
    with pytest.raises(TrainingError, match=r"differs from torch by 0\.001"):
        check_export(changed, network, exported_models.images(2))


@pytest.mark.parametrize("value", [0, 1])
def test_a_difference_in_values_counts_in_their_units(tmp_path_factory, value):
    network, model = exported_models.of_values(tmp_path_factory)
    agreement = check_export(model, network, exported_models.images(2))
    # Of the largest value, whose numbers are rounded to 128 themselves.
    assert agreement.difference <= 512 / 90
    assert 0.01 < agreement.logit < 100
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    mean = next(
        one
        for one in changed.graph.initializer
        if list(one.dims) == [3] and onnx.numpy_helper.to_array(one)[0] == 2020
    )
    moved = onnx.numpy_helper.to_array(mean).copy()
    moved[value] += 0.01 * network.task.std[value]
    mean.CopyFrom(onnx.numpy_helper.from_array(moved, mean.name))
    with pytest.raises(TrainingError, match=r"differs from torch by .*, in standard deviations"):
        check_export(changed, network, exported_models.images(2))


def test_a_model_that_gives_nan_is_refused(exported):
    network, model = exported
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (bias,) = (one for one in changed.graph.initializer if list(one.dims) == [3])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), bias.name))
    with pytest.raises(TrainingError, match="differs from torch by nan"):
        check_export(changed, network, exported_models.images(2))


def test_an_invalid_graph_is_refused(exported):
    network, model = exported
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node[-1].input[0] = "nowhere"
    with pytest.raises(TrainingError, match="not valid ONNX"):
        check_export(changed, network, exported_models.images(2))


def test_the_check_needs_no_images_of_the_callers(exported):
    network, model = exported
    assert check_export(model, network, np.empty((0, 3, 16, 16), np.float32)).images == 10


def test_a_failing_exporter_is_one_line(monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise RuntimeError("no such operator\nlong advice")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(TrainingError, match=r"cannot export resnet8 \(no such operator\); pip install"):
        export_network(open_run_network(finished_run(tmp_path / "run")))


class Branching(torch.nn.Module):
    """Goes by what it computes, which torch.export does not follow."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        logits = self.network(images)
        return logits if logits.sum() > 0 else -logits


def test_code_that_cannot_be_exported_is_told_by_the_cause(tmp_path, capfd):
    network = open_run_network(finished_run(tmp_path / "run"))
    network = replace(network, model=Branching(network.model), name="mine:branching")
    with pytest.raises(TrainingError) as told:
        export_network(network)
    message = str(told.value)
    assert "cannot export mine:branching (Could not guard on data-dependent expression" in message
    assert message.endswith("; write its code so that torch.export follows it")
    assert message.isprintable()
    assert capfd.readouterr() == ("", "")


def test_a_file_is_written_whole_or_not_at_all(exported, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    size = write_model(exported[1], path)
    assert path.stat().st_size == size
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(PackWriteError, match="the disk is full"):
        write_model(exported[1], path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


NOT_SAID = r"does not say how its images are normalized .*; train it from a pack"


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({}, NOT_SAID),
        ({"mean": MEAN}, NOT_SAID),
        ({"mean": MEAN, "std": (1, 1)}, NOT_SAID),
        ({"mean": MEAN, "std": (1, 0, 1)}, NOT_SAID),
        ({"mean": MEAN, "std": ("a", 1, 1)}, r"std\[0\] is 'a', not a number\); train it again"),
        ({"mean": (1, 2, float("nan")), "std": STD}, r"NaN is no number of JSON\); train it again"),
    ],
)
def test_a_run_without_usable_mean_and_std_is_refused(tmp_path, provenance, words):
    run = finished_run(tmp_path / "run", provenance=provenance)
    with pytest.raises(TrainingError, match=words):
        open_run_network(run)


def test_a_run_may_lack_class_names(tmp_path):
    known = {"mean": MEAN, "std": STD}
    assert open_run_network(finished_run(tmp_path / "a", provenance=known)).class_names is None
    wrong = known | {"class_names": ["cat", "dog"]}
    assert open_run_network(finished_run(tmp_path / "b", provenance=wrong)).class_names is None


def test_unfinished_damaged_and_missing_runs(tmp_path):
    with pytest.raises(ConfigError, match="not a folder"):
        open_run_network(tmp_path / "nothing")
    with pytest.raises(TrainingError, match="holds no trained model; name the folder of a run of edgeprune"):
        open_run_network(tmp_path)
    with pytest.raises(TrainingError, match=r"other\.safetensors"):
        load_trained(finished_run(tmp_path / "ended") / "other.safetensors")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match="holds no trained model; finish the run with `resume=True`"):
        open_run_network(tmp_path / "begun")
    run = finished_run(tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="not a model of a run, or damaged") as caught:
        open_run_network(run)
    assert "\n" not in str(caught.value)
