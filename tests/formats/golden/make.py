"""Write the golden packs of the present version and what must be read from them; run once for each."""

import json
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from edgeprune_formats import PackHeader, PackWriter, open_pack
from edgeprune_formats.targets import Column, Target
from edgeprune_formats.tiles import dct_basis

SAMPLES, CHANNELS, HEIGHT, WIDTH, COMPONENTS, CHUNK = 5, 3, 12, 20, 40, 2
VERSION = "1.3"
SEED = 2026
FOLDER = Path(__file__).parent
LABELS = [2, 0, 1, 2, 0]
SOURCE_INDEX = [11, 5, 4000000000, 0, 7]
NAMES = ("ant", "bee", "Käfer")


def noise(*numbers):
    """An integer below 2**32 from integers, by a multiplicative hash that no library can change."""
    state = SEED
    for number in numbers:
        state = (state ^ number) * 2654435761 % 2**32
        state ^= state >> 15
    return state


def coefficient(image, channel, row, column):
    """A multiple of 1/64, so exact in float32."""
    return (noise(1, image, channel, row, column) % 4001 - 2000) / 64


def score(image):
    """A multiple of 1/64, so exact in float32, of either sign."""
    return (noise(3, image) % 4001 - 2000) / 64


def kept(image, channel):
    """Rows and columns of the kept coefficients, in row-major order."""
    places = [(row, column) for row in range(HEIGHT) for column in range(WIDTH)]
    chosen = sorted(places, key=lambda place: (noise(2, image, channel, *place), place))[:COMPONENTS]
    return sorted(chosen)


def expected(version=VERSION):
    """All values that the file must hold, by integer arithmetic and struct, without the package or numpy."""
    facts = {"format_version": version} | common()
    if version != "1.0":
        scores = [score(image) for image in range(SAMPLES)]
        facts["provenance"]["coreset"] = {"score": "joint_entropy", "keep_end": "low"}
        facts |= {"scores": scores, "scores_crc32": zlib.crc32(struct.pack(f"<{SAMPLES}f", *scores))}
    return facts


def common():
    """What files of every version hold."""
    bits = math.ceil(math.log2(WIDTH))
    images, values_crc32, indices_crc32 = [], [], []
    for start in range(0, SAMPLES, CHUNK):
        values_bytes = indices_bytes = b""
        for image in range(start, min(start + CHUNK, SAMPLES)):
            planes = []
            for channel in range(CHANNELS):
                places = kept(image, channel)
                values = [coefficient(image, channel, *place) for place in places]
                indices = [row << bits | column for row, column in places]
                planes.append({"indices": indices, "values": values})
                values_bytes += struct.pack(f"<{COMPONENTS}f", *values)
                indices_bytes += struct.pack(f"<{COMPONENTS}H", *indices)
            images.append(planes)
        values_crc32.append(zlib.crc32(values_bytes))
        indices_crc32.append(zlib.crc32(indices_bytes))
    return {
        "shape": [CHANNELS, HEIGHT, WIDTH],
        "components": COMPONENTS,
        "chunk_samples": CHUNK,
        "class_names": list(NAMES),
        "labels": LABELS,
        "source_index": SOURCE_INDEX,
        "mean": [0.5, 0.25, 0.125],
        "std": [0.2, 0.3, 0.4],
        "generator": "golden/make.py",
        "created": "2026-01-02T03:04:05Z",
        "provenance": {"seed": SEED, "note": "Übung"},
        "values_crc32": values_crc32,
        "indices_crc32": indices_crc32,
        "images": images,
    }


def write_pack(path, compression, targets=(), **options):
    facts = expected()
    codec = {"codec": "sparse-f32"} | options
    header = PackHeader(
        samples=SAMPLES,
        channels=CHANNELS,
        height=HEIGHT,
        width=WIDTH,
        components=COMPONENTS,
        chunk_samples=CHUNK,
        class_names=() if targets else NAMES,
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        generator=facts["generator"],
        created=facts["created"],
        format_version=VERSION,
        provenance=facts["provenance"],
        **codec,
    )
    coefficients = np.zeros((SAMPLES, CHANNELS, HEIGHT, WIDTH), np.float32)
    mask = np.zeros(coefficients.shape, bool)
    for index in np.ndindex(coefficients.shape):
        coefficients[index] = coefficient(*index)
    for image in range(SAMPLES):
        for channel in range(CHANNELS):
            for place in kept(image, channel):
                mask[image, channel, place[0], place[1]] = True
    scores = np.array(facts["scores"])
    with PackWriter(
        path,
        header,
        np.array(LABELS) if not targets else np.zeros(SAMPLES, int),
        np.array(SOURCE_INDEX),
        compression=compression,
        scores=scores,
        targets=targets,
    ) as writer:
        writer.append(coefficients, mask)


def write_coded(codec, **options):
    """Write a pack of a codec whose content only its encoder determines, and record what it holds."""
    path = FOLDER / f"edgepack-{VERSION}-{codec}.h5"
    if path.exists():
        sys.exit(f"{path} exists; a released golden file must never change")
    write_pack(path, "none", codec=codec, **options)
    with open_pack(path) as pack:
        parts = [pack.read_chunk(chunk) for chunk in range(pack.header.chunks)]
        facts = {
            "labels": pack.labels.tolist(),
            "source_index": pack.source_index.tolist(),
            "step": pack.header.step,
        }
    for name in ("values", "extents" if codec == "quantized" else "positions"):
        facts[name] = np.concatenate([getattr(part, name) for part in parts]).tolist()
    path.with_suffix(".json").write_text(json.dumps(facts) + "\n")


