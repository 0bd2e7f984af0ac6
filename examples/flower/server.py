"""The server of the fleet, as a Flower ServerApp: federated averaging, tested after each round."""

import os
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from learning import accuracy, new_network


def make_server(
    packs: Path,
    test: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    classes: int,
    side: int,
    devices: int,
    rounds: int,
    epochs: int,
    history: list[float],
) -> ServerApp:
    """Return a server that appends to `history` the accuracy before the first round and after each."""
    app = ServerApp()

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        network = new_network(classes, side)
        network.load_state_dict(arrays.to_torch_state_dict())
        history.append(accuracy(network, test))
        return MetricRecord({"accuracy": history[-1]})

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices
        )
        strategy.start(
            grid,
            ArrayRecord(new_network(classes, side).state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({"packs": str(packs), "rounds": rounds, "epochs": epochs}),
            evaluate_fn=evaluate,
        )

    return app
