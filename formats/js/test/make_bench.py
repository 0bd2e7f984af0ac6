"""Write a pack of smooth random images for the bench: make_bench.py FOLDER. `quantized`, 2048 images of 32x32."""

import sys
from pathlib import Path

from make_packs import write

IMAGES = 2048

if __name__ == "__main__":
    for tile in ("full", "8"):
        facts = {"codec": "quantized", "color_space": "ycbcr", "step": 20 / 255, "tile": tile, "chunk_samples": 512}
        write(Path(sys.argv[1]) / f"quantized-{tile}.h5", IMAGES, 32, 32, facts)
