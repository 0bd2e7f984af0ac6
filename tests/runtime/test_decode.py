import tracemalloc

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime import PackDataset, PackLoader
from edgeprune_runtime.decode import plan
from edgeprune_runtime.decode.plan import inverse_basis

SIZES = [((32, 32), 300), ((20, 12), 100), ((80, 100), 700), ((1, 7), 3), ((224, 224), 5018)]


def everything(loader):
    images, labels = zip(*loader, strict=True)
    return np.concatenate([np.asarray(i) for i in images]), np.concatenate([np.asarray(y) for y in labels])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "scipy"])
@pytest.mark.parametrize(("size", "components"), SIZES)
def test_images_are_the_inverse_transform_of_the_stored_coefficients(make_pack, backend, size, components):
    path, spectra = make_pack(samples=11, size=size, components=components)
    images, labels = everything(PackLoader(path, 4, backend=backend, device="cpu"))
    expected = idctn(spectra.astype(np.float64), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(images, expected, atol=2e-5)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, open_pack(path).labels)


@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"resolution": (10, 6)}, {"augment": True}])
def test_backends_agree_to_1e_5(make_pack, options):
    path, _ = make_pack(samples=30, size=(20, 12), components=100)
    ours = [
        everything(PackLoader(path, 8, True, 3, backend=backend, device="cpu", **options))
        for backend in ("torch", "scipy")
    ]
    np.testing.assert_allclose(ours[0][0], ours[1][0], atol=1e-5)
    np.testing.assert_array_equal(ours[0][1], ours[1][1])


WIDE = [{}, {"normalize": True}, {"resolution": (10, 70)}, {"augment": True}]


@pytest.mark.parametrize("backend", ["torch", "scipy"])
@pytest.mark.parametrize("options", WIDE)
def test_large_sides_are_transformed_without_matrices_alike(make_pack, monkeypatch, backend, options):
    path, _ = make_pack(samples=9, size=(20, 90), components=100)
    path = str(path)
    matrices = everything(PackLoader(path, 4, True, 3, backend=backend, device="cpu", **options))
    monkeypatch.setattr(plan, "LARGEST_BASIS", 1)
    without = everything(PackLoader(path, 4, True, 3, backend=backend, device="cpu", **options))
    np.testing.assert_allclose(without[0], matrices[0], atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_wide_images_take_no_memory_beyond_their_size(make_pack, backend):
    path, spectra = make_pack(samples=2, size=(1, 16384), components=5, chunk_samples=2)
    tracemalloc.start()
    images, _ = everything(PackLoader(path, 2, backend=backend, device="cpu"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
    np.testing.assert_allclose(images, idctn(spectra, axes=(2, 3), norm="ortho"), atol=1e-5)


def test_inverse_basis_is_the_transposed_dct_matrix():
    matrix = dctn(np.eye(12), axes=(0,), norm="ortho")
    np.testing.assert_allclose(inverse_basis(12, 12), matrix, atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "scipy"])
@pytest.mark.parametrize("resolution", [16, 8, (16, 8), (31, 5)])
def test_lower_resolution_is_the_inverse_of_the_truncated_spectrum(make_pack, backend, resolution):
    path, spectra = make_pack(samples=5)
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    images, _ = everything(PackLoader(path, 8, backend=backend, device="cpu", resolution=resolution))
    low = spectra[:, :, :height, :width].astype(np.float64)
    brightness = np.sqrt(height * width / 1024)
    np.testing.assert_allclose(images, idctn(low, axes=(2, 3), norm="ortho") * brightness, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_normalization_subtracts_the_mean_and_divides_by_the_deviation(make_pack, backend):
    path, _ = make_pack(samples=9)
    header = open_pack(path).header
    plain, _ = everything(PackLoader(path, 4, backend=backend, device="cpu"))
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (header.mean, header.std))
    own, _ = everything(PackLoader(path, 4, backend=backend, device="cpu", normalize=True))
    np.testing.assert_allclose(own, (plain - mean) / std, atol=2e-5)
    given = ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    other, _ = everything(PackLoader(path, 4, backend=backend, device="cpu", normalize=given))
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in given)
    np.testing.assert_allclose(other, (plain - mean) / std, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", torch.float16])
def test_torch_gives_the_dtype_asked_for(make_pack, dtype):
    path, _ = make_pack(samples=3)
    images, _ = next(iter(PackLoader(path, 3, backend="torch", device="cpu", dtype=dtype)))
    assert images.dtype == (dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float16", "float64", np.float16])
def test_scipy_gives_the_dtype_asked_for(make_pack, dtype):
    path, _ = make_pack(samples=3)
    images, _ = next(iter(PackLoader(path, 3, backend="scipy", dtype=dtype)))
    assert images.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "jax"}, "unknown backend 'jax'"),
        ({"backend": "scipy", "dtype": "bfloat16"}, "not bfloat16"),
        ({"backend": "torch", "dtype": "int8"}, "not int8"),
        ({"backend": "scipy", "device": "cuda"}, "on the cpu"),
        ({"device": "nonsense"}, "unknown device"),
        ({"resolution": 33}, "within 1x1 and the pack's 32x32"),
        ({"resolution": 0}, "within 1x1"),
        ({"resolution": (16,)}, "one number or"),
        ({"normalize": None}, "`normalize` is True"),
        ({"device": "meta"}, "does not exist"),
        ({"normalize": ((0.5,), (0.5,))}, "1 means and the pack 3 channels"),
        ({"normalize": ((0.5,) * 3, (0.0,) * 3)}, "positive"),
        ({"augment": "mixup"}, "unknown augmentation"),
        ({"batch_size": 0}, "at least 1"),
        ({"seed": -1}, "negative"),
        ({"cache_bytes": 0}, "`cache_bytes` must be positive"),
        ({"cache_bytes": "1MB"}, "`cache_bytes` must be positive, not '1MB'"),
        ({"batch_size": "8"}, "`batch_size` is '8'; it must be an integer"),
        ({"seed": None}, "`seed` is None; it must be an integer"),
        ({"prefetch": 1.5}, "`prefetch` is 1.5; it must be an integer"),
        ({"reuse_buffers": "x"}, "`reuse_buffers` is 'x'; it must be an integer"),
        ({"resolution": 4.5}, "`resolution` is 4.5; it must be an integer"),
        ({"resolution": "16"}, "`resolution` is '16'; it must be an integer"),
        ({"normalize": np.ones((2, 3))}, r"^`normalize` is True, False or \(mean, std\), not array.*$"),
        ({"rank": 0, "world_size": 0}, "`world_size` must be at least 1, not 0"),
        ({"resolution": (4, None)}, "`resolution` is None; it must be an integer"),
        ({"rank": "0", "world_size": 2}, "`rank` is '0'; it must be an integer"),
        ({"augment": 3}, "unknown augmentation 3; known: none"),
        ({"targets": None}, "`targets` is None; it must be a sequence of names"),
    ],
)
def test_misuse_is_named(make_pack, options, message):
    path, _ = make_pack(samples=3)
    with pytest.raises(ConfigError, match=message):
        PackLoader(path, **options)


