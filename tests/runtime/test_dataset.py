import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from edgeprune_runtime import PackDataset, PackLoader

WORKERS = """
import sys
import torch
from torch.utils.data import DataLoader
from edgeprune_runtime import PackDataset

def main():
    path, context = sys.argv[1:]
    dataset = PackDataset(path, normalize=True)
    dataset[0]
    loader = DataLoader(dataset, 8, num_workers=2, multiprocessing_context=context)
    for epoch in range(2):
        batches = list(loader)
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(images, torch.stack([dataset[i][0] for i in range(len(dataset))]))
    assert labels.tolist() == dataset.pack.labels.tolist()
    assert labels.dtype == torch.int64
    print(len(labels))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_items_equal_the_loaders_batches(make_pack, backend):
    path, _ = make_pack(samples=30, components=20, chunk_samples=7)
    dataset = PackDataset(path, backend=backend, resolution=16)
    images = np.concatenate(
        [np.asarray(x) for x, _ in PackLoader(path, 8, backend=backend, device="cpu", resolution=16)]
    )
    assert len(dataset) == 30
    for index in (0, 7, 29, -1):
        image, label = dataset[index]
        np.testing.assert_array_equal(np.asarray(image), images[index])
        assert label == dataset.pack.labels[index]
    several = dataset.__getitems__([29, 0, 0, -3])
    for (image, _), index in zip(several, [29, 0, 0, 27], strict=True):
        np.testing.assert_array_equal(np.asarray(image), images[index])


def test_backend_decides_what_an_image_is(make_pack):
    path, _ = make_pack(samples=3)
    assert isinstance(PackDataset(path)[0][0], torch.Tensor)
    assert isinstance(PackDataset(path, backend="scipy")[0][0], np.ndarray)


@pytest.mark.parametrize("index", [30, -31])
def test_an_index_outside_is_an_index_error(make_pack, index):
    path, _ = make_pack(samples=30)
    with pytest.raises(IndexError, match=f"index {index} of a pack of 30"):
        PackDataset(path)[index]


def test_threads_may_share_a_dataset(make_pack):
    path, _ = make_pack(samples=60, components=20, chunk_samples=7)
    dataset = PackDataset(path, cache_bytes=5000)
    expected = [dataset[index][0] for index in range(60)]
    rows = np.random.default_rng(0).integers(0, 60, 800).tolist()
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda index: dataset[index][0], rows))
    assert all(torch.equal(image, expected[index]) for image, index in zip(images, rows, strict=True))


def test_iterating_ends(make_pack):
    path, _ = make_pack(samples=5)
    assert len(list(PackDataset(path))) == 5


def test_transform_is_applied_to_each_image(make_pack):
    path, _ = make_pack(samples=3)
    doubled = PackDataset(path, transform=lambda image: 2 * image)
    assert torch.equal(doubled[1][0], 2 * PackDataset(path)[1][0])


def test_pickling_keeps_the_dataset_and_drops_the_cache(make_pack):
    path, _ = make_pack(samples=30)
    dataset = PackDataset(path)
    dataset.__getitems__(range(30))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 20_000
    assert torch.equal(pickle.loads(pickled)[3][0], dataset[3][0])


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_data_loader_workers_read_the_right_images(make_pack, tmp_path, context):
    path, _ = make_pack(samples=50, chunk_samples=7)
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    command = [sys.executable, "-W", "ignore", str(script), str(path), context]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "50"
