"""Images of 1 to 32 channels by every backend."""

import numpy as np
import pytest
from plane_packs import plane_header, plane_pack, plane_pixels

from edgeprune_runtime import PackDataset, PackLoader
from edgeprune_runtime.decode.kernels import library

BACKENDS = ["scipy", "torch", *(["native"] if library() is not None else [])]


def decoded(path, **options):
    return np.concatenate([np.asarray(images) for images, _ in PackLoader(path, 4, device="cpu", **options)])


@pytest.fixture(params=[1, 2, 3, 4, 13, 32], scope="module")
def pixels(request):
    return plane_pixels(7, request.param, 24, 20, 16 if request.param % 2 else 8)


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(
    ("codec", "tile"),
    [("sparse-f32", "full"), ("sparse-f16", "full"), ("quantized", "full"), ("quantized", "8")],
)
def test_backends_agree_on_planes(tmp_path, pixels, codec, tile):
    header = plane_header(pixels, codec, tile=tile)
    path = plane_pack(tmp_path / "pack.h5", header, pixels)
    plain = decoded(path, backend="scipy")
    assert plain.shape == pixels.shape
    original = pixels / (2**header.bits - 1)
    assert np.sqrt(np.mean((plain - original) ** 2)) < {"sparse-f32": 1e-6, "sparse-f16": 1e-3}.get(
        codec, 0.02
    )
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (header.mean, header.std))
    options = {"shuffle": True, "augment": True, "seed": 3}
    augmented = decoded(path, backend="scipy", **options)
    for backend in BACKENDS:
        np.testing.assert_allclose(decoded(path, backend=backend), plain, atol=1e-5)
        normal = decoded(path, backend=backend, normalize=True)
        np.testing.assert_allclose(normal * std + mean, plain, atol=1e-5)
        np.testing.assert_allclose(decoded(path, backend=backend, **options), augmented, atol=1e-5)


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_large_tiles_need_no_compiled_kernel(tmp_path, backend):
    pixels = plane_pixels(3, 5, 70, 66)
    path = plane_pack(tmp_path / "pack.h5", plane_header(pixels, "sparse-f32"), pixels)
    np.testing.assert_allclose(decoded(path, backend=backend), pixels / 255, atol=1e-5)
    assert PackDataset(path, backend=backend)[2][0].shape == (5, 70, 66)
