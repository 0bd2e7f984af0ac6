"""Write packs, and the pixels that Python decodes from them: make_packs.py FOLDER."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.fft import idctn

from edgeprune_formats import PackHeader, PackWriter, open_pack
from edgeprune_formats.targets import Column, Target
from edgeprune_formats.tiles import from_tiles

GOLDEN = Path(__file__).parents[1] / "golden"

# Name, images, height, width, and what else the header says.
QUANTIZED = [
    ("full-rgb", 9, 32, 32, {"color_space": "rgb", "step": 0.05}),
    ("tiles-8", 40, 50, 37, {"tile": "8", "color_space": "ycbcr", "step": 0.02}),
    ("tiles-16", 9, 24, 40, {"tile": "16", "color_space": "rgb", "step": 0.001}),
    ("tiles-32", 3, 64, 96, {"tile": "32", "color_space": "ycbcr", "step": 0.01}),
    # Large numbers, of which most are written in 16 bits.
    ("fine", 6, 16, 16, {"color_space": "rgb", "step": 0.0006}),
    ("one-pixel", 5, 1, 1, {"color_space": "rgb", "step": 0.01}),
    ("one-row", 5, 1, 9, {"tile": "8", "color_space": "ycbcr", "step": 0.01}),
]
PLANES = [
    ("gray", 5, 12, 20, {"codec": "sparse-f32", "color_space": "gray", "channels": 1, "components": 40}),
    ("two", 5, 12, 20, {"codec": "sparse-f16", "channels": 2, "components": 40, "bits": 16}),
    ("rgba", 9, 24, 17, {"codec": "quantized", "channels": 4, "step": 0.02}),
    ("many", 3, 24, 17, {"codec": "quantized", "channels": 32, "step": 0.02, "tile": "16", "bits": 16}),
]
SPARSE = [
    ("wide", 3, 300, 200, {"components": 500}, "none"),
    ("packed", 33, 12, 20, {"components": 40}, "gzip"),
    ("all", 5, 7, 9, {"components": 63}, "gzip"),
    ("huge", 1, 2, 2000, {"components": 77}, "none"),
]


def spectra_of(samples, channels, height, width):
    """Spectra of smooth random images on [0, 1], float32 [samples, channels, height, width]."""
    random = np.random.default_rng(samples + height)
    fall = 1 / (1 + np.add.outer(np.arange(height), np.arange(width))) ** 1.5
    spectra = random.normal(size=(samples, channels, height, width)) * fall * np.sqrt(height * width) / 8
    spectra[:, :, 0, 0] += 0.5 * np.sqrt(height * width)
    return spectra.astype(np.float32)


def targets_of(samples):
    """A column of each kind."""
    random, numbers = np.random.default_rng(1), np.arange(samples)
    soft = random.dirichlet(np.ones(3), samples).astype("f4")
    texts = np.array([f"Käfer {number}" for number in numbers], object)
    return [
        Target(Column("breed", "class", tuple(f"breed {n}" for n in range(300))), numbers * 7),
        Target(Column("tags", "multilabel", tuple("abcdefghi")), random.random((samples, 9)) < 0.5),
        Target(Column("pose", "value", width=2, unit="mm"), random.normal(size=(samples, 2)).astype("f4")),
        Target(Column("soft", "probabilities", ("x", "y", "z")), soft),
        Target(Column("file", "text"), texts),
        Target(Column("time", "integer", unit="s"), numbers * 10**12 - 3),
        Target(Column("weight", "float", dtype="float32"), np.where(numbers % 3, numbers, np.nan)),
    ]


def likeliest_of(samples):
    """Columns that hold the likeliest classes alone, of few classes and of many."""
    random = np.random.default_rng(2)
    return [
        Target(
            Column(f"of {classes}", "probabilities", tuple(map(str, range(classes))), top=top),
            random.dirichlet(np.full(classes, 0.1), samples).astype("f4"),
        )
        for classes, top in ((10, 3), (300, 5))
    ]


def write(path, samples, height, width, facts, compression="none", targets=()):
    channels = facts.get("channels", 3)
    defaults = {
        "channels": channels,
        "components": height * width,
        "chunk_samples": min(samples, 16),
        "class_names": ("ant", "Käfer"),
    }
    header = PackHeader(
        samples=samples,
        height=height,
        width=width,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        generator="make_packs.py",
        created="2026-01-02T03:04:05Z",
        **defaults | facts,
    )
    spectra = spectra_of(samples, channels, height, width)
    mask = np.zeros(spectra.shape, bool)
    order = np.argsort(np.random.default_rng(0).random((samples, channels, height * width)), axis=2)
    np.put_along_axis(mask.reshape(samples, channels, -1), order[..., : header.components], True, axis=2)
    labels = np.arange(samples) % 2 if header.class_names else np.zeros(samples, int)
    rows = np.arange(samples) * 3
    with PackWriter(path, header, labels, rows, compression=compression, targets=targets) as writer:
        writer.append(spectra, mask)


def pixels_of(path):
    """What Python decodes, clipped to [0, 1], float32."""
    with open_pack(path) as pack:
        header = pack.header
        parts = [pack.read_chunk(chunk) for chunk in range(header.chunks)]
    if header.codec == "quantized":
        values = np.concatenate([part.values for part in parts]) * np.float64(header.step)
        size = (header.height, header.width)
        pixels = from_tiles(values, header.tile_shape, header.grid, size, header.color_space) + 0.5
    else:
        spectra = np.concatenate([part.to_dense(header.height, header.width) for part in parts])
        pixels = idctn(spectra.astype(np.float64), axes=(2, 3), norm="ortho")
    return np.clip(pixels, 0, 1).astype("<f4")


def record(path):
    with open_pack(path) as pack:
        header = pack.header
        pixels = pixels_of(path)
        pixels.tofile(path.with_suffix(".pixels"))
        return {
            "name": path.stem,
            "version": header.format_version,
            "codec": header.codec,
            "block": header.tile,
            "color_space": header.color_space,
            "shape": list(pixels.shape),
            "components": header.components,
            "mean": list(header.mean),
            "class_names": list(header.class_names),
            "bits": header.bits,
            "labels": pack.labels.tolist() if header.class_names else None,
            "source_index": pack.source_index.tolist(),
            "scores": None if pack.scores is None else pack.scores.tolist(),
            "provenance": header.provenance,
            "targets": [column_of(target) for name, target in pack.targets.items() if name != "label"],
        }


def column_of(target):
    column = target.column
    values = target.read().reshape(-1).tolist()
    return {
        "name": column.name,
        "kind": column.kind,
        "classes": list(column.classes),
        "unit": column.unit or None,
        "values": [None if value != value else value for value in values],
    }


def main(folder):
    for path in sorted(GOLDEN.glob("*.h5")):
        shutil.copy(path, folder)
    for name, samples, height, width, facts in QUANTIZED:
        write(folder / f"quantized-{name}.h5", samples, height, width, {"codec": "quantized"} | facts)
    for name, samples, height, width, facts, compression in SPARSE:
        for codec in ("sparse-f32", "sparse-f16"):
            path = folder / f"{codec}-{name}.h5"
            write(path, samples, height, width, {"codec": codec} | facts, compression)
    for name, samples, height, width, facts in PLANES:
        write(folder / f"planes-{name}.h5", samples, height, width, {"color_space": "planes"} | facts)
    few = {"codec": "quantized", "tile": "8", "color_space": "ycbcr", "step": 0.05}
    write(folder / "targets.h5", 9, 12, 20, few, targets=targets_of(9))
    write(
        folder / "no-classes.h5",
        9,
        12,
        20,
        few | {"class_names": ()},
        targets=targets_of(9)[2:] + likeliest_of(9),
    )
    facts = [record(path) for path in sorted(folder.glob("*.h5"))]
    (folder / "packs.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