def targets():
    """Columns of every kind; all numbers are exact in what they are stored as."""
    rows = range(SAMPLES)
    tags = [[noise(4, image, number) % 2 == 1 for number in range(10)] for image in rows]
    values = [[noise(5, image, number) % 4001 / 64 - 20 for number in range(2)] for image in rows]
    shares = [[0.25, 0.5, 0.25], [1, 0, 0], [0, 0.125, 0.875], [0.5, 0.5, 0], [0, 0, 1]]
    parts = [[(noise(6, image, 0) % 256), 0] for image in rows]
    for part in parts:
        part[1] = 255 - part[0]
    return {
        "kind": ("class", [noise(7, image) % 3 for image in rows], {"classes": NAMES}),
        "tags": ("multilabel", tags, {"classes": tuple("abcdefghij")}),
        "position": ("value", values, {"width": 2, "unit": "mm"}),
        "shares": ("probabilities", shares, {"classes": NAMES}),
        "parts": ("probabilities", parts, {"classes": ("no", "ja"), "dtype": "uint8"}),
        "file": ("text", ["1.jpg", "Käfer.jpg", "", "b/4.jpg", "5.jpg"], {}),
        "time": ("integer", [1 - 2**63, 0, 5, 2**63 - 1, noise(8)], {"unit": "s"}),
    }


def write_targets(path):
    """Write a pack of the present version without classes, and record its columns."""
    columns = targets()
    given = []
    for name, (kind, values, facts) in columns.items():
        array = np.array(values, object if kind == "text" else None)
        array = array.astype(np.float32) / np.float32(255) if name == "parts" else array
        given.append(Target(Column(name, kind, **facts), array))
    write_pack(path, "none", targets=given)
    record = {name: [kind, values, facts] for name, (kind, values, facts) in columns.items()}
    path.with_suffix(".json").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


# Images of other channels than three, which the version added: name, codec, channels, bits and options.
PLANES = (
    ("quantized-gray", "quantized", 1, 8, {"tile": "8", "color_space": "gray", "step": 0.05}),
    ("quantized-planes", "quantized", 4, 16, {"color_space": "planes", "step": 0.01}),
    ("sparse-f32-planes", "sparse-f32", 2, 16, {"color_space": "planes"}),
)


def level(bits, *place):
    """A pixel of a smooth pattern with some noise, from 0 to 2**bits - 1."""
    image, channel, row, column = place
    slope = (5 * image + 7 * channel + 3 * row + 2 * column) % 97 / 97
    return int((0.9 * slope + 0.1 * (noise(4, *place) % 1000) / 1000) * (2**bits - 1))


def write_planes(path, name):
    """Write one of the packs of `PLANES`, of 3 images of 12 x 20 in chunks of 2."""
    _, codec, channels, bits, options = next(entry for entry in PLANES if entry[0] == name)
    shape = (3, channels, HEIGHT, WIDTH)
    pixels = np.array([level(bits, *place) for place in np.ndindex(shape)]).reshape(shape)
    header = PackHeader(
        samples=3,
        channels=channels,
        height=HEIGHT,
        width=WIDTH,
        components=HEIGHT * WIDTH,
        codec=codec,
        chunk_samples=2,
        class_names=NAMES,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        bits=bits,
        generator="golden/make.py",
        created="2026-01-02T03:04:05Z",
        format_version=VERSION,
        **options,
    )
    spectra = dct_basis(HEIGHT) @ (pixels / (2**bits - 1)) @ dct_basis(WIDTH).T
    with PackWriter(path, header, np.array(LABELS[:3]), np.arange(3), compression="none") as writer:
        writer.append(spectra.astype(np.float32), np.ones(shape, bool))


def planes_facts(path):
    """What a reader must find in a pack of `PLANES`; sparse coefficients within rounding of the transform."""
    with open_pack(path) as pack:
        header = pack.header
        parts = [pack.read_chunk(chunk) for chunk in range(header.chunks)]
    facts = {"shape": header.shape, "bits": header.bits, "color_space": header.color_space}
    return facts | {"values": np.concatenate([part.values for part in parts]).tolist()}


def write_all_planes():
    for name, *_ in PLANES:
        path = FOLDER / f"edgepack-{VERSION}-{name}.h5"
        if path.exists():
            sys.exit(f"{path} exists; a released golden file must never change")
        write_planes(path, name)
        path.with_suffix(".json").write_text(json.dumps(planes_facts(path)) + "\n")


def main():
    plain = FOLDER / f"edgepack-{VERSION}-sparse-f32.h5"
    packed = FOLDER / f"edgepack-{VERSION}-sparse-f32-gzip.h5"
    facts = FOLDER / f"edgepack-{VERSION}-sparse-f32.json"
    for path in (plain, packed, facts):
        if path.exists():
            sys.exit(f"{path} exists; a released golden file must never change")
    write_pack(plain, "none")
    write_pack(packed, "gzip")
    facts.write_text(json.dumps(expected(), ensure_ascii=False) + "\n", encoding="utf-8")
    write_coded("sparse-f16")
    write_coded("quantized", tile="8", color_space="ycbcr", step=4.0)
    write_targets(FOLDER / f"edgepack-{VERSION}-targets.h5")
    write_all_planes()


if __name__ == "__main__":
    main()
