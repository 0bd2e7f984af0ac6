import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Compute in one thread, also in the fixtures of modules: with several, sums are of another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
