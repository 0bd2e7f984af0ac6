"""Write packs of 2048 smooth random images of 32x32 for the bench in JavaScript: make_bench.py FOLDER."""

import sys
from pathlib import Path

from make_packs import write

IMAGES = 2048

if __name__ == "__main__":
    for tile in ("full", "8"):
        facts = {"codec": "quantized", "color_space": "ycbcr", "tile": tile}
        facts |= {"step": 20 / 255, "chunk_samples": 512}
        write(Path(sys.argv[1]) / f"quantized-{tile}.h5", IMAGES, 32, 32, facts)
