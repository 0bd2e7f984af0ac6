"""Lower resolutions in the first epochs: what batches are, and where they go on."""

import json
import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import own_networks
import pytest
from batch_copies import copied, same
from damaging import damage_chunk
from random_coefficients import quantized_pack
from training_runs import TINY, assert_same_run, metrics

from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.loading.order.resolutions import ResolutionSchedule
from edgeprune_runtime.networks.code import allow_code
from edgeprune_runtime.networks.shapes import shaped_network, smallest_batch
from edgeprune_runtime.training import Cadence, TrainConfig, TrainingInterrupted, train
from edgeprune_runtime.training.loop import TrainRun
from edgeprune_runtime.training.progress.stopping import is_over

SCHEDULE, SIDES = "6:1,12:2", (6, 12, 12, 16)


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Two packs of 16x16, of 25 and 9 images in chunks of 7 and 4, of whole images and of tiles."""
    folder = tmp_path_factory.mktemp("packs")
    one = quantized_pack(folder / "a.h5", size=(16, 16), samples=25)
    other = quantized_pack(folder / "b.h5", size=(16, 16), samples=9, chunk_samples=4, tile="8")
    return [open_pack(one), open_pack(other)]


def loader(packs, schedule=SCHEDULE, **options):
    return PackLoader(
        packs, 8, True, 1, **{"backend": "native", "augment": True, "normalize": True} | options,
        resolution_schedule=schedule,
    )  # fmt: skip


VARIANTS = [
    {},
    {"backend": "torch", "device": "cpu", "reuse_buffers": True, "augment": "light"},
    {"backend": "scipy", "prefetch": 0, "sampling": "balanced", "dtype": "float64"},
    {"cache_bytes": 1, "rank": 1, "world_size": 2, "reuse_buffers": 2},
    {"replay": 0.5, "drop_last": True, "augment": "short"},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_each_epoch_is_that_of_a_loader_of_its_resolution(packs, options):
    scheduled = loader(packs, **options)
    assert scheduled.resolution_schedule.epochs == 3
    for epoch, side in [*enumerate(SIDES), (1, 12), (0, 6), (7, 16)]:
        scheduled.set_epoch(epoch)
        plain = loader(packs, None, resolution=side, **options)
        plain.set_epoch(epoch)
        found = copied(scheduled)
        assert found[0][0].shape[1:] == (3, side, side)
        assert same(found, copied(plain))
    assert scheduled.normalization == plain.normalization


@pytest.mark.parametrize("options", [VARIANTS[1], *VARIANTS[3:]])
def test_a_state_of_any_batch_goes_on_across_resolutions(packs, options):
    original = loader(packs, **options)
    states, batches = [], []
    for _ in range(5):
        for batch in original:
            states.append(json.loads(json.dumps(original.state_dict())))
            batches += copied([batch])
    size = len(original)
    assert [states[size - 1][name] for name in ("epoch", "batch")] == [1, 0]
    resumed = loader(packs, **options)
    for place in range(4 * size - 1):
        resumed.load_state_dict(states[place])
        resumed.set_epoch(states[place]["epoch"])
        # The rest of the epoch, and the first batch of the next.
        left = size - states[place]["batch"]
        found = copied(resumed)
        found += copied([next(iter(resumed))])
        assert same(found, batches[place + 1 : place + 2 + left])


def test_the_resolution_of_the_other_epochs_may_be_lower_as_well(packs):
    one = loader(packs, "6:1", resolution=12)
    assert [next(iter(one))[0].shape[2] for _ in range(2)] == [6, 12]


def test_chunks_stay_in_memory_and_skipped_ones_out_when_the_resolution_changes(tmp_path, packs):
    path = tmp_path / "damaged.h5"
    path.write_bytes(packs[0].path.read_bytes())
    damage_chunk(path, 2)
    both = [loader(path, schedule, on_corrupt="skip") for schedule in (SCHEDULE, None)]
    caches = {id(both[0]._reader.cache)}
    for _ in SIDES:
        labels = [np.concatenate([found for _, found in one]) for one in both]
        np.testing.assert_array_equal(*labels)
        caches.add(id(both[0]._reader.cache))
    assert [one.chunk for one in both[0].skipped] == [2]
    assert len(caches) == 1


def test_two_iterations_of_different_resolutions_at_a_time(packs):
    scheduled, plain = loader(packs, reuse_buffers=True), loader(packs, None)
    small = copied(loader(packs, None, resolution=6))
    plain.set_epoch(3)
    large = copied(plain)
    early = iter(scheduled)
    found = copied([next(early)])
    scheduled.set_epoch(3)
    assert same(copied(scheduled), large)
    assert same(found + copied(early), small)
    # Its buffers are no longer those of the loader.
    scheduled.set_epoch(3)
    assert same(copied(scheduled), large)
    again = pickle.loads(pickle.dumps(scheduled))
    again.set_epoch(0)
    assert same(copied(again), small)


def test_a_state_of_another_schedule_is_refused(packs):
    states = {schedule: loader(packs, schedule).state_dict() for schedule in (None, "6:1", SCHEDULE)}
    # As states were before there was a schedule.
    del states[None]["resolution_schedule"]
    for ours in states:
        for theirs, state in states.items():
            if ours == theirs:
                loader(packs, ours).load_state_dict(state)
                continue
            with pytest.raises(ConfigError) as caught:
                loader(packs, ours).load_state_dict(state)
            assert str(caught.value) == f"cannot resume: resolution_schedule was {theirs} and is now {ours}"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("", "is ''; it is SIZE:EPOCHS, or several"),
        ("8", "it is SIZE:EPOCHS"),
        ("8:0", "it is SIZE:EPOCHS"),
        ("8:2,", "it is SIZE:EPOCHS"),
        ("8:2, 12:1", "it is SIZE:EPOCHS"),
        ("8x8x8:2", "it is SIZE:EPOCHS"),
        (((8, 2),), "it is SIZE:EPOCHS"),
        ("12:1,8:2", "each size must be larger than the last"),
        ("12:1,12x12:2", "each size must be larger than the last"),
        ("6x12:1,8x10:2", "each size must be larger than the last"),
        ("8:1,17:1", "has 17x17, and images have 16x16 pixels; name smaller sizes"),
        (
            "5:1",
            "5 does not fit this pack's tiles of 8 pixels; choose one of 2, 4, 6, 8, 10, 12",
        ),
    ],
)
def test_what_is_no_schedule_is_refused(packs, schedule, message):
    with pytest.raises(ConfigError, match="`resolution_schedule`") as caught:
        loader(packs, schedule)
    assert message in str(caught.value)


def test_images_that_are_not_square(tmp_path):
    path = quantized_pack(tmp_path / "wide.h5", size=(16, 24), samples=3, chunk_samples=3)
    wide = loader(path, "8x12:1,16x12:1")
    assert [next(iter(wide))[0].shape[2:] for _ in range(3)] == [(8, 12), (16, 12), (16, 24)]
    assert str(wide.resolution_schedule) == "8x12:1,16x12:1"
    with pytest.raises(ConfigError, match=r"has 8, and images have 16x24 pixels; .* such as 8x12:6"):
        loader(path, "8:1")
    assert ResolutionSchedule.parse(None).size(0) is None


# Training.


CONFIG = replace(TINY, epochs=3, ema=None, resolution_schedule="8:1,12:1")


def start(pack, run_dir, config=CONFIG, *, loader_of=lambda one: one, **options):
    one = PackLoader(
        pack, 8, True, device="cpu", normalize=True, augment=True,
        resolution_schedule=options.pop("given", config.resolution_schedule),
    )  # fmt: skip
    return train(
        loader_of(one),
        config,
        run_dir,
        num_classes=3,
        image_shape=(3, 16, 16),
        resume=True,
        **{"test": None} | options,
    )


class Stopping:
    """A loader that asks for an end in an epoch and batch."""

    def __init__(self, loader, at):
        self._loader, self._at = loader, at
        self.sides = []

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def __len__(self):
        return len(self._loader)

    def __iter__(self):
        for images, labels in self._loader:
            self.sides.append((len(labels), images.shape[2]))
            if (self._loader._epoch, self._loader._batch) == self._at:
                os.kill(os.getpid(), signal.SIGINT)
            yield images, labels


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_was_stopped_at_each_place_ends_in_the_same_weights(packs, tmp_path):
    tested = PackLoader(packs[1], 9, device="cpu", normalize=True)
    start(packs[0], tmp_path / "whole", test=tested)
    seen = []
    # In the middle of a stage, after its last batch, and after the first of the next.
    for at in ((0, 2), (0, 4), (1, 1), (1, 4), (9, 9)):
        stopping = []

        def stops(one, at=at, stopping=stopping):
            stopping.append(Stopping(one, at))
            return stopping[0]

        try:
            start(packs[0], tmp_path / "cut", loader_of=stops, test=tested, cadence=Cadence(steps=1))
        except TrainingInterrupted:
            seen.append("stopped")
        seen += stopping[0].sides
    assert seen.count("stopped") == 4
    sizes = [(8, side) for side in (8, 12, 16) for _ in range(3)]
    sizes = [*sizes[:3], (1, 8), *sizes[3:6], (1, 12), *sizes[6:], (1, 16)]
    assert [one for one in seen if one != "stopped"] == sizes
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    record = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert record["config"]["resolution_schedule"] == "8:1,12:1"
    assert record["image_shape"] == [3, 16, 16]
    assert len(metrics(tmp_path / "cut")) == 3
    other = replace(CONFIG, resolution_schedule="8:2")
    with pytest.raises(ConfigError, match="resolution_schedule was '8:1,12:1' and is now '8:2'"):
        start(packs[0], tmp_path / "cut", other)


class Fixed(own_networks.Tiny):
    """Takes images of one size alone."""

    def forward(self, images):
        if images.shape[2] != 16:
            raise ValueError("wants 16 pixels")
        return super().forward(images)


def fixed(num_classes, channels):
    return Fixed(num_classes, channels)


@pytest.mark.parametrize(
    ("given", "config", "options", "message"),
    [
        (None, CONFIG, {}, "of the loader is None, and of the settings 8:1,12:1; give the same"),
        (
            "8:1",
            replace(CONFIG, resolution_schedule=None),
            {},
            "of the loader is 8:1, and of the settings None",
        ),
        ("8:1,12:1", CONFIG, {"teacher": "run"}, "a teacher has learned from images of full size"),
        ("8:1,12:1", CONFIG, {"model": fixed}, r"does not take images of 3 x 8 x 8 \(ValueError: wants 16"),
    ],
)
def test_what_does_not_go_with_a_schedule_is_said_before_training(
    packs, tmp_path, given, config, options, message
):
    with pytest.raises(ConfigError, match=message):
        start(packs[0], tmp_path / "run", config, given=given, **options)
    assert not (tmp_path / "run").exists()


def test_more_epochs_than_the_run_has_are_refused():
    TrainConfig(epochs=3, resolution_schedule="8:1,12:2")
    with pytest.raises(ConfigError, match="has 4 epochs, and `epochs` is 3; give fewer, or raise `epochs`"):
        TrainConfig(epochs=3, resolution_schedule="8:2,12:2")
    with pytest.raises(ConfigError, match="it must be a string or None"):
        TrainConfig(resolution_schedule=8)


def test_patience_waits_for_full_size():
    history = [{"test_accuracy": accuracy, "test_loss": 1.0} for accuracy in (0.9, 0.1, 0.2, 0.3)]
    config = TrainConfig(epochs=9, patience=2, resolution_schedule="8:3")
    assert [is_over(history[:epochs], config) for epochs in range(5)] == [False] * 5
    assert is_over([*history, history[0]], config)
    assert is_over(history[:3], replace(config, resolution_schedule=None))


def test_networks_are_looked_at_in_all_sizes():
    shaped_network("resnet8", 3, (3, 64, 64), "auto", [(1, 1), (17, 40)])
    assert smallest_batch("resnet8", (3, 16, 16)) == 1
    assert smallest_batch("resnet8", (3, 16, 16), size=4) == 2
    allow_code(own_networks.valued)
    assert smallest_batch("own_networks:valued", (3, 8, 8), size=(1, 1)) == 2


def test_a_single_image_is_left_out_at_the_sizes_that_cannot_have_it_alone(packs, tmp_path, monkeypatch):
    taken, step = [], TrainRun._take_step

    def watched(self, images, labels):
        taken.append((images.shape[-1], len(labels)))
        step(self, images, labels)

    monkeypatch.setattr(TrainRun, "_take_step", watched)
    config = replace(TINY, epochs=2, batch_size=8, resolution_schedule="4:1")
    batches = loader(packs[:1], "4:1", backend="torch", device="cpu")
    train(batches, config, tmp_path / "run", num_classes=10, image_shape=(3, 16, 16))
    assert taken == [(4, 8)] * 3 + [(16, 8)] * 3 + [(16, 1)]
