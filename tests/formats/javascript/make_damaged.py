"""Write packs with damaged streams and right checksums, and what Python decodes: make_damaged.py FOLDER."""

import json
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
from make_packs import pixels_of, write

from edgeprune_formats import PackLayoutError

TRIALS = 60
PACKS = {
    "quantized": ("payload", {"codec": "quantized", "tile": "8", "color_space": "ycbcr", "step": 0.02}),
    "fine": ("payload", {"codec": "quantized", "color_space": "rgb", "step": 0.0006}),
    "sparse-f16": ("positions", {"codec": "sparse-f16", "components": 40}),
}


def damage(content, place, size, trial, random):
    """Change a bit of a stream of one chunk; of the model or the bitmaps, what it inflates to."""
    stream = content[place : place + size]
    begin = 16 if int.from_bytes(stream[:4], "little") < size else 0
    length = int.from_bytes(stream[:4], "little") if begin else size
    if trial % 3:
        stream[random.integers(size)] ^= 1 << random.integers(8)
        return stream
    inner = bytearray(zlib.decompress(stream[begin : begin + length]))
    at = random.integers(len(inner))
    inner[at] = (inner[at] + random.integers(1, 4)) & 255
    # Stored without compression it is longer, so that the level which fits is looked for.
    for level in (9, 6, 3, 1):
        packed = zlib.compress(inner, level)
        if len(packed) == length:
            stream[begin : begin + length] = packed
    return stream


def main(folder):
    facts, random = [], np.random.default_rng(7)
    for name, (stream, header) in PACKS.items():
        sound = folder / "sound.h5"
        write(sound, 12, 16, 16, header)
        with h5py.File(sound, "r") as file:
            place, size = file[f"samples/{stream}"].id.get_offset(), file[f"samples/{stream}"].shape[0]
            checksum = file[f"samples/{stream}_crc32"].id.get_offset()
        for trial in range(TRIALS):
            content = bytearray(sound.read_bytes())
            changed = damage(content, place, size, trial, random)
            content[place : place + size] = changed
            content[checksum : checksum + 4] = zlib.crc32(changed).to_bytes(4, "little")
            path = folder / f"{name}-{trial}.h5"
            path.write_bytes(content)
            try:
                pixels_of(path).tofile(path.with_suffix(".pixels"))
                facts.append({"name": path.stem, "refused": False})
            except PackLayoutError as error:
                facts.append({"name": path.stem, "refused": True, "location": error.problem.location})
    (folder / "damaged.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
