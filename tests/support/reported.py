"""A small pack, its source, and a run of a network that has learned nothing, for pages that show them."""

import json

import small_builds

from edgeprune.packs.build import build_pack
from edgeprune.packs.config import BuildConfig

EPOCHS = [
    {"epoch": n, "train_loss": 2 / n, "train_accuracy": n / 4, "test_loss": 3 / n, "test_accuracy": n / 5}
    for n in (1, 2, 3)
]


def pack_and_run(folder):
    """Write ``pack.h5``, ``images.npz`` and ``run`` into a folder."""
    spec = small_builds.write_source(folder)
    build_pack(spec, folder / "pack.h5", BuildConfig(codec="sparse-f32", freq_prune=0.25))
    run = small_builds.run_folder(folder, mean=[0.5] * 3, std=[0.25] * 3, class_names=["0", "1", "2"])
    (run / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in EPOCHS))
    return folder
