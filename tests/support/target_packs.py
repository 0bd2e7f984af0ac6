"""Small packs with columns of targets, each of which can be told from the image."""

import numpy as np

from edgeprune_formats import PackHeader, PackWriter
from edgeprune_formats.targets import Column, Target

NAMES = ("ant", "bee", "Käfer")
TAGS = ("dark", "bright", "odd")


def columns_of(levels, first=0):
    """Columns of images that are even areas of `levels` in [0, 1]."""
    count = len(levels)
    classes = (levels * 3).astype(int).clip(0, 2)
    tags = np.stack([levels < 0.5, levels >= 0.5, np.arange(count) % 2 == 1], axis=1)
    soft = np.stack([levels, 1 - levels], axis=1).astype(np.float32)
    files = np.array([f"{number}.jpg" for number in range(first, first + count)], object)
    return [
        Target(Column("kind", "class", NAMES), classes),
        Target(Column("tags", "multilabel", TAGS), tags),
        Target(Column("value", "value", width=2, unit="mm"), np.stack([100 * levels, -levels], axis=1)),
        Target(Column("soft", "probabilities", ("light", "shade")), soft),
        Target(Column("file", "text"), files),
        Target(Column("row", "integer"), np.arange(first, first + count)),
        Target(Column("weight", "float"), levels / 2),
    ]


def target_pack(path, samples=24, seed=0, *, side=8, class_names=NAMES, columns=None, first=0):
    """Write a pack of even areas; `columns` names those it has, all by default."""
    levels = np.random.default_rng(seed).random(samples)
    header = PackHeader(
        samples=samples,
        channels=3,
        height=side,
        width=side,
        components=4,
        codec="sparse-f32",
        chunk_samples=min(7, samples),
        class_names=class_names,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        provenance={"source": {"spec": "even areas", "sha256": f"{seed}"}},
    )
    spectra = np.zeros((samples, *header.shape), np.float32)
    # A little noise, as no network learns from images without contrast.
    spectra[:, :, :2, :2] = np.random.default_rng(seed + 1).standard_normal((samples, 3, 2, 2)) / 10
    spectra[:, :, 0, 0] = side * levels[:, None]
    mask = np.zeros(spectra.shape, bool)
    mask[:, :, :2, :2] = True
    targets = [one for one in columns_of(levels, first) if columns is None or one.column.name in columns]
    labels = (levels * 3).astype(int).clip(0, 2) if class_names else np.zeros(samples, int)
    with PackWriter(path, header, labels, np.arange(samples), targets=targets) as writer:
        writer.append(spectra, mask)
    return path
