"""Batches that are computed in parts, whose gradients add up."""

import signal
from dataclasses import replace

import pytest
import torch
from training_runs import CLASSES, SHAPE, TINY, MemoryLoader, assert_same_run, run, send

from edgeprune_formats import ConfigError
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.step import Learner

pytestmark = pytest.mark.usefixtures("one_thread")


def learner(**changes):
    torch.manual_seed(0)
    # Without batch normalization's noise the gradient of a batch is that of its parts.
    fixed = {"model": "resnet8", "precision": "float32", "freeze": True, "ema": None, "batch_size": 10}
    config = replace(TINY, **fixed, **changes)
    made = Learner(config, place(config), CLASSES, 16)
    made.train()
    return made


@pytest.mark.parametrize("accumulate", [2, 3, 5])
@pytest.mark.parametrize("count", [10, 7, 3, 1])
def test_parts_of_a_batch_add_up_to_its_gradient(accumulate, count):
    images, labels = torch.randn(count, *SHAPE), torch.arange(count) % CLASSES
    results = []
    for made in (learner(), learner(accumulate=accumulate)):
        sizes = []
        made.forward = lambda x, made=made, sizes=sizes: sizes.append(len(x)) or made.model(x)
        loss, logits = made.step(images, labels, 0.1, 0)
        results.append((loss, logits, made.model.state_dict()))
        assert sum(sizes) == count
    assert max(sizes) <= max(-(-10 // accumulate), 3)
    assert min(sizes) >= min(2, count)
    (loss, logits, weights), (other_loss, other_logits, other) = results
    torch.testing.assert_close(other_loss, loss)
    torch.testing.assert_close(other_logits, logits)
    for name, value in weights.items():
        torch.testing.assert_close(other[name], value, msg=name)


@pytest.mark.slow
def test_a_run_in_parts_resumes(tmp_path):
    config = replace(TINY, accumulate=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, config, loader=MemoryLoader(32))
    with pytest.raises(TrainingInterrupted):
        run(parts, config, loader=MemoryLoader(32, on_batch=send(signal.SIGTERM, (1, 1))))
    run(parts, config, loader=MemoryLoader(32), resume=True)
    assert_same_run(parts, whole)


@pytest.mark.parametrize(("accumulate", "message"), [(0, "at least 1"), (5, "parts of one image of 8")])
def test_parts_out_of_range(accumulate, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, accumulate=accumulate)
