import importlib.util

import exported_models
import numpy as np
import onnx
import pytest
from exported_models import NAMES, file_of

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.onnx.decoder import with_decoder
from edgeprune_runtime.onnx.session import open_onnx, require

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def exported(tmp_path_factory):
    return exported_models.exported(tmp_path_factory)


def copy_of(model):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def test_it_says_what_it_takes_and_runs(exported, tmp_path):
    model = open_onnx(file_of(exported[1], tmp_path), threads=1)
    assert (model.image_shape, model.class_names, model.takes_coefficients) == ((3, 16, 16), NAMES, False)
    assert model.facts["model"] == "resnet8"
    assert model.logits(exported_models.images(3)).shape == (3, 3)


def test_a_decoder_takes_coefficients(exported, tmp_path):
    model = open_onnx(file_of(with_decoder(exported[1], (3, 16, 16)), tmp_path))
    assert model.takes_coefficients
    values = np.zeros((2, 3, 1), np.float32)
    logits = model.logits_of_coefficients(values, np.zeros((2, 3, 1), np.uint16))
    assert logits.shape == (2, 3)
    with pytest.raises(ArtifactError, match=r"model\.onnx: .*double"):
        model.logits_of_coefficients(values.astype(np.float64), np.zeros((2, 3, 1), np.uint16))


def test_images_that_do_not_fit_are_one_line(exported, tmp_path):
    model = open_onnx(file_of(exported[1], tmp_path))
    with pytest.raises(ArtifactError, match=r"model\.onnx: ") as caught:
        model.logits(exported_models.images(1, (8, 8)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_damage_is_one_line(exported, tmp_path, cut):
    path = file_of(exported[1], tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"model\.onnx: .*export") as caught:
        open_onnx(path)
    assert "\n" not in str(caught.value)


def test_no_onnx_at_all(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("this is no model")
    with pytest.raises(ArtifactError, match="damaged, or not an ONNX model"):
        open_onnx(path)
    with pytest.raises(ConfigError, match="no such file"):
        open_onnx(tmp_path / "other.onnx")


def test_a_newer_ir_version_or_operator_set_says_so(exported, tmp_path):
    newer = copy_of(exported[1])
    newer.ir_version = 99
    with pytest.raises(ArtifactError, match=r"too new for onnxruntime .*IR version.*pip install --upgrade"):
        open_onnx(file_of(newer, tmp_path))
    newer = copy_of(exported[1])
    newer.opset_import[0].version = 999
    with pytest.raises(ArtifactError, match=r"too new for onnxruntime .*pip install --upgrade onnxruntime"):
        open_onnx(file_of(newer, tmp_path))


def test_models_of_others_are_refused(exported, tmp_path):
    other = copy_of(exported[1])
    other.ClearField("metadata_props")
    with pytest.raises(ArtifactError, match="not a model of edgeprune export"):
        open_onnx(file_of(other, tmp_path))
    other = copy_of(exported[1])
    other.graph.input[0].name = "pixels"
    for node in other.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]
    with pytest.raises(ArtifactError, match=r"not a model of edgeprune export \(its inputs are pixels\)"):
        open_onnx(file_of(other, tmp_path))


@pytest.mark.parametrize(
    ("package", "extra"), [("onnxruntime", "onnx"), ("onnx", "onnx"), ("torch", "torch,onnx")]
)
def test_a_missing_package_says_what_installs_it(monkeypatch, package, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    require("this", "numpy")
    with pytest.raises(ConfigError) as caught:
        require("this", "numpy", package)
    assert str(caught.value) == f"this needs {package}; pip install 'edgeprune[{extra}]'"
