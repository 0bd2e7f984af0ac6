"""The images of an epoch shared out to the processes of a group."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
import two_ranks
from damaging import damage_chunk
from forked import Forked
from random_coefficients import quantized_pack

from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime import PackLoader


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pack of 53 images in chunks of 7."""
    return quantized_pack(tmp_path_factory.mktemp("pack") / "q.h5")


def loader(path, batch_size=8, **options):
    return PackLoader(path, batch_size, True, 1, **{"backend": "native", **options})


def images_of(loader):
    return [image.tobytes() for images, _ in loader for image in images]


@pytest.mark.parametrize(("world_size", "cache_bytes"), [(2, 1), (3, 2**30), (60, 2**30)])
def test_each_image_is_seen_once_but_for_the_padding(path, world_size, cache_bytes):
    path = open_pack(path)
    whole = Counter(images_of(loader(path, cache_bytes=cache_bytes)))
    parts = [
        images_of(loader(path, rank=rank, world_size=world_size, cache_bytes=cache_bytes))
        for rank in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1
    together = Counter(image for part in parts for image in part)
    assert together.keys() == whole.keys()
    first = images_of(loader(path, cache_bytes=cache_bytes))[: -53 % world_size]
    assert together - whole == Counter(first)


@pytest.mark.first_are_quick(2)
@pytest.mark.filterwarnings("ignore:53 images are fewer than a batch of 3 in each of 60 processes")
@pytest.mark.parametrize("world_size", [2, 3, 60])
def test_drop_last_leaves_out_what_cannot_be_divided(path, world_size):
    loaders = [
        loader(path, 3, rank=rank, world_size=world_size, drop_last=True) for rank in range(world_size)
    ]
    parts = [images_of(one) for one in loaders]
    assert {len(part) for part in parts} == {53 // world_size // 3 * 3}
    assert {len(one) for one in loaders} == {53 // world_size // 3}
    assert max(Counter(image for part in parts for image in part).values(), default=1) == 1


def test_a_step_of_all_is_a_batch_of_one_process(path):
    large = [{image.tobytes() for image in images} for images, _ in loader(path, 10, drop_last=True)]
    ranks = [
        [{image.tobytes() for image in images} for images, _ in loader(path, 5, rank=rank, world_size=2)]
        for rank in (0, 1)
    ]
    assert [one | other for one, other in zip(*ranks, strict=True)][: len(large)] == large


def test_processes_draw_other_crops(path):
    crops = [
        loader(path, 53, rank=rank, world_size=2, augment="crop")._maker._augmentation(0, 0, np.arange(27))
        for rank in (0, 1)
    ]
    assert not np.array_equal(crops[0].rows, crops[1].rows)


def test_a_state_of_one_process_resumes_the_others(path):
    make = [lambda rank=rank: loader(path, rank=rank, world_size=2, augment=True) for rank in (0, 1)]
    first, second = make[0](), make[1]()
    for one in (first, second):
        batches = iter(one)
        next(batches), next(batches)
        batches.close()
    state = json.loads(json.dumps(first.state_dict()))
    resumed = make[1]()
    resumed.load_state_dict(state)
    second.load_state_dict(second.state_dict())
    assert images_of(resumed) == images_of(second)
    for other in (loader(path, augment=True), loader(path, augment=True, rank=0, world_size=3)):
        with pytest.raises(ConfigError, match=r"cannot resume: world_size was 2 and is now [13]"):
            other.load_state_dict(state)
    old = loader(path).state_dict()
    del old["world_size"]
    loader(path).load_state_dict(old)
    with pytest.raises(ConfigError, match="cannot resume: world_size was 1 and is now 2"):
        loader(path, rank=0, world_size=2).load_state_dict(old)


def test_a_damaged_chunk_is_left_out_in_each_process(tmp_path):
    path = quantized_pack(tmp_path / "q.h5")
    sound = Counter(images_of(loader(path)))
    damage_chunk(path, 3)
    parts = [images_of(loader(path, rank=rank, world_size=2, on_corrupt="skip")) for rank in (0, 1)]
    assert [len(part) for part in parts] == [27, 27]
    assert len(sound) - len({*parts[0], *parts[1]}) == 7


@pytest.mark.slow
def test_where_chunks_are_left_out_each_process_goes_on_from_its_own_state(tmp_path):
    path = quantized_pack(tmp_path / "q.h5")
    damage_chunk(path, 7)

    def make(rank):
        return loader(path, 3, rank=rank, world_size=2, on_corrupt="skip", prefetch=0)

    found = [], []
    for rank in (0, 1):
        whole = images_of(make(rank))
        for stop in range(9):
            stopped = make(rank)
            batches = iter(stopped)
            for _ in range(stop):
                next(batches)
            batches.close()
            state = json.loads(json.dumps(stopped.state_dict()))
            found[rank].append(state["skipped"])
            resumed = make(rank)
            resumed.load_state_dict(state)
            assert images_of(resumed) == whole[3 * stop :]
    # They find the chunk at different batches, so that one's state is not the other's.
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 1}, "`rank` and `world_size` go together"),
        ({"world_size": 2}, "`rank` and `world_size` go together"),
        ({"rank": 2, "world_size": 2}, "`rank` is 2 and `world_size` 2; it must be from 0 to 1"),
        ({"rank": -1, "world_size": 2}, "`rank` is -1"),
    ],
)
def test_what_is_wrong_is_said(path, options, message):
    with pytest.raises(ConfigError, match=message):
        loader(path, **options)


@pytest.mark.slow
def test_two_processes_of_a_group(path, tmp_path):
    with Forked(partial(two_ranks.both, path, tmp_path / "store")) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found = json.loads(out)
    one, other = found["ranks"]
    seen = [number for rank in (one, other) for batch in rank["images"] for number in batch]
    assert len(seen) == 54
    assert len(set(seen)) == 53
    for rank in (one, other):
        assert rank["warned when told"] == []
        assert rank["warned again"] == []
        (message,) = rank["warned"]
        assert "each of the 2 processes gets the same images; pass `rank` and `world_size`" in message
        for ours, alone in zip(rank["weights"], found["alone"], strict=True):
            np.testing.assert_allclose(ours, alone, atol=1e-12)
