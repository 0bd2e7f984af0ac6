"""The server of the fleet, as a Flower ServerApp: federated averaging, tested after each round."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from learning import accuracy, new_network

from edgeprune_formats import PackHeader


def average(
    grid: Grid,
    packs: Path,
    test: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    header: PackHeader,
    devices: int,
    rounds: int,
    epochs: int,
    history: list[float],
) -> ArrayRecord:
    """Train in rounds of at least so many devices; append to `history` the accuracy before and after each."""

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        network = new_network(header)
        network.load_state_dict(arrays.to_torch_state_dict())
        history.append(accuracy(network, test))
        return MetricRecord({"accuracy": history[-1]})

    strategy = FedAvg(
        fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices
    )
    return strategy.start(
        grid,
        ArrayRecord(new_network(header).state_dict()),
        num_rounds=rounds,
        train_config=ConfigRecord({"packs": str(packs), "rounds": rounds, "epochs": epochs}),
        evaluate_fn=evaluate,
    ).arrays


def make_server(packs: Path, test: Iterable[tuple[torch.Tensor, torch.Tensor]], **options: Any) -> ServerApp:
    """Return the server of a simulation; `options` are those of `average`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        average(grid, packs, test, **options)

    return app
