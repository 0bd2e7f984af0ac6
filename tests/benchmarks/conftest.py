"""A linear network and what attacks it."""

import pytest
import torch
from victims import linear_victim, own_images, short_searches

from edgeprune_benchmarks.robustness.attacks.table import Effort
from edgeprune_benchmarks.robustness.evaluation import Evaluator

QUICK = Effort(sparse_steps=20, sparse_queries=60, searches=5)


@pytest.fixture(scope="module")
def victim():
    return linear_victim()


@pytest.fixture(scope="module")
def images(victim):
    return own_images(victim, 12, spread=0.03)


@pytest.fixture
def evaluator(victim, images, tmp_path):
    return Evaluator(victim, *images, tmp_path, torch.device("cpu"), batch_size=5, effort=QUICK)


@pytest.fixture
def quick():
    with short_searches():
        yield
