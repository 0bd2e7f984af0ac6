import numpy as np
import pytest
import torch

from edgeprune_formats import ConfigError, PackHeader, PackWriter, open_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_formats.tiles import from_tiles
from edgeprune_runtime import PackDataset, PackLoader
from edgeprune_runtime.decode import plan

CASES = [
    ((32, 32), "full", "ycbcr"),
    ((32, 32), "8", "rgb"),
    ((48, 48), "16", "ycbcr"),
    ((50, 37), "16", "ycbcr"),
    ((64, 32), "32", "ycbcr"),
]


def make_pack(path, size, tile, color, samples=21, chunk=8, step=0.02):
    height, width = size
    random = np.random.default_rng(4)
    fall = 1 / (1 + np.add.outer(np.arange(height), np.arange(width))) ** 1.5
    spectra = (random.normal(size=(samples, 3, height, width)) * fall * 3).astype(np.float32)
    spectra[:, :, 0, 0] += 0.5 * np.sqrt(height * width)
    header = PackHeader(
        samples=samples,
        channels=3,
        height=height,
        width=width,
        components=height * width,
        codec="quantized",
        chunk_samples=chunk,
        class_names=("a", "b"),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        tile=tile,
        color_space=color,
        step=step,
    )
    labels = np.arange(samples) % 2
    with PackWriter(path, header, labels, np.arange(samples)) as writer:
        writer.append(spectra, np.ones(spectra.shape, bool))
    return path


def expected(path):
    """Pixels by the definition of the format, in double precision."""
    with open_pack(path) as pack:
        header = pack.header
        parts = [pack.read_chunk(chunk) for chunk in range(header.chunks)]
    values = np.concatenate([part.values for part in parts]) * header.step
    size = (header.height, header.width)
    return from_tiles(values, header.tile_shape, header.grid, size, header.color_space) + 0.5


def decoded(path, **options):
    batches = [np.asarray(images) for images, _ in PackLoader(path, 6, device="cpu", **options)]
    return np.concatenate(batches)


@pytest.mark.first_are_quick(5)
@pytest.mark.parametrize("backend", ["torch", "scipy"])
@pytest.mark.parametrize(("size", "tile", "color"), CASES)
def test_images_are_those_of_the_specification(tmp_path, backend, size, tile, color):
    path = make_pack(tmp_path / "p.h5", size, tile, color)
    pixels = expected(path)
    np.testing.assert_allclose(decoded(path, backend=backend), pixels, atol=1e-5)
    normal = decoded(path, backend=backend, normalize=True)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    np.testing.assert_allclose(normal, (pixels - mean) / std, atol=1e-4)


@pytest.mark.parametrize("cache_bytes", [1, 10**9])
def test_shuffled_and_augmented_backends_agree(tmp_path, cache_bytes):
    path = make_pack(tmp_path / "p.h5", (48, 48), "16", "ycbcr")
    options = {"shuffle": True, "augment": True, "seed": 3, "cache_bytes": cache_bytes}
    first, second = (decoded(path, backend=backend, **options) for backend in ("torch", "scipy"))
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "scipy"])
@pytest.mark.parametrize(("size", "tile"), [((32, 32), "full"), ((64, 64), "16")])
def test_half_resolution_is_the_truncated_spectrum(tmp_path, backend, size, tile):
    path = make_pack(tmp_path / "p.h5", size, tile, "ycbcr")
    half = decoded(path, backend=backend, resolution=size[0] // 2)
    with open_pack(path) as pack:
        header = pack.header
        values = np.concatenate([pack.read_chunk(c).values for c in range(header.chunks)]) * header.step
    side = header.tile_shape[0]
    low = values.reshape(*values.shape[:3], side, side)[..., : side // 2, : side // 2] / 2
    shape = (side // 2, side // 2)
    flat = low.reshape(*values.shape[:3], -1)
    whole = from_tiles(flat, shape, header.grid, (size[0] // 2,) * 2, header.color_space) + 0.5
    np.testing.assert_allclose(half, whole, atol=1e-5)


def test_sizes_that_cut_pixels_are_refused(tmp_path):
    path = make_pack(tmp_path / "p.h5", (48, 48), "16", "ycbcr")
    with pytest.raises(ConfigError, match="`resolution` 25"):
        PackLoader(path, resolution=25)


def test_only_low_frequencies_are_multiplied(tmp_path):
    path = make_pack(tmp_path / "p.h5", (32, 32), "full", "ycbcr", step=3.0)
    with open_pack(path) as pack:
        assert pack.read_chunk(0).extents.max() < 20
    np.testing.assert_allclose(decoded(path), expected(path), atol=1e-5)


def test_dataset_gives_the_loaders_images(tmp_path):
    path = make_pack(tmp_path / "p.h5", (32, 32), "full", "ycbcr")
    dataset = PackDataset(path, backend="scipy")
    np.testing.assert_allclose(dataset[13][0], decoded(path)[13], atol=1e-5)
    assert torch.is_tensor(PackDataset(path)[0][0])


def test_state_resumes_in_mid_epoch(tmp_path):
    path = make_pack(tmp_path / "p.h5", (32, 32), "full", "ycbcr")
    size = memory_bytes(open_pack(path).header) * 8
    loader = PackLoader(path, 4, shuffle=True, seed=1, cache_bytes=size)
    whole = [images.clone() for images, _ in loader]
    again = PackLoader(path, 4, shuffle=True, seed=1, cache_bytes=size)
    first = PackLoader(path, 4, shuffle=True, seed=1, cache_bytes=size)
    for count, _ in enumerate(first, 1):
        if count == 2:
            again.load_state_dict(first.state_dict())
            break
    rest = [images for images, _ in again]
    assert len(rest) == len(whole) - 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_whole_images_with_large_sides_need_no_matrices(tmp_path, monkeypatch, backend):
    path = make_pack(tmp_path / "p.h5", (9, 90), "full", "ycbcr")
    matrices = decoded(path, backend=backend)
    monkeypatch.setattr(plan, "LARGEST_BASIS", 1)
    np.testing.assert_allclose(decoded(path, backend=backend), matrices, atol=1e-5)