def test_one_number_for_images_that_are_not_square_is_refused(make_pack):
    path, _ = make_pack(samples=3, size=(20, 12), components=10)
    with pytest.raises(ConfigError, match="20x12"):
        PackLoader(path, resolution=6)


def test_a_batch_beyond_memory_is_refused_with_the_size_that_fits(make_pack, monkeypatch):
    path, _ = make_pack(samples=30)
    monkeypatch.setattr("edgeprune_runtime.decode.plan.MAX_BATCH_BYTES", 12 * 3 * 32 * 32 * 4 * 4)
    with pytest.raises(ConfigError, match=r"a batch of 20 images 32x32 .* lower `batch_size` to 12 "):
        PackLoader(path, 20)
    assert len(PackLoader(path, 12)) == 3
    with pytest.raises(ConfigError, match="lower `batch_size` to 12"):
        PackDataset(path).__getitems__(range(13))


def test_a_batch_beyond_memory_is_refused_before_a_decoder_is_made(make_pack, monkeypatch):
    """The bases of a pack that declares huge images can be larger than memory."""

    def make_decoder(*args, **options):
        raise AssertionError

    path, _ = make_pack(samples=30)
    monkeypatch.setattr("edgeprune_runtime.loading.chunks.reader.make_decoder", make_decoder)
    monkeypatch.setattr("edgeprune_runtime.decode.plan.MAX_BATCH_BYTES", 12 * 3 * 32 * 32 * 4 * 4)
    with pytest.raises(ConfigError, match="lower `batch_size` to 12"):
        PackLoader(path, 20)


def test_paths_of_any_kind_open(make_pack):
    class Elsewhere:
        def __init__(self, path):
            self.path = path

        def __fspath__(self):
            return str(self.path)

    path, _ = make_pack(samples=3)
    assert len(PackLoader(Elsewhere(path)).pack) == 3
    assert len(PackDataset([Elsewhere(path), path])) == 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(make_pack):
    path, _ = make_pack(samples=30)
    ours = [
        [image.cpu() for image, _ in PackLoader(path, 8, True, device=device, augment=True, normalize=True)]
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(torch.cat(ours[1]), torch.cat(ours[0]), atol=1e-5, rtol=0)
