import importlib.util
import os
import re

import exported_models
import numpy as np
import onnx
import pytest
import strange_files
from exported_models import NAMES, file_of

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.onnx.decoder import with_decoder
from edgeprune_runtime.onnx.graph_check import check_graph
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


@pytest.mark.parametrize("kind", strange_files.WORDS)
def test_a_file_that_is_no_model_is_named_for_what_it_is(tmp_path, kind):
    path = strange_files.make(kind, tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match=re.escape(f"{path}: {strange_files.WORDS[kind]}")) as caught:
        open_onnx(path)
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


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def external_in_a_node(model):
    node = model.graph.node.add(op_type="Constant", output=["unused"])
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    node.attribute.append(onnx.helper.make_attribute("value", tensor))


def loop(model):
    body = onnx.GraphProto(name="body")
    node = model.graph.node.add(op_type="Loop", output=["unused"])
    node.attribute.append(onnx.helper.make_attribute("body", body))


def function(model):
    model.functions.add(name="f", domain="d")


def changed_metadata(name, value):
    def change(model):
        for entry in model.metadata_props:
            if entry.key == name:
                entry.value = value

    return change


def other_type(model):
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def other_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 17


def other_rank(model):
    del model.graph.input[0].type.tensor_type.shape.dim[3]


def other_output(model):
    model.graph.output[0].name = "scores"
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]


@pytest.mark.parametrize(
    "change",
    [
        external,
        external_in_a_node,
        loop,
        function,
        changed_metadata("image_shape", "[3, 16]"),
        changed_metadata("image_shape", '"3xx"'),
        changed_metadata("image_shape", "[3, -16, 16]"),
        changed_metadata("image_shape", "[3, 100000000, 16]"),
        changed_metadata("image_shape", "[" * 99_999),
        changed_metadata("class_names", '["a"]'),
        changed_metadata("class_names", "[1, 2, 3]"),
        changed_metadata("class_names", '"cat"'),
        changed_metadata("class_names", "NaN"),
        other_type,
        other_size,
        other_rank,
        other_output,
    ],
)
def test_forged_graphs_are_refused_in_one_line(exported, tmp_path, change):
    forged = copy_of(exported[1])
    change(forged)
    with pytest.raises(ArtifactError, match=r"model\.onnx: .*export") as caught:
        open_onnx(file_of(forged, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="not a regular file, but a pipe"):
        open_onnx(tmp_path / "model.onnx")


def test_logits_that_are_not_finite_are_an_error(exported, tmp_path):
    spoilt = copy_of(exported[1])
    weight = next(one for one in spoilt.graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
    weight.raw_data = np.full(list(weight.dims), np.nan, np.float32).tobytes()
    model = open_onnx(file_of(spoilt, tmp_path))
    with pytest.raises(ArtifactError, match=r"model\.onnx: its logits are not finite"):
        model.logits(exported_models.images(2))


@pytest.mark.parametrize("high", [2**32, 2**33, 2**63])
@pytest.mark.parametrize("field", [13, 14])
def test_fields_whose_numbers_wrap_around_hide_nothing(field, high):
    def varint(value):
        more = value >> 7
        return bytes([value & 0x7F | (0x80 if more else 0)]) + (varint(more) if more else b"")

    def inside(number, content, high=0):
        return varint((number << 3 | 2) + high) + varint(len(content)) + content

    # The location of a tensor's data, or where it is external; onnxruntime reads the low 32 bits of a key.
    hidden = inside(13, b"\x0a\x01x", high) if field == 13 else varint((14 << 3) + high) + b"\x01"
    with pytest.raises(ValueError, match="number is too large"):
        check_graph(inside(7, inside(5, hidden)))
    check_graph(inside(7, inside(5, inside(9, b"data"))))


@pytest.mark.parametrize("content", [b"\x3a\x7f", b"\x3b", b"\xff" * 20, b"\x08", b"\x38\x01"])
def test_bytes_that_are_no_protobuf(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged, or not an ONNX model"):
        open_onnx(tmp_path / "model.onnx")


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
