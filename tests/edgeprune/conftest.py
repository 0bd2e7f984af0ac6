import signal
import sys

import numpy as np
import pytest
import scoring_runs
import small_builds
import torch
from trained_weights import NETWORK

from edgeprune.cli import main


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Compute in one thread, also in the fixtures of modules: with several, sums are of another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def edgeprune(monkeypatch, capsys):
    """Run the command line in this process; give exit code, standard output and standard error."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgeprune", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def npz(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    path = tmp_path / "images.npz"
    labels = np.arange(40) % 2
    np.savez(path, x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
    return f"npz:{path}"


@pytest.fixture
def pack(edgeprune, npz, tmp_path):
    """The pack of those images, of all components."""
    edgeprune("build", "--codec", "sparse-f32", npz, "--freq-prune", 0, "-o", tmp_path / "p.h5", "-q")
    return tmp_path / "p.h5"


@pytest.fixture
def train(edgeprune, pack, tmp_path):
    """Train a small network in a folder; give the exit code, both outputs, and the folder."""

    def run(name, *options, network=NETWORK):
        folder = tmp_path / name
        return *edgeprune("train", pack, *network, *options, "-o", folder), folder

    return run


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """Noise for scoring runs, of `scoring_runs`."""
    return scoring_runs.write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, spec):
    """The scores of a run that nothing interrupted."""
    return scoring_runs.score(tmp_path_factory.mktemp("whole") / "s.h5", spec)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The source and the scores of `small_builds`, which tests leave as they are."""
    return small_builds.scored(tmp_path_factory)
