import importlib.util

import pytest
from click.testing import CliRunner

from edgeprune_benchmarks.cli import command as cli
from edgeprune_benchmarks.device.fleet import fleet_table
from edgeprune_formats import EdgePruneError


def test_the_table():
    settings = {
        "model": "resnet8",
        "train_images": 5085,
        "quality": 90,
        "devices": 2,
        "rounds": 3,
        "epochs": 4,
    }
    row = {"accuracy": 0.5, "by_round": [0.4, 0.5], "seconds": 12.4, "alone": [0.25, 0.375]}
    central = {"accuracy": 0.625, "seconds": 3.6}
    found = {
        "settings": settings,
        "versions": {"flwr": "1.42.0", "ray": "2.55"},
        "results": {"central": central, "dirichlet:0.3": row},
    }
    lines = fleet_table(found)
    assert "resnet8 on 5,085 images of CIFAR-10 at quality 90, 2 devices, 3 rounds of 4 epochs" in lines[0]
    assert "| one place, all images | 62.5 |  | 4 |" in lines
    assert "| FedAvg, split by dirichlet:0.3 | 50.0 | 25.0, 37.5 | 12 |" in lines
    assert found["results"].keys() == {"central", "dirichlet:0.3"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("flwr") is not None, reason="Flower is here")
def test_without_flower(tmp_path, monkeypatch):
    (tmp_path / "cifar10-lossless-6k.npz").touch()
    result = CliRunner().invoke(cli, ["fleet", "--data", str(tmp_path), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, EdgePruneError)
    assert "--python names a Python with edgeprune[torch] and what" in str(result.exception)
    assert not (tmp_path / "out").exists()
