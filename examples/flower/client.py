"""A device of the fleet, as a Flower ClientApp: it trains the server's network on the pack that it holds."""

import os
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from learning import new_network, train

from edgeprune_formats import open_pack

app = ClientApp()


def own_pack(config: ConfigRecord, device: UserConfig) -> Path:
    """A real device was started with the place of its pack; in a simulation each has its number."""
    if "pack" in device:
        return Path(str(device["pack"]))
    return sorted(Path(str(config["packs"])).glob("*.h5"))[int(device["partition-id"])]


@app.train()
def train_here(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    config = message.content["config"]
    pack = own_pack(config, context.node_config)
    header = open_pack(pack).header
    network = new_network(header)
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    number = config["server-round"] - 1
    loss = train(network, pack, rounds=[number], of=config["rounds"], epochs=config["epochs"])
    # Flower weights each device's network by its number of images.
    metrics = MetricRecord({"loss": loss, "num-examples": header.samples})
    content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)
