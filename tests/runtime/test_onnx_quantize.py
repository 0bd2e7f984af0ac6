import exported_models
import numpy as np
import onnx
import pytest

from edgeprune_formats import PackChecksumError, Problem
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.onnx.check import check_structure
from edgeprune_runtime.onnx.decoder import with_decoder
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


def test_weights_are_int8_for_each_channel_and_logits_are_near(exported):
    _, model = exported
    small = quantize(model, batches())
    check_structure(small)
    assert small.ByteSize() < 0.4 * model.ByteSize()
    weights = [
        one
        for one in small.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(weights) == len(convolutions)
    # 7 bits, so that sums of two products fit 16.
    assert all(np.abs(onnx.numpy_helper.to_array(one)).max() <= 64 for one in weights)
    scales = {one.name: list(one.dims) for one in small.graph.initializer}
    by_channel = [node for node in small.graph.node if node.input[0] in {one.name for one in weights}]
    assert all(len(scales[node.input[1]]) == 1 for node in by_channel)
    images = exported_models.images(40, seed=99)
    found, exact = logits(small, images), logits(model, images)
    assert 1e-4 < np.abs(found - exact).mean() < 0.1 * np.abs(exact).max()


def test_metadata_and_versions_stay_and_precision_is_told(exported):
    _, model = exported
    small = quantize(model, batches(1))
    before, after = ({one.key: one.value for one in each.metadata_props} for each in (model, small))
    assert after == before | {"precision": "int8"}
    assert small.ir_version == model.ir_version
    assert list(small.opset_import) == list(model.opset_import)
    assert small.producer_name == "edgeprune"


def test_with_a_decoder_before_it(exported):
    network, model = exported
    check_structure(with_decoder(quantize(model, batches(1)), network.image_shape))


def test_images_are_asked_for_one_batch_at_a_time(exported):
    alive = []

    class Batch(np.ndarray):
        def __del__(self):
            alive.remove(1)

    most = []

    def give():
        for seed in range(5):
            alive.append(1)
            most.append(len(alive))
            yield exported_models.images(4, seed=seed).view(Batch)

    quantize(exported[1], give())
    assert len(most) == 5
    assert max(most) <= 2


def test_damage_in_the_pack_is_reported_as_such(exported):
    def give():
        yield exported_models.images(2)
        raise PackChecksumError("p.h5", Problem("checksum", "/samples/values chunk 1", "damaged"))

    with pytest.raises(PackChecksumError, match="chunk 1"):
        quantize(exported[1], give())


def test_what_onnxruntime_cannot_quantize_is_one_line(exported):
    with pytest.raises(TrainingError, match=r"cannot quantize the model .*; export it in float32"):
        quantize(exported[1], iter([]))
