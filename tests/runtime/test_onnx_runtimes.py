import exported_models
import numpy as np
import onnx
import pytest

from edgeprune_formats import ConfigError
from edgeprune_runtime.onnx.check import check_export, check_structure
from edgeprune_runtime.onnx.runtimes import DECODER_OPSET, Runtime, lowered, parse_runtime
from edgeprune_runtime.onnx.session import start_session

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("text", "name", "opset", "ir_version"),
    [
        ("onnxruntime", "onnxruntime", 18, 8),
        ("onnxruntime==1.15", "onnxruntime", 18, 8),
        ("onnxruntime==1.14.1", "onnxruntime", 18, 8),
        ("onnxruntime==1.13", "onnxruntime", 17, 8),
        ("onnxruntime==1.11.1", "onnxruntime", 16, 8),
        ("onnxruntime==1.10.0", "onnxruntime", 15, 8),
        ("onnxruntime==1.8", "onnxruntime", 14, 7),
        ("onnxruntime==1.7", "onnxruntime", 13, 7),
        ("onnxruntime==1.99", "onnxruntime", 18, 8),
        ("onnxruntime==2.0", "onnxruntime", 18, 8),
        ("tensorrt", "tensorrt", 18, 8),
        ("tensorrt==8.2", "tensorrt", 13, 7),
        ("tensorrt==8.5", "tensorrt", 17, 8),
        ("tensorrt==8.6.1.6", "tensorrt", 17, 8),
        ("tensorrt==10.3", "tensorrt", 18, 8),
    ],
)
def test_a_release_says_opset_and_version_of_the_file(text, name, opset, ir_version):
    found = parse_runtime(text)
    assert found == Runtime(name, opset)
    assert found.ir_version == ir_version


@pytest.mark.parametrize(
    ("text", "least", "message"),
    [
        ("onnxruntime==1.6", 13, "does not read opset 13, .* needs onnxruntime 1.7 or later"),
        ("onnxruntime==0.9", 13, "needs onnxruntime 1.7 or later"),
        ("onnxruntime==1.8", DECODER_OPSET, "does not read opset 15, .* needs onnxruntime 1.9 or later"),
        ("tensorrt==7.2", 13, "needs tensorrt 8.0 or later"),
        ("tensorrt==8.2", DECODER_OPSET, "needs tensorrt 8.4 or later"),
        ("openvino==2024.1", 13, "must be onnxruntime or tensorrt, or one of them with its version"),
        ("onnxruntime==1", 13, "with its version, such as onnxruntime==1.15"),
        ("onnxruntime>=1.15", 13, "with its version"),
        ("onnxruntime==1.15rc1", 13, "with its version"),
        ("", 13, "must be onnxruntime or tensorrt"),
    ],
)
def test_too_old_and_unknown_ones_are_one_line(text, least, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_runtime(text, least)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opset", [13, 15, 17, 18])
def test_an_older_graph_computes_the_same(tmp_path_factory, opset):
    network, model = exported_models.exported(tmp_path_factory)
    before = model.SerializeToString()
    found = lowered(model, Runtime("onnxruntime", opset))
    assert model.SerializeToString() == before
    assert [(one.domain, one.version) for one in found.opset_import] == [("", opset)]
    assert found.ir_version == onnx.helper.find_min_ir_version_for(found.opset_import)
    check_export(found, network, np.empty((0, 3, 16, 16), np.float32))


def test_what_other_networks_have_is_written_as_older_operators_have_it():
    def node(operator, inputs, outputs, **attributes):
        return onnx.helper.make_node(operator, inputs, outputs, **attributes)

    def value(name, shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])
    constants = [onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [4], [1, 2, 3, 4]) for name in "abcd"]
    nodes = [
        node("BatchNormalization", ["x", *"abcd"], ["y"], training_mode=0),
        node("Split", ["y"], ["left", "right"], axis=1, num_outputs=2),
        node("ReduceMax", ["left", "axes"], ["many"], keepdims=1, noop_with_empty_axes=0),
        node("Reshape", ["many", "pairs"], ["most"], allowzero=1),
        node("ReduceSum", ["right", "axes"], ["sum"], keepdims=0),
        node("Sub", ["most", "sum"], ["z"]),
    ]
    inputs, outputs = [value("x", ["n", 4, 3, 3])], [value("z", ["n", 2])]
    pairs = onnx.helper.make_tensor("pairs", onnx.TensorProto.INT64, [2], [-1, 2])
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, [axes, pairs, *constants])
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    images = np.random.default_rng(0).random((2, 4, 3, 3), np.float32)
    found = []
    for one in (model, lowered(model, parse_runtime("onnxruntime==1.7"))):
        check_structure(one)
        found.append(start_session(one.SerializeToString()).run(None, {"x": images})[0])
    np.testing.assert_array_equal(*found)
