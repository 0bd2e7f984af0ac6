"""Scores files of a few made-up records, and what reading them ends in."""

import zlib
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from edgeprune.scoring.scores_file import (
    RECORD_TYPES,
    EpochRecords,
    read_classifier,
    read_scores_file,
    write_scores_file,
)
from edgeprune_runtime.errors import ArtifactError

EPOCHS, EVERY, SAMPLES = 5, 2, 7
PROVENANCE = {
    "source": {"spec": "digits", "sha256": "ab" * 32},
    "config": {"epochs": EPOCHS},
    "classifier": {"model": "resnet8"},
}
MATRICES = ("correct", "probabilities", "margins", "errors", "entropies", "final_entropies")
NAMES = (
    "samples/rows",
    "samples/labels",
    "samples/final_entropies",
    *(f"epochs/{name}" for name in RECORD_TYPES),
    "entropies/epochs",
    "entropies/entropies",
    "classifier/conv1.weight",
    "classifier/bn1.num_batches_tracked",
    "provenance",
)


def content(epochs=EPOCHS, every=EVERY, samples=SAMPLES):
    random = np.random.default_rng(0)
    records = []
    for epoch in range(1, epochs + 1):
        values = {name: random.random(samples).astype("f4") for name in RECORD_TYPES}
        values["correct"] = random.integers(0, 2, samples).astype("u1")
        entropies = random.random(samples).astype("f4") if epoch % every == 0 or epoch == epochs else None
        records.append(EpochRecords(values, entropies))
    classifier = {
        "conv1.weight": random.random((4, 3, 3, 3)).astype("f4"),
        "bn1.num_batches_tracked": np.array(12),
    }
    rows, labels = np.arange(samples) * 2 + 1, np.arange(samples) % 3
    return SimpleNamespace(rows=rows, labels=labels, epochs=records, classifier=classifier, every=every)


def write(path, made, **changes):
    options = {
        "rows": made.rows,
        "labels": made.labels,
        "epochs": iter(made.epochs),
        "count": len(made.epochs),
        "every": made.every,
        "classifier": made.classifier,
        "provenance": PROVENANCE,
    }
    write_scores_file(path, **(options | changes))


def read_all(path):
    records = read_scores_file(path)
    return {name: records.array(name) for name in MATRICES}, read_classifier(path)


def put_in_group(path, classifier):
    """Store the network as version 1 did: its tensors by name."""
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.int64(1)
        del file["classifier"]
        for name, tensor in classifier.items():
            dataset = file.create_dataset(f"classifier/{name}", data=tensor)
            dataset.attrs["crc32"] = np.uint32(zlib.crc32(np.asarray(tensor, order="C").tobytes()))


def put(path, name, array, **options):
    """Replace an array by another with a right checksum."""
    with h5py.File(path, "r+") as file:
        del file[name]
        dataset = file.create_dataset(name, data=array, **options)
        stored = dataset[()]
        dataset.attrs["crc32"] = np.uint32(zlib.crc32(np.asarray(stored).tobytes()))


def assert_refused(path, *words):
    with pytest.raises(ArtifactError) as caught:
        read_all(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: "), text
    assert "edgeprune score" in text or "newer edgeprune" in text
    assert "\n" not in text
    for word in words:
        assert word in text, text
