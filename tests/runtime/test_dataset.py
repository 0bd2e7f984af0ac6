import multiprocessing
import os
import pickle
import re
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from forked import Forked
from random_coefficients import quantized_pack
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from edgeprune_runtime import PackDataset, PackLoader, open_packs


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


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.array])
def test_indices_of_numpy_are_indices(make_pack, kind):
    path, _ = make_pack(samples=30, components=20, chunk_samples=7)
    dataset = PackDataset(path)
    for index in (0, 7, 29):
        image, label = dataset[kind(index)]
        assert torch.equal(image, dataset[index][0])
        assert label == dataset[index][1]
        assert type(label) is int
    for index in (-1, -30):
        if kind is not np.uint8:
            assert torch.equal(dataset[kind(index)][0], dataset[30 + index][0])
    with pytest.raises(IndexError, match="index 30 of a pack of 30"):
        dataset[kind(30)]


NO_INTEGERS = (1.5, "1", None, True, np.float32(1), np.True_, torch.tensor(1.0), torch.tensor(True))


@pytest.mark.parametrize("index", NO_INTEGERS, ids=repr)
def test_what_is_no_integer_is_no_index(make_pack, index):
    path, _ = make_pack(samples=30)
    dataset = PackDataset(path)
    for wrong in (index, [0, index]):
        with pytest.raises(TypeError, match=re.escape(f"must be an integer, not {index!r}")):
            dataset[wrong]
    with pytest.raises(TypeError, match="must be an integer, not"):
        dataset.__getitems__([index])


@pytest.mark.parametrize(
    "index", [np.zeros((1, 1), int), torch.zeros(1, 1, dtype=torch.int64), [[0]], np.array([True]), {0}]
)
def test_what_holds_no_list_of_integers_is_no_index(make_pack, index):
    path, _ = make_pack(samples=30)
    with pytest.raises(TypeError, match="must be an integer, not"):
        PackDataset(path)[index]


SEVERAL = (
    [29, 0, -3, 0],
    (7,),
    [np.int32(3), torch.tensor(4), -30],
    np.array([5, -1], np.int16),
    torch.tensor([2, 2, 9]),
    range(28, 30),
    slice(25, 100),
    slice(None, None, -7),
    slice(3, 3),
    [],
)


@pytest.mark.first_are_quick(8)
@pytest.mark.parametrize("indices", SEVERAL, ids=repr)
@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_several_indices_give_a_batch(make_pack, backend, indices):
    path, _ = make_pack(samples=30, components=20, chunk_samples=7)
    dataset = PackDataset(path, backend=backend)
    images, labels = dataset[indices]
    rows = np.arange(30)[indices if isinstance(indices, slice) else [int(index) for index in indices]]
    assert isinstance(images, torch.Tensor if backend == "torch" else np.ndarray)
    assert tuple(images.shape) == (len(rows), *dataset.pack.header.shape)
    assert labels.dtype == np.int64
    assert labels.tolist() == dataset.pack.labels[rows].tolist()
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(dataset[int(row)][0]))


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_a_transform_is_applied_to_each_image_of_a_batch(make_pack, backend):
    path, _ = make_pack(samples=9)
    plain = PackDataset(path, backend=backend)
    halved = PackDataset(path, backend=backend, transform=lambda image: image[:, ::2] / 2)
    np.testing.assert_array_equal(np.asarray(halved[[3, 1]][0]), np.asarray(plain[[3, 1]][0])[:, :, ::2] / 2)
    assert PackDataset(path, transform=lambda image: "one")[2:4][0] == ["one", "one"]


def test_an_index_outside_among_several(make_pack):
    path, _ = make_pack(samples=30)
    for index in (30, -31):
        with pytest.raises(IndexError, match=f"index {index} of a pack of 30"):
            PackDataset(path)[[0, index]]


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_a_sampler_of_batches(make_pack, backend):
    path, _ = make_pack(samples=30, chunk_samples=7)
    dataset = PackDataset(path, backend=backend)
    sampler = BatchSampler(SequentialSampler(dataset), batch_size=8, drop_last=False)
    batches = list(DataLoader(dataset, batch_size=None, sampler=sampler))
    assert [len(images) for images, _ in batches] == [8, 8, 8, 6]
    assert all(isinstance(part, torch.Tensor) for batch in batches for part in batch)
    whole = next(iter(DataLoader(dataset, batch_size=30)))
    for place in (0, 1):
        assert torch.equal(torch.cat([batch[place] for batch in batches]), whole[place])


