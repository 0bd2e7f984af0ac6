"""FedAvg over simulated devices against training in one place: python simulate.py npz:images.npz

Builds a pack, splits it, trains a network over the parts by Flower's simulation engine, and, for as many
passes over the same images, on the whole pack and on each part alone. Prints JSON.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}

import torch
from client import app as client
from flwr.simulation import run_simulation
from learning import BATCH, LR, MODEL, accuracy, new_network, train
from server import make_server

from edgeprune import BuildConfig, build_pack
from edgeprune.repack.partition import parse_by
from edgeprune.repack.split import split_pack
from edgeprune.training.evaluation import open_test

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("source", help="as for edgeprune build; its test half is what is tested on")
parser.add_argument("--devices", type=int, default=4)
parser.add_argument("--rounds", type=int, default=10)
parser.add_argument("--epochs", type=int, default=5, help="of each device in a round")
parser.add_argument("--by", nargs="+", default=["iid", "dirichlet:0.3"])
parser.add_argument("--quality", type=float, default=90)
parser.add_argument("--work", type=Path, default=Path("fleet"), help="folder for the packs")
parser.add_argument("--output", type=Path, help="a JSON file for the figures")


def main() -> None:
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    work = options.work.resolve()
    torch.set_num_threads(1)
    whole = work / "whole.h5"
    config = BuildConfig(codec="quantized", quality=options.quality)
    header = build_pack(options.source, whole, config).header
    test = open_test(options.source, header)
    length = {"rounds": options.rounds, "epochs": options.epochs}

    def alone(pack: Path) -> float:
        network = new_network(header)
        train(network, pack, rounds=range(options.rounds), of=options.rounds, epochs=options.epochs)
        return accuracy(network, test)

    started = time.perf_counter()
    central = alone(whole)
    results = {"central": {"accuracy": central, "seconds": time.perf_counter() - started}}
    for by in options.by:
        folder = work / f"{by.replace(':', '-')}-{options.devices}"
        parts = split_pack(whole, folder, options.devices, by=parse_by(by))
        history: list[float] = []
        server = make_server(folder, test, devices=options.devices, history=history, header=header, **length)
        started = time.perf_counter()
        run_simulation(
            server_app=server,
            client_app=client,
            num_supernodes=options.devices,
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"include_dashboard": False},
            },
        )
        results[by] = {
            "accuracy": history[-1],
            "by_round": history,
            "seconds": time.perf_counter() - started,
            "alone": [alone(part.path) for part in parts],
            "images_by_class": [part.classes for part in parts],
        }
    settings = {"model": MODEL, "batch_size": BATCH, "lr": LR, "devices": options.devices, **length}
    facts = {"train_images": header.samples, "quality": options.quality, **settings}
    versions = {name: version(name) for name in ("edgeprune", "flwr", "ray", "torch")}
    text = json.dumps({"settings": facts, "versions": versions, "results": results})
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
