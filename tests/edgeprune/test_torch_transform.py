import numpy as np
import pytest
import torch
from photographs import photographs
from scipy.fft import dctn, idctn

from edgeprune.masks import torch_dct as torch_transform
from edgeprune.masks.torch_dct import dct2, idct2
from edgeprune.packs.encoding import dct as transform


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 30, 50), (1, 3, 224, 224), (4, 1, 1, 7)])
def test_the_transform_is_that_of_scipy(shape):
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    expected = dctn(images.astype(np.float64), axes=(2, 3), norm="ortho")
    spectra = dct2(torch.from_numpy(images))
    assert spectra.dtype == torch.float32
    np.testing.assert_allclose(spectra, expected, atol=1e-6 * np.sqrt(shape[2] * shape[3]))
    np.testing.assert_allclose(idct2(spectra), images, atol=1e-5)
    np.testing.assert_allclose(
        idct2(torch.from_numpy(images)), idctn(images, axes=(2, 3), norm="ortho"), rtol=1e-6, atol=1e-5
    )


def test_the_transform_takes_views_and_the_bytes_scaled():
    images = photographs(2, 12, 20)
    spectra = dct2(images / 255)
    np.testing.assert_allclose(spectra, transform.dct2(images.numpy()), atol=1e-5)
    view = (images / 255).to(memory_format=torch.channels_last)
    torch.testing.assert_close(dct2(view), spectra)


def test_the_gradient_of_the_inverse_is_the_transform():
    spectra = torch.randn(2, 3, 5, 7, requires_grad=True)
    outer = torch.randn(2, 3, 5, 7)
    (idct2(spectra) * outer).sum().backward()
    torch.testing.assert_close(spectra.grad, dct2(outer))


def test_a_transform_made_in_inference_mode_serves_training_too():
    torch_transform._basis.cache_clear()
    with torch.inference_mode():
        idct2(torch.randn(1, 1, 4, 6))
    idct2(torch.randn(1, 1, 4, 6, requires_grad=True)).sum().backward()


def test_products_that_tf32_would_round_are_taken_in_double_precision():
    before = torch.get_float32_matmul_precision()
    try:
        for precision, dtype in (("high", torch.float64), ("highest", torch.float32)):
            torch.set_float32_matmul_precision(precision)
            assert torch_transform._exact_dtype(torch.device("cuda", 0)) == dtype
            assert torch_transform._exact_dtype(torch.device("cpu")) == torch.float32
    finally:
        torch.set_float32_matmul_precision(before)


def test_double_precision_products_come_back_in_single(monkeypatch):
    monkeypatch.setattr(torch_transform, "_exact_dtype", lambda device: torch.float64)
    images = torch.rand(2, 3, 8, 8)
    assert dct2(images).dtype == torch.float32
    torch.testing.assert_close(idct2(dct2(images)), images)
