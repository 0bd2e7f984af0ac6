"""Fixtures of the training tests."""

import pytest
import torch
from training_runs import run


@pytest.fixture(scope="module")
def one_thread():
    """Small steps gain nothing from threads, and lose much where another process wants the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run(run_dir, provenance={"pack": "digits.h5"})
