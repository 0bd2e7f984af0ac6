"""Damage in mid-epoch: `PackLoader(on_corrupt="skip")`, and a training run with it."""

import errno
import itertools
import json
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from batch_copies import copied, same
from damaging import damage_chunk, rows_of
from training_runs import TINY, assert_same_run, metrics

from edgeprune_formats import ConfigError, Pack, PackChecksumError, PackLayoutError, open_pack
from edgeprune_formats.packs.chunks import StoredField
from edgeprune_runtime import PackLoader
from edgeprune_runtime.training import Cadence, train
from edgeprune_runtime.training.step import Learner

SMALL = 2 * 7 * 3 * 20 * 6
SIZES = {"samples": 53, "components": 20, "chunk_samples": 7}


@pytest.fixture
def path(make_pack):
    """53 images in 8 chunks of 7, the last of 4; the chunks 0, 3 and 7 are damaged in different arrays."""
    path, _ = make_pack(**SIZES)
    for chunk, field in ((0, "values"), (3, "indices"), (7, "values")):
        damage_chunk(path, chunk, field)
    return path


LOST = (0, 3, 7)


def loader(path, **options):
    return PackLoader(
        path, **{"batch_size": 8, "shuffle": True, "backend": "scipy", "on_corrupt": "skip", **options}
    )


def shown(batches):
    """How often each image was shown."""
    return Counter(image.tobytes() for images, _ in batches for image in images)


def sound_images(path, lost=LOST):
    """The images of intact chunks, decoded without the others."""
    pack = open_pack(path)
    alone = PackLoader(pack, 1, backend="scipy", prefetch=0)._reader.images
    rows = sorted({*range(len(pack))} - {*rows_of(path, lost)})
    return {alone(np.array([row])).tobytes() for row in rows}


def numbers(loader):
    return sorted(one.chunk for one in loader.skipped)


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("cache_bytes", [3000, SMALL, 10**6])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_keeps_its_batches_and_shows_every_intact_image(path, shuffle, cache_bytes, prefetch):
    ours = loader(path, shuffle=shuffle, cache_bytes=cache_bytes, prefetch=prefetch)
    intact = sound_images(path)
    for _ in range(3):
        epoch = copied(ours)
        assert [len(labels) for _, labels in epoch] == [8] * 6 + [5]
        counts = shown(epoch)
        assert counts.keys() == intact
        assert counts.total() == 53
        assert max(counts.values()) == 2
    assert numbers(ours) == [*LOST]
    assert sum(one.images for one in ours.skipped) == 18
    assert all(str(path) in one.reason and f"chunk {one.chunk}" in one.reason for one in ours.skipped)


def test_labels_go_with_their_images(path):
    pack = open_pack(path)
    whole = PackLoader(pack, 1, backend="scipy", prefetch=0)
    rows = sorted({*range(53)} - {*rows_of(path, LOST)})
    label_of = {whole._reader.images(np.array([row])).tobytes(): pack.labels[row] for row in rows}
    for images, labels in loader(path):
        assert [label_of[image[None].tobytes()] for image in images] == labels.tolist()


def test_when_damage_was_found_makes_no_difference(path):
    knowing, finding = loader(path), loader(path)
    copied(knowing)
    assert len(knowing.skipped) == 3
    finding.set_epoch(1)
    assert same(copied(knowing), copied(finding))


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_other_backends_show_the_same_images(path, backend):
    ours = loader(path, backend=backend, device="cpu")
    for (images, labels), (expected, of_them) in zip(ours, loader(path), strict=True):
        np.testing.assert_allclose(np.asarray(images), expected, atol=1e-4)
        assert np.asarray(labels).tolist() == of_them.tolist()


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("cache_bytes", [3000, 10**6])
@pytest.mark.parametrize("stop", range(8))
def test_a_state_resumes_with_the_batches_that_would_have_followed(path, stop, cache_bytes):
    ours = loader(path, cache_bytes=cache_bytes, augment=True)
    ours.set_epoch(2)
    running = iter(ours)
    for _ in itertools.islice(running, stop):
        pass
    state = json.loads(json.dumps(ours.state_dict()))
    rest = copied(running) + copied(ours)
    resumed = loader(path, cache_bytes=cache_bytes, augment=True)
    resumed.load_state_dict(state)
    again = copied(resumed) + (copied(resumed) if stop < 7 else [])
    assert same(again, rest)


