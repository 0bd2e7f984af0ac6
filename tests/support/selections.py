"""Scores of some images, and selections by them."""

from dataclasses import dataclass, field, replace

import numpy as np

from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.selection import select_images
from edgeprune.scoring.scores_file import EpochRecords, read_scores_file, write_scores_file
from edgeprune.sources import Source, SourceCheck, check_source, open_source, source_facts

EPOCHS, EVERY = 14, 2


@dataclass(frozen=True)
class How:
    """The arguments of a selection by score, or at random."""

    sample_prune: float = 0.5
    seed: int = 4
    scored: bool = True
    coreset: CoresetConfig = field(default_factory=CoresetConfig)


JE = How()


def image_arrays(images=60, side=8, classes=3):
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3)).astype(np.uint8)
    return pixels, np.arange(images) % classes


def npz_source(folder, pixels, labels):
    np.savez(folder / "images.npz", x=pixels, y=labels)
    return open_source(f"npz:{folder / 'images.npz'}")


def recorded(images, seed=0):
    """What a run of `EPOCHS` might have recorded, and the final entropies."""
    random = np.random.default_rng(seed)
    learned = np.linspace(0, 1, EPOCHS)[:, None] > random.random(images) * 1.2
    return {
        "correct": learned ^ (random.random((EPOCHS, images)) < 0.1),
        "probabilities": random.random((EPOCHS, images)).astype("f4"),
        "margins": random.uniform(-1, 1, (EPOCHS, images)).astype("f4"),
        "errors": random.uniform(0, 1.4, (EPOCHS, images)).astype("f4"),
        "entropies": random.gamma(1.0, size=(EPOCHS, images)).astype("f4"),
    }


def write(path, source, check, series):
    """Write a scores file of some records over the images of a source."""
    kinds = ("correct", "probabilities", "margins", "errors")
    epochs = [
        EpochRecords({name: series[name][epoch] for name in kinds}, series["entropies"][epoch])
        for epoch in range(EPOCHS)
    ]
    write_scores_file(
        path,
        rows=check.good.astype(np.int64),
        labels=source.labels[check.good],
        epochs=epochs,
        count=EPOCHS,
        every=EVERY,
        classifier={"weight": np.zeros(3, "f4")},
        provenance={
            "source": source_facts(source, check),
            "config": {"model": "resnet8", "epochs": EPOCHS},
            "classifier": {"model": "resnet8"},
        },
    )
    return read_scores_file(path)


@dataclass(frozen=True)
class Scored:
    source: Source
    check: SourceCheck
    series: dict
    records: object

    def choose(self, config=JE, **coreset):
        config = replace(config, coreset=replace(config.coreset, **coreset))
        return select_with(self.source, self.check, config, self.records)


def select_with(source, check, how, records):
    return select_images(
        source,
        check.good,
        sha256=check.sha256,
        sample_prune=how.sample_prune,
        seed=how.seed,
        scores=records if how.scored else None,
        config=how.coreset,
    )


def score(folder, source, **options):
    check = check_source(source, **options)
    series = recorded(len(check.good))
    return Scored(source, check, series, write(folder / "s.h5", source, check, series))


def one_line(error):
    return "\n" not in str(error.value)
