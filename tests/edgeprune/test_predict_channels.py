"""Images that a network of other channels than RGB is asked for, and tested with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plane_packs import plane_header, plane_pack, plane_pixels

from edgeprune.errors import SourceError
from edgeprune.inference.prediction import predict
from edgeprune.training.evaluation import open_test
from edgeprune_runtime.task import Task

RANDOM = np.random.default_rng(3)


@dataclass
class Mean:
    """Logits that tell the mean of each plane."""

    image_shape: tuple[int, int, int]
    path: Path = Path("model.onnx")
    class_names = None
    task = Task()
    takes_coefficients = False

    def logits(self, images):
        return images.mean(axis=(2, 3)) * 10


def expected(pixels, peak=255):
    """What `predict` tells of pixels [H, W, C]."""
    powers = np.exp(pixels.mean(axis=(0, 1)) / peak * 10)
    return powers / powers.sum()


def write(folder, name, pixels):
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_files_are_read_with_the_planes_that_the_network_takes(tmp_path):
    gray, color = RANDOM.integers(0, 256, (8, 8), np.uint8), RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
    alpha = RANDOM.integers(0, 256, (8, 8, 4), np.uint8)
    files = [write(tmp_path, f"{number}.png", one) for number, one in enumerate((gray, color, alpha))]
    (first, *_), of_alpha = predict(Mean((3, 8, 8)), files[:2]), list(predict(Mean((4, 8, 8)), files[2:]))
    np.testing.assert_allclose(first.probabilities, [1 / 3] * 3, rtol=1e-5)
    np.testing.assert_allclose(of_alpha[0].probabilities, expected(alpha), rtol=1e-4)
    with pytest.raises(SourceError, match="is RGB, and 5 planes are needed"):
        list(predict(Mean((5, 8, 8)), files[1:2]))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_source_and_a_pack_of_planes_are_told_alike(tmp_path, bits):
    pixels = plane_pixels(4, 2, 8, 8, bits)
    np.savez(tmp_path / "a.npz", x=pixels, y=[0, 1, 0, 1])
    path = plane_pack(tmp_path / "a.h5", plane_header(pixels, "sparse-f32"), pixels)
    model = Mean((2, 8, 8))
    of_source, of_pack = list(predict(model, [f"npz:{tmp_path}/a.npz"])), list(predict(model, [path]))
    for image, one, other in zip(pixels, of_source, of_pack, strict=True):
        wanted = expected(image.transpose(1, 2, 0), 2**bits - 1)
        np.testing.assert_allclose(one.probabilities, wanted, rtol=1e-4)
        np.testing.assert_allclose(other.probabilities, wanted, rtol=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_test_images_have_the_planes_and_the_scale_of_the_training_pack(tmp_path, bits):
    dtype = np.uint16 if bits == 16 else np.uint8
    pixels = RANDOM.integers(0, 2**bits, (2, 8, 8)).astype(dtype)
    for number, name in enumerate(("cat", "dog")):
        write(tmp_path / name, "1.png", pixels[number])
    header = plane_header(pixels[:, None])
    (images, labels), *rest = open_test(f"imagefolder:{tmp_path}", header)
    assert not rest
    assert labels.tolist() == [0, 1]
    normal = (pixels[:, None] / (2**bits - 1) - 0.5) / 0.2
    np.testing.assert_allclose(images.numpy(), normal, atol=1e-5)


def test_color_test_images_of_a_gray_pack_are_made_gray(tmp_path):
    color = RANDOM.integers(0, 256, (2, 8, 8, 3), np.uint8)
    for number, name in enumerate(("cat", "dog")):
        write(tmp_path / name, "1.png", color[number])
    header = plane_header(np.zeros((2, 1, 8, 8), np.uint8))
    ((images, _),) = open_test(f"imagefolder:{tmp_path}", header)
    gray = np.asarray(Image.fromarray(color[1]).convert("L"))
    np.testing.assert_allclose(images[1, 0].numpy(), (gray / 255 - 0.5) / 0.2, atol=1e-5)
