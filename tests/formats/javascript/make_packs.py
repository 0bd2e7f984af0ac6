"""Write packs, and the pixels that Python decodes from them: make_packs.py FOLDER."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.fft import idctn

from edgeprune_formats import PackHeader, PackWriter, open_pack
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
SPARSE = [
    ("wide", 3, 300, 200, {"components": 500}, "none"),
    ("packed", 33, 12, 20, {"components": 40}, "gzip"),
    ("all", 5, 7, 9, {"components": 63}, "gzip"),
    ("huge", 1, 2, 2000, {"components": 77}, "none"),
]


def spectra_of(samples, height, width):
    """Spectra of smooth random images on [0, 1], float32 [samples, 3, height, width]."""
    random = np.random.default_rng(samples + height)
    fall = 1 / (1 + np.add.outer(np.arange(height), np.arange(width))) ** 1.5
    spectra = random.normal(size=(samples, 3, height, width)) * fall * np.sqrt(height * width) / 8
    spectra[:, :, 0, 0] += 0.5 * np.sqrt(height * width)
    return spectra.astype(np.float32)


def write(path, samples, height, width, facts, compression="none"):
    header = PackHeader(
        samples=samples,
        channels=3,
        height=height,
        width=width,
        class_names=("ant", "Käfer"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        generator="make_packs.py",
        created="2026-01-02T03:04:05Z",
        **{"components": height * width, "chunk_samples": min(samples, 16)} | facts,
    )
    spectra = spectra_of(samples, height, width)
    mask = np.zeros(spectra.shape, bool)
    order = np.argsort(np.random.default_rng(0).random((samples, 3, height * width)), axis=2)
    np.put_along_axis(mask.reshape(samples, 3, -1), order[..., : header.components], True, axis=2)
    labels, rows = np.arange(samples) % 2, np.arange(samples) * 3
    with PackWriter(path, header, labels, rows, compression=compression) as writer:
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
            "labels": pack.labels.tolist(),
            "source_index": pack.source_index.tolist(),
            "scores": None if pack.scores is None else pack.scores.tolist(),
            "provenance": header.provenance,
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
    facts = [record(path) for path in sorted(folder.glob("*.h5"))]
    (folder / "packs.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