@pytest.mark.parametrize("options", [{}, {"batch_size": None}, {"shuffle": True}])
def test_a_loader_in_a_data_loader_says_what_to_use(make_pack, options):
    path, _ = make_pack(samples=30)
    with pytest.raises(TypeError, match="give DataLoader a PackDataset instead"):
        next(iter(DataLoader(PackLoader(path, 8, device="cpu"), **options)))


def test_a_batch_of_several_packs_is_measured_by_each(make_pack, tmp_path, monkeypatch):
    small = quantized_pack(tmp_path / "a.h5", samples=11, chunk_samples=4)
    large, _ = make_pack("b.h5", samples=30, components=20, chunk_samples=7)
    dataset = PackDataset([small, large])
    asked = []
    monkeypatch.setattr(
        "edgeprune_runtime.loading.dataset.check_batch", lambda plan, count: asked.append((plan, count))
    )
    dataset.__getitems__([0, 1])
    assert [(plan.header.codec, count) for plan, count in asked] == [
        (pack.header.codec, 2) for pack in dataset.pack.packs
    ]


def test_an_index_beyond_64_bits_is_outside(make_pack):
    path, _ = make_pack(samples=30)
    with pytest.raises(IndexError, match="of a pack of 30"):
        PackDataset(path)[2**70]


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_several_packs_are_one_dataset(make_pack, tmp_path, normalize):
    paths = [
        make_pack("a.h5", samples=30, components=20, chunk_samples=7)[0],
        quantized_pack(tmp_path / "b.h5", samples=11, chunk_samples=4),
    ]
    expected = np.concatenate(
        [np.asarray(x) for x, _ in PackLoader(paths, 8, normalize=normalize, device="cpu")]
    )
    for packs in (paths, open_packs(paths)):
        dataset = PackDataset(packs, normalize=normalize)
        assert len(dataset) == 41
        several = dataset.__getitems__([40, 3, -12, 30, -41])
        for (image, label), index in zip(several, [40, 3, 29, 30, 0], strict=True):
            np.testing.assert_array_equal(np.asarray(image), expected[index])
            assert label == dataset.pack.labels[index]
        copy = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(copy[35][0], dataset[35][0])
    assert torch.equal(PackDataset(paths[:1])[-1][0], PackDataset(paths[0])[29][0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_a_thread_reads_leaves_the_child_able_to(make_pack):
    path, _ = make_pack(samples=30)
    dataset = PackDataset(path, backend="native")
    expected = dataset[3][0]
    with dataset._reader._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(0 if np.array_equal(dataset[3][0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_backend_decides_what_an_image_is(make_pack):
    path, _ = make_pack(samples=3)
    assert isinstance(PackDataset(path)[0][0], torch.Tensor)
    assert isinstance(PackDataset(path, backend="scipy")[0][0], np.ndarray)


@pytest.mark.parametrize("index", [30, -31])
def test_an_index_outside_is_an_index_error(make_pack, index):
    path, _ = make_pack(samples=30)
    with pytest.raises(IndexError, match=f"index {index} of a pack of 30"):
        PackDataset(path)[index]


@pytest.mark.slow
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
def test_data_loader_workers_read_the_right_images(make_pack, context):
    path, _ = make_pack(samples=50, chunk_samples=7)
    with Forked(partial(read_by_workers, path, context)) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.strip() == "50"


def read_by_workers(path, context):
    warnings.simplefilter("ignore")
    dataset = PackDataset(path, normalize=True)
    dataset[0]
    # It takes seconds to import torch: one worker that is spawned stays for both epochs, others are forks.
    multiprocessing.set_forkserver_preload(["edgeprune_runtime", "torch"])
    spawned = context == "spawn"
    workers = {"num_workers": 1 if spawned else 2, "persistent_workers": spawned}
    loader = DataLoader(dataset, 8, multiprocessing_context=context, **workers)
    for _ in range(2):
        batches = list(loader)
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(images, torch.stack([dataset[i][0] for i in range(len(dataset))]))
    assert labels.tolist() == dataset.pack.labels.tolist()
    assert labels.dtype == torch.int64
    print(len(labels))
