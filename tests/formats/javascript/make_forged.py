"""Write packs with forged metadata and right checksums, and what is found: make_forged.py FOLDER."""

import json
import random
import sys
from pathlib import Path

from make_packs import targets_of, write

from edgeprune_benchmarks.fuzzing.hdf5_metadata import blocks, repair
from edgeprune_formats.structure import why_not_plain

FILES = 600
# The signature and what stands in its first bytes are looked at elsewhere, or not at all.
FIRST = 12


def forge(content, places, draw):
    """Change one or two bytes of metadata."""
    for _ in range(draw.choice((1, 1, 2))):
        start, end = draw.choice(places)
        at = draw.randrange(max(start, FIRST), end)
        bit = content[at] ^ 1 << draw.randrange(8)
        content[at] = draw.choice((0, 1, 255, bit, draw.randrange(256), (content[at] + 1) & 255))
    repair(content, places)


def main(folder):
    sound = [folder / f"{name}.h5" for name in ("chunked", "stream")]
    write(sound[0], 20, 7, 9, {"codec": "sparse-f32", "chunk_samples": 3}, "gzip", targets=targets_of(20))
    write(sound[1], 20, 7, 9, {"codec": "quantized", "color_space": "rgb", "step": 0.1})
    made = [(path.read_bytes(), blocks(path)) for path in sound]
    draw, facts = random.Random(5), []
    for number in range(FILES):
        whole, places = draw.choice(made)
        content = bytearray(whole)
        forge(content, places, draw)
        path = folder / f"{number}.h5"
        path.write_bytes(content)
        facts.append({"name": path.stem, "why": why_not_plain(path)})
    (folder / "forged.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