def test_an_image_that_is_taken_again_is_augmented_in_another_way(path):
    def light():
        return loader(path, backend="torch", device="cpu", augment="light", cache_bytes=3000)

    def tensors(batches):
        return [(images.numpy().copy(), labels.numpy()) for images, labels in batches]

    ours = light()
    running = iter(ours)
    first = tensors(itertools.islice(running, 2))
    state = json.loads(json.dumps(ours.state_dict()))
    rest = tensors(running)
    assert max(shown(first + rest).values()) == 1
    resumed = light()
    resumed.load_state_dict(state)
    assert same(tensors(resumed), rest)


def test_what_was_left_out_stays_so_when_it_can_be_read_again(path):
    ours = loader(path)
    copied(ours)
    for chunk, field in ((0, "values"), (3, "indices"), (7, "values")):
        damage_chunk(path, chunk, field)  # The same bit is flipped back.
    resumed = loader(path)
    resumed.load_state_dict(ours.state_dict())
    assert numbers(resumed) == [*LOST]
    assert shown(copied(resumed)).keys() == sound_images(path)


@pytest.mark.slow
def test_several_packs_of_which_two_are_damaged(make_pack):
    one, _ = make_pack("one.h5", **SIZES)
    two, _ = make_pack("two.h5", samples=31, components=40, chunk_samples=5, seed=1, compression="gzip")
    damage_chunk(one, 2)
    damage_chunk(two, 0)
    damage_chunk(two, 6)
    ours = loader([one, two], cache_bytes=10_000)
    for _ in range(2):
        epoch = copied(ours)
        assert sum(len(labels) for _, labels in epoch) == 84
        assert shown(epoch).keys() == sound_images(one, [2]) | sound_images(two, [0, 6])
    # Numbered one pack after another: the first has 8.
    assert numbers(ours) == [2, 8, 14]
    assert [one.images for one in sorted(ours.skipped, key=lambda one: one.chunk)] == [7, 5, 1]


def test_without_it_damage_is_an_error(path):
    ours = loader(path, on_corrupt="fail")
    with pytest.raises(PackChecksumError, match=r"pack.h5: /samples/"):
        copied(ours)
    with pytest.raises(ConfigError, match="`on_corrupt` is 'ignore'; choose one of fail, skip"):
        loader(path, on_corrupt="ignore")


def test_all_chunks_damaged(make_pack):
    path, _ = make_pack(**SIZES)
    for chunk in range(8):
        damage_chunk(path, chunk)
    for prefetch in (0, 2):
        with pytest.raises(PackChecksumError, match="none of the chunks can be read"):
            copied(loader(path, prefetch=prefetch))


def test_one_image_is_left(make_pack):
    path, _ = make_pack(samples=29, components=20, chunk_samples=7)
    for chunk in range(4):
        damage_chunk(path, chunk)
    epoch = copied(loader(path, drop_last=True))
    assert [len(labels) for _, labels in epoch] == [8] * 3
    assert len(shown(epoch)) == 1


@pytest.mark.parametrize("cache_bytes", [3000, 10**6])
def test_an_error_that_goes_away_leaves_nothing_out(make_pack, monkeypatch, cache_bytes):
    path, _ = make_pack(**SIZES)
    expected = shown(copied(loader(path)))
    read, failed = StoredField.read, set()

    def unreliable(field, chunk, out=None):
        if chunk not in failed:
            failed.add(chunk)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(field, chunk, out)

    monkeypatch.setattr(StoredField, "read", unreliable)
    ours = loader(path, cache_bytes=cache_bytes)
    assert shown(copied(ours)) == expected
    assert failed == {*range(8)}
    assert ours.skipped == ()


