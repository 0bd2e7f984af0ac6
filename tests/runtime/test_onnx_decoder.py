import exported_models
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgeprune_formats import open_pack
from edgeprune_formats.coefficients import pack_positions
from edgeprune_runtime import PackLoader
from edgeprune_runtime.onnx.check import check_export, check_structure
from edgeprune_runtime.onnx.decoder import with_decoder
from edgeprune_runtime.onnx.session import start_session

pytestmark = pytest.mark.usefixtures("one_thread")


def identity(shape):
    """A model that gives the images it takes, so that its decoder can be looked at."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", *shape])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["logits"])], "same", [images], [logits]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model, values, positions):
    return start_session(model.SerializeToString()).run(None, {"values": values, "indices": positions})[0]


@pytest.mark.parametrize("size", [(32, 32), (20, 24), (7, 5), (1, 1), (3, 300)])
@pytest.mark.parametrize("share", [0.3, 1])
def test_it_decodes_what_a_pack_stores_as_packloader_does(make_pack, size, share):
    components = max(1, int(share * size[0] * size[1]))
    path, _ = make_pack(samples=5, size=size, components=components)
    coefficients = open_pack(path).read_chunk(0)
    model = with_decoder(identity((3, *size)), (3, *size))
    check_structure(model)
    images, _ = next(iter(PackLoader(path, 5, backend="scipy")))
    found = run(model, coefficients.values, coefficients.positions)
    np.testing.assert_allclose(found, images, atol=1e-5)


def test_large_spectra_have_wide_positions(make_pack):
    path, _ = make_pack(samples=2, size=(300, 260), components=50)
    coefficients = open_pack(path).read_chunk(0)
    assert coefficients.positions.dtype == np.uint32
    model = with_decoder(identity((3, 300, 260)), (3, 300, 260))
    assert model.graph.input[1].type.tensor_type.elem_type == TensorProto.UINT32
    images, _ = next(iter(PackLoader(path, 2, backend="scipy")))
    np.testing.assert_allclose(run(model, coefficients.values, coefficients.positions), images, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("components", [1, 4])
def test_any_number_of_images_and_components(count, components):
    model = with_decoder(identity((3, 2, 2)), (3, 2, 2))
    values = np.zeros((count, 3, components), np.float32)
    values[..., 0] = 1
    flat = np.broadcast_to(np.arange(components), values.shape)
    found = run(model, values, pack_positions(flat, 2, 2))
    # Frequency (0, 0) of 1 is a plane of 1 / sqrt(2 * 2).
    np.testing.assert_allclose(found, np.full((count, 3, 2, 2), 0.5), atol=1e-7)


def test_a_position_outside_the_spectrum_is_an_error_of_the_runtime():
    model = with_decoder(identity((3, 3, 3)), (3, 3, 3))
    values, positions = np.ones((1, 3, 1), np.float32), np.full((1, 3, 1), 12, np.uint16)
    with pytest.raises(Exception, match="ScatterElements"):
        run(model, values, positions)


@pytest.mark.slow
def test_coefficients_give_what_torch_gives_on_packloaders_images(make_pack, tmp_path_factory):
    network, model = exported_models.exported(tmp_path_factory)
    path, _ = make_pack(samples=6, size=(16, 16), components=100)
    coefficients = open_pack(path).read_chunk(0)
    images, _ = next(iter(PackLoader(path, 6, normalize=(network.mean, network.std), device="cpu")))
    with torch.no_grad():
        expected = network.model(images).numpy()
    decoding = with_decoder(model, network.image_shape)
    np.testing.assert_allclose(
        run(decoding, coefficients.values, coefficients.positions), expected, atol=1e-4, rtol=1e-4
    )
    assert [entry.key for entry in decoding.metadata_props] == [entry.key for entry in model.metadata_props]
    assert [one.name for one in model.graph.input] == ["images"]


def test_the_check_compares_the_decoder_as_well(tmp_path_factory):
    network, model = exported_models.exported(tmp_path_factory)
    decoding = with_decoder(model, network.image_shape)
    images = exported_models.images(3)
    assert check_export(decoding, network, images).images == 13
    (rows,) = (one for one in decoding.graph.initializer if one.name == "decoder/rows")
    turned = np.ascontiguousarray(onnx.numpy_helper.to_array(rows).T)
    rows.CopyFrom(onnx.numpy_helper.from_array(turned, rows.name))
    with pytest.raises(Exception, match="differs from torch"):
        check_export(decoding, network, images)
