import weakref
from functools import partial

import exported_models
import numpy as np
import onnx
import pytest
import tensorrt_rules

from edgeprune_formats import PackChecksumError, Problem
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.onnx import quantize as quantize_module
from edgeprune_runtime.onnx.check import check_structure
from edgeprune_runtime.onnx.decoder import with_decoder
from edgeprune_runtime.onnx.placement import gate_nodes
from edgeprune_runtime.onnx.quantize import quantize
from edgeprune_runtime.onnx.session import start_session

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def exported(tmp_path_factory):
    return exported_models.exported(tmp_path_factory)


def batches(count=4):
    return (exported_models.images(8, seed=seed) for seed in range(count))


def logits(model, images):
    return start_session(model.SerializeToString()).run(None, {"images": images})[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_values_keep_their_precision_whatever_their_units(tmp_path_factory, runtime):
    network, model = exported_models.of_values(tmp_path_factory)
    small = quantize(model, batches, runtime, unit=network.task.std)
    images = exported_models.images(40, seed=99)
    # Seconds of this century are rounded to 128 by float32 itself.
    rounding = np.array([2e-4, 0, 128]) / network.task.std
    exact, found = ((logits(one, images) - network.task.mean) / network.task.std for one in (model, small))
    assert (np.abs(found - exact).mean(axis=0) < 0.1 * np.abs(exact).max(axis=0) + rounding).all()
    assert np.abs(found - exact).mean() > 1e-4
    # Nodes that bring values to their units take no rounded numbers.
    made_by = {name: node for node in small.graph.node for name in node.output}
    add = made_by[small.graph.output[0].name]
    (mul,) = (made_by[name] for name in add.input if name in made_by)
    assert (add.op_type, mul.op_type) == ("Add", "Mul")


def test_the_smallest_unit_counts_in_the_choice_of_ranges(tmp_path_factory):
    network, model = exported_models.of_values(tmp_path_factory)
    off = {name: onnx.ModelProto() for name in ("first", "second")}
    for number, one in enumerate(off.values()):
        one.CopyFrom(model)
        # The mean of one value moves by its deviation.
        (mean,) = (
            each
            for each in one.graph.initializer
            if list(each.dims) == [3] and onnx.numpy_helper.to_array(each)[0] == 2020
        )
        moved = onnx.numpy_helper.to_array(mean).copy()
        moved[number] += (1 - number / 2) * network.task.std[number]
        mean.CopyFrom(onnx.numpy_helper.from_array(moved, mean.name))
    errors = quantize_module._Errors(model, partial(batches, 1), network.task.std)
    assert errors(off["first"]) == pytest.approx(1, rel=1e-2)
    assert errors(off["second"]) == pytest.approx(0.25, rel=1e-2)


def test_weights_are_int8_for_each_channel_and_logits_are_near(exported, capfd):
    _, model = exported
    small = quantize(model, batches)
    # onnxruntime prints, and warns by the root logger.
    assert capfd.readouterr() == ("", "")
    check_structure(small)
    assert small.ByteSize() < 0.4 * model.ByteSize()
    weights = [
        one
        for one in small.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(weights) == len(convolutions)
    # Sums of two products fit 16 bits.
    for one in weights:
        channels = np.abs(onnx.numpy_helper.to_array(one).astype(int))
        two = np.sort(channels.reshape(len(channels), -1), axis=1)[:, -2:].sum(axis=1)
        assert 126 <= two.min() <= two.max() <= 128
    scales = {one.name: list(one.dims) for one in small.graph.initializer}
    by_channel = [node for node in small.graph.node if node.input[0] in {one.name for one in weights}]
    assert all(len(scales[node.input[1]]) == 1 for node in by_channel)
    images = exported_models.images(40, seed=99)
    found, exact = logits(small, images), logits(model, images)
    assert 1e-4 < np.abs(found - exact).mean() < 0.1 * np.abs(exact).max()


def test_for_tensorrt_the_graph_keeps_its_rules(exported):
    _, model = exported
    small = quantize(model, batches, "tensorrt")
    check_structure(small)
    assert tensorrt_rules.problems(small) == []
    assert tensorrt_rules.element_types(small) == {"INT8"}
    names = [node.op_type for node in small.graph.node]
    sums = [node for node in small.graph.node if node.op_type == "Add"]
    # A pair for the input and the weights of each convolution and the last layer, and for one side of a sum.
    assert names.count("QuantizeLinear") == 2 * (names.count("Conv") + 1) + len(sums)
    assert len(sums) == 3
    images = exported_models.images(40, seed=99)
    found, exact = logits(small, images), logits(model, images)
    assert 1e-4 < np.abs(found - exact).mean() < 0.1 * np.abs(exact).max()


def test_the_rules_of_tensorrt_are_looked_at(exported):
    model = exported[1]
    assert tensorrt_rules.element_types(quantize(model, partial(batches, 1))) == {"INT8", "UINT8", "INT32"}
    sound = quantize(model, partial(batches, 1), "tensorrt")

    def broken(change):
        other = onnx.ModelProto()
        other.CopyFrom(sound)
        change(other.graph)
        return " ".join(tensorrt_rules.problems(other))

    def change_array(position, array):
        def change(graph):
            node = next(one for one in graph.node if one.op_type == "QuantizeLinear")
            one = next(one for one in graph.initializer if one.name == node.input[position])
            one.CopyFrom(onnx.numpy_helper.from_array(array, one.name))

        return change

    def lose_a_weight_pair(graph):
        node = next(one for one in graph.node if one.op_type == "Conv")
        node.input[1] = next(one.name for one in graph.initializer if len(one.dims) == 4)

    def share_a_pair(graph):
        pair = next(one for one in graph.node if one.op_type == "QuantizeLinear")
        graph.node.append(onnx.helper.make_node("Identity", [pair.output[0]], ["other"]))

    def round_both_sides(graph):
        made_by = {one.output[0]: one for one in graph.node}
        add = next(one for one in graph.node if one.op_type == "Add")
        convolution, other = sorted(add.input, key=lambda name: made_by[name].op_type)
        constants = made_by[other].input[1:]
        for operator, before, after in (("Quantize", convolution, "q"), ("Dequantize", "q", "d")):
            graph.node.append(onnx.helper.make_node(f"{operator}Linear", [before, *constants], [after]))
        add.input[list(add.input).index(convolution)] = "d"

    assert "zero points" in broken(change_array(2, np.array(3, np.int8)))
    assert "zero points" in broken(change_array(2, np.array(0, np.uint8)))
    assert "scales that are not positive" in broken(change_array(1, np.array(0, np.float32)))
    assert "beside one that is not" in broken(lose_a_weight_pair)
    assert "serves several nodes" in broken(share_a_pair)
    assert "could be fused" in broken(round_both_sides)


def test_gates_are_found_and_other_sigmoids_are_not():
    """A squeeze-and-excitation, a SiLU within it and outside, and probabilities of labels at the end."""

    def node(operator, inputs, output):
        return onnx.helper.make_node(operator, inputs, [output], output)

    nodes = [
        node("Conv", ["x", "w1"], "a"),
        *(node("Sigmoid", ["a"], "s"), node("Mul", ["a", "s"], "b")),
        node("ReduceMean", ["b"], "mean"),
        node("Conv", ["mean", "w2"], "c"),
        *(node("Sigmoid", ["c"], "t"), node("Mul", ["t", "c"], "d")),
        node("Conv", ["d", "w3"], "e"),
        *(node("Sigmoid", ["e"], "gate"), node("Mul", ["gate", "b"], "f")),
        node("GlobalAveragePool", ["f"], "pooled"),
        *(node("Gemm", ["pooled", "w4"], "g"), node("Sigmoid", ["g"], "logits")),
    ]
    graph = onnx.GraphProto(node=nodes)
    assert sorted(gate_nodes(graph)) == ["c", "d", "e", "gate", "mean", "t"]


def test_metadata_and_versions_stay_and_precision_is_told(exported):
    _, model = exported
    small = quantize(model, partial(batches, 1))
    before, after = ({one.key: one.value for one in each.metadata_props} for each in (model, small))
    assert after == before | {"precision": "int8"}
    assert small.ir_version == model.ir_version
    assert list(small.opset_import) == list(model.opset_import)
    assert small.producer_name == "edgeprune"


def test_with_a_decoder_before_it(exported):
    network, model = exported
    check_structure(with_decoder(quantize(model, partial(batches, 1)), network.image_shape))


def test_images_are_asked_for_one_batch_at_a_time(exported):
    alive, most = [], []

    def give():
        for seed in range(5):
            images = exported_models.images(4, seed=seed)
            alive.append(1)
            weakref.finalize(images, alive.pop)
            most.append(len(alive))
            yield images
            del images

    quantize(exported[1], give)
    assert most
    assert max(most) <= 2
    assert not alive


def test_a_few_large_values_do_not_take_the_steps_of_all_others(exported, monkeypatch):
    model = exported[1]

    def with_large_values():
        for images in batches():
            images[0, :, 3, 3] = 40
            yield images

    images = exported_models.images(40, seed=99)
    exact = logits(model, images)

    def error(**given):
        found = logits(quantize(model, with_large_values, **given), images)
        return np.median(np.abs(found - exact))

    each = {}
    for runtime in ("onnxruntime", "tensorrt"):
        chosen = error(runtime=runtime)
        with monkeypatch.context() as patch:
            patch.setattr(quantize_module, "_SHARES", (None,))
            each[runtime] = error(runtime=runtime) / chosen
    assert min(each.values()) > 2


def test_a_channel_with_one_large_weight_keeps_steps_for_the_others(exported):
    model = onnx.ModelProto.FromString(exported[1].SerializeToString())
    one = next(one for one in model.graph.initializer if len(one.dims) == 4)
    weights = onnx.numpy_helper.to_array(one) / 50
    weights[:, 0, 1, 1] = 1
    # No weight, and less than the least normal number.
    weights[3], weights[4] = 0, 1e-44
    one.CopyFrom(onnx.numpy_helper.from_array(weights, one.name))
    small = quantize(model, batches)
    integers = (onnx.numpy_helper.to_array(one) for one in small.graph.initializer if len(one.dims) == 4)
    rounded = next(array for array in integers if array.shape == weights.shape)
    # With half the range it is 64.
    assert (np.delete(rounded, (3, 4), axis=0).max(axis=(1, 2, 3)) > 110).all()
    assert not rounded[3].any()
    assert all(
        (onnx.numpy_helper.to_array(one) > 0).all() for one in small.graph.initializer if "scale" in one.name
    )
    images = exported_models.images(40, seed=99)
    found, exact = logits(small, images), logits(model, images)
    assert np.abs(found - exact).mean() < 0.1 * np.abs(exact).max()


def test_ranges_hold_all_values_where_that_is_nearest(exported, monkeypatch):
    tried = []
    calibrated = quantize_module._calibrated

    def watched(path, reader, share, settings):
        # Half of the values cut off, and all there: no percentile is as good.
        found = calibrated(path, reader, share and 50, settings)
        tried.append(found.SerializeToString(deterministic=True))
        return found

    monkeypatch.setattr(quantize_module, "_calibrated", watched)
    found = quantize(exported[1], batches)
    scales = [one.raw_data for one in found.graph.initializer if one.name.endswith("_scale")]
    first = onnx.ModelProto.FromString(tried[0])
    assert len(tried) == 3
    assert scales == [one.raw_data for one in first.graph.initializer if one.name.endswith("_scale")]


def test_damage_in_the_pack_is_reported_as_such(exported):
    def give():
        yield exported_models.images(2)
        raise PackChecksumError("p.h5", Problem("checksum", "/samples/values chunk 1", "damaged"))

    with pytest.raises(PackChecksumError, match="chunk 1"):
        quantize(exported[1], give)


def test_what_onnxruntime_cannot_quantize_is_one_line(exported):
    with pytest.raises(TrainingError, match=r"cannot quantize the model .*; export it in float32"):
        quantize(exported[1], list)