def test_an_error_of_the_disk_that_stays(make_pack, monkeypatch):
    path, _ = make_pack(**SIZES)
    read = StoredField.read

    def broken(field, chunk, out=None):
        if chunk == 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(field, chunk, out)

    monkeypatch.setattr(StoredField, "read", broken)
    ours = loader(path)
    epoch = copied(ours)
    monkeypatch.undo()
    assert shown(epoch).keys() == sound_images(path, [4])
    assert numbers(ours) == [4]


def test_a_file_that_has_changed_is_no_damaged_chunk(path):
    ours = loader(path, prefetch=0)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(PackLayoutError, match="the file has changed"):
        copied(ours)


def test_a_damaged_chunk_is_not_read_again_in_the_next_epochs(path, monkeypatch):
    read, counts = Pack.read_payload, Counter()

    def counted(pack, chunk, out=None):
        counts[chunk] += 1
        return read(pack, chunk, out)

    monkeypatch.setattr(Pack, "read_payload", counted)
    ours = loader(path, prefetch=0, cache_bytes=3000)
    for _ in range(4):
        copied(ours)
    assert all(2 <= counts[chunk] <= 4 for chunk in LOST)


@pytest.mark.parametrize("skipped", ["0", [8], [-1], [1.0], [True], [1, 1], [*range(8)], {"0": 1}, [None]])
def test_forged_states(path, skipped):
    ours = loader(path)
    with pytest.raises(ConfigError, match="cannot resume: skipped is"):
        ours.load_state_dict({**ours.state_dict(), "skipped": skipped})


def test_a_state_with_losses_is_not_resumed_without_it(path):
    ours = loader(path)
    copied(ours)
    state = ours.state_dict()
    with pytest.raises(ConfigError, match=r'chunks .* were left out as damaged; pass `on_corrupt="skip"`'):
        loader(path, on_corrupt="fail").load_state_dict(state)
    # The other way round, and a state of a release that did not know of it.
    clean = loader(path, on_corrupt="fail").state_dict()
    loader(path).load_state_dict(clean)
    del clean["skipped"]
    loader(path).load_state_dict(clean)


def run(folder, path, events=None, **options):
    ours = PackLoader(
        path, 8, True, backend="torch", device="cpu", drop_last=True, normalize=True, on_corrupt="skip"
    )
    config, on_event = replace(TINY, model="resnet8"), None if events is None else events.append
    return train(ours, config, folder, num_classes=3, image_shape=(3, 32, 32), on_event=on_event, **options)


@pytest.fixture
def whole(path, tmp_path):
    """A run of 3 epochs of 6 steps, its result and its events."""
    events = []
    return run(tmp_path / "whole", path, events), events


@pytest.mark.slow
def test_a_run_goes_on_without_them_and_says_so(path, whole):
    result, events = whole
    assert [epoch["skipped_images"] for epoch in metrics(result.run_dir)] == [18] * 3
    assert result.metrics[-1]["skipped_images"] == 18
    told = [event for event in events if event["event"] == "skipped"]
    assert sorted(event["images"] for event in told) == [4, 7, 7]
    assert all(str(path) in event["reason"] for event in told)


class PowerCut(Exception):
    """Ends a run between two checkpoints."""


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 8, 17])
def test_an_interrupted_run_ends_in_the_same_weights(path, whole, tmp_path, monkeypatch, stop):
    halted, step = tmp_path / "halted", Learner.step

    def stopped(learner, images, labels, lr, number):
        if number == stop:
            raise PowerCut
        return step(learner, images, labels, lr, number)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", stopped)
        with pytest.raises(PowerCut):
            run(halted, path, cadence=Cadence(steps=1))
    events = []
    run(halted, path, events, resume=True)
    assert_same_run(whole[0].run_dir, halted)
    assert len([event for event in events if event["event"] == "skipped"]) == 3
