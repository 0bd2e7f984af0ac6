"""The server of real devices, as `flwr run` starts it: tests on a pack, writes the network at the end."""

from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from safetensors.torch import save_file
from server import average

from edgeprune.training.evaluation import open_test
from edgeprune_formats import open_pack

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    torch.set_num_threads(1)
    config = context.run_config
    header = open_pack(config["test"]).header
    # One device will do for a round: the others may be away.
    arrays = average(
        grid,
        Path(),
        open_test(config["test"], header),
        header=header,
        devices=1,
        rounds=config["rounds"],
        epochs=config["epochs"],
        history=[],
    )
    save_file(arrays.to_torch_state_dict(), config["output"])
