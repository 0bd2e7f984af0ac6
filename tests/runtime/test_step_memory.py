from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from forked import Forked

from edgeprune_formats import ConfigError
from edgeprune_runtime.networks.models import MODEL_NAMES, create_model
from edgeprune_runtime.system.machine import peak_bytes, resident_bytes
from edgeprune_runtime.training import memory as module
from edgeprune_runtime.training.memory import (
    StepMemory,
    choose_parts,
    free_bytes,
    memory_warning,
    step_memory,
)
from edgeprune_runtime.training.placement import Placement, place
from edgeprune_runtime.training.settings import TrainConfig
from edgeprune_runtime.training.step import Learner

MB = 10**6


def measure(name, side, images):
    """Tell how much more memory two steps take than there was before, and how much they are said to take."""
    config = TrainConfig(model=name, device="cpu", precision="float32")
    estimate = step_memory(config, 10, (3, side, side))
    placement = place(config)
    before = resident_bytes()
    learner = Learner(config, placement, 10, side)
    learner.train()
    # The momentum is there from the second on, and the first leaves it however few its images are.
    for step, count in enumerate((2, images)):
        batch = placement.put(torch.randn(count, 3, side, side), torch.arange(count) % 10)
        learner.step(*batch, 0.01, step)
    print(peak_bytes() - before, estimate.fixed_bytes + images * estimate.image_bytes)


# In a fork, whose peak begins with what is resident; what all networks import is there already.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "side", "images"),
    [
        ("shufflenet_v2", 32, 32),
        ("mobilenet_v2", 112, 8),
        ("efficientnet_b0", 32, 16),
        ("resnet18", 32, 16),
        ("resnet8", 112, 8),
        ("resnet9", 32, 32),
    ],
)
def test_the_estimate_is_above_the_peak_and_not_far(model, side, images):
    with Forked(partial(measure, model, side, images)) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    peak, estimate = map(int, out.split())
    assert peak <= estimate <= 2.5 * peak


@pytest.mark.parametrize(
    "model",
    # resnet20 and resnet34 are more of the blocks of resnet8 and resnet18.
    [
        pytest.param(model, marks=() if model == "resnet8" else pytest.mark.slow)
        for model in MODEL_NAMES
        if model not in ("resnet20", "resnet34")
    ],
)
def test_nothing_is_computed_and_larger_images_take_more(model):
    config = TrainConfig(model=model)
    state = torch.get_rng_state()
    small, large = (step_memory(config, 10, (3, side, side)) for side in (64, 128))
    assert torch.equal(torch.get_rng_state(), state)
    assert large.fixed_bytes == small.fixed_bytes
    assert large.image_bytes == pytest.approx(4 * small.image_bytes, rel=0.05)


def test_less_is_kept_where_less_is_trained():
    config = TrainConfig(model="resnet8")
    whole = step_memory(config, 10, (3, 32, 32))
    assert step_memory(replace(config, freeze=True), 10, (3, 32, 32)).image_bytes < whole.image_bytes / 4
    weights = step_memory(replace(config, ema=0.9), 10, (3, 32, 32)).fixed_bytes - whole.fixed_bytes
    assert weights == 4 * sum(p.numel() for p in create_model("resnet8", 10, 32).parameters())


@pytest.mark.parametrize(
    ("room", "parts"), [(1000, 1), (260, 1), (240, 2), (100, 4), (60, 10), (50, 20), (42, 50), (41, None)]
)
def test_as_few_parts_as_fit(room, parts):
    memory = StepMemory(fixed_bytes=30 * MB, image_bytes=round(1.7 * MB))
    config = TrainConfig(batch_size=100)
    if parts is None:
        message = "mobilenet_v2 needs about 42 MB for two images at a time, and 41 MB are free; free memory"
        with pytest.raises(ConfigError, match=message):
            choose_parts(config, memory, room * MB)
        return
    assert choose_parts(config, memory, room * MB) == parts
    assert memory.fixed_bytes + -(-100 // parts) * memory.image_bytes <= 0.8 * room * MB
    replace(config, accumulate=parts)


@pytest.mark.parametrize(
    ("images", "parts", "free", "need"),
    [
        (1000, 1, 115, None),
        (1000, 1, 114, "100 images at a time may take up to 230 MB"),
        (1000, 2, 65, None),
        (1000, 2, 64, "50 images at a time may take up to 130 MB"),
        (20, 1, 35, None),
        (1000, 1, None, None),
    ],
)
def test_a_step_that_hardly_fits_is_warned_of(monkeypatch, images, parts, free, need):
    monkeypatch.setattr(module, "available_bytes", lambda: None if free is None else free * MB)
    memory = StepMemory(fixed_bytes=30 * MB, image_bytes=2 * MB)
    config = TrainConfig(batch_size=100, accumulate=parts)
    found = memory_warning(config, memory, images, Placement(torch.device("cpu"), "float32"))
    if need is None:
        assert found is None
    else:
        assert found.startswith(f"{need} with mobilenet_v2, and {free} MB are free; ")


def gpu(monkeypatch, *, integrated):
    facts = {"get_device_properties": SimpleNamespace(is_integrated=integrated), "mem_get_info": (100, 1000)}
    for name, value in {**facts, "memory_reserved": 50, "memory_allocated": 20}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(module, "available_bytes", lambda: 300)
    return Placement(torch.device("cuda"), "float32")


@pytest.mark.parametrize(("integrated", "free"), [(False, 130), (True, 330)])
def test_free_memory_of_a_gpu_has_what_torch_holds_unused(monkeypatch, integrated, free):
    assert free_bytes(gpu(monkeypatch, integrated=integrated)) == free


@pytest.mark.parametrize("integrated", [False, True])
def test_only_a_gpu_in_the_memory_of_the_host_is_warned_of(monkeypatch, integrated):
    memory = StepMemory(fixed_bytes=1000, image_bytes=1)
    found = memory_warning(TrainConfig(), memory, 1000, gpu(monkeypatch, integrated=integrated))
    assert (found is not None) == integrated


def test_free_memory_of_a_cpu(monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda: 123)
    assert free_bytes(Placement(torch.device("cpu"), "float32")) == 123
